//! Environment variables from files that other containers of the pod write (`fileKeyRef`): what is looked for, and what a
//! file says.
//!
//! A file is a small part of what shells read: `NAME='value'`, where nothing in the quotes means anything but itself, not
//! even the end of a line.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{FileKeySelector, Pod};

use crate::spec;

/// The longest key.
const MAX_KEY: usize = 128;
/// The longest value, in bytes.
const MAX_VALUE: usize = 32 << 10;

/// The files of a pod, by volume and path.
pub type EnvFiles = BTreeMap<(String, String), Result<String, Unread>>;

/// Why a file could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is not there.
    Missing,
    /// Something else, without an end.
    Because(String),
}

/// All that the pod's containers want from files.
pub(crate) fn wanted(pod: &Pod) -> Vec<FileKeySelector> {
    let containers = spec::all_containers(pod).map(|(container, _)| container.clone());
    let ephemeral = spec::ephemeral_containers(pod)
        .into_iter()
        .map(|(container, _)| container);
    let variables = containers
        .chain(ephemeral)
        .flat_map(|container| container.env.unwrap_or_default());
    variables
        .filter_map(|variable| variable.value_from?.file_key_ref)
        .collect()
}

/// The value that is referred to; `None`: it is optional and not there.
///
/// # Errors
/// Why there is none.
pub(crate) fn value(selector: &FileKeySelector, files: &EnvFiles) -> Result<Option<String>, String> {
    let FileKeySelector {
        key,
        path,
        volume_name,
        ..
    } = selector;
    let optional = selector.optional == Some(true);
    if key.len() > MAX_KEY {
        return Err(format!(
            "environment variable key {key:?} exceeds maximum length of {MAX_KEY} characters"
        ));
    }
    let file = files.get(&(volume_name.clone(), path.clone()));
    let text = match file.unwrap_or(&Err(Unread::Missing)) {
        Ok(text) => text,
        Err(Unread::Missing) if optional => return Ok(None),
        Err(Unread::Missing) => return Err(format!("there is no file {path:?} in volume {volume_name:?}")),
        Err(Unread::Because(why)) => {
            return Err(format!(
                "file {path:?} of volume {volume_name:?} can't be read: {why}"
            ));
        }
    };
    let found = find(text, key).map_err(|(line, why)| {
        format!("file {path:?} of volume {volume_name:?}: invalid environment variable format at line {line}: {why}")
    })?;
    match found {
        Some(value) if value.len() > MAX_VALUE => Err(format!(
            "environment variable value for key {key:?} exceeds maximum size of 32KB"
        )),
        // As upstream: what is empty is not there.
        Some(value) if !value.is_empty() => Ok(Some(value)),
        _ if optional => Ok(None),
        _ => Err(format!(
            "environment variable key {key:?} not found in file {path:?}"
        )),
    }
}

/// The number of a line, and what is wrong with it.
type Wrong = (usize, &'static str);
/// A line, or a part of it, and its number.
type Line<'a> = (&'a str, usize);

/// What the file says of a key. What comes after it is not looked at.
fn find(text: &str, key: &str) -> Result<Option<String>, Wrong> {
    let blank = [' ', '\t'];
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(blank);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, rest) = line.split_once('=').ok_or((number, "missing '='"))?;
        if name.is_empty() {
            return Err((number, "empty variable name"));
        }
        if name.ends_with(blank) {
            return Err((number, "whitespace before '=' is not allowed"));
        }
        if rest.starts_with(blank) {
            // As in a shell, this is no value.
            if name == key {
                return Ok(Some(String::new()));
            }
            continue;
        }
        let rest = rest
            .strip_prefix('\'')
            .ok_or((number, "value must be enclosed in single quotes"))?;
        let (value, end) = quoted(rest, number, &mut lines)?;
        let after = end.0.trim_start_matches(blank);
        if !after.is_empty() && !after.starts_with('#') {
            return Err((end.1, "unexpected content after closing quote"));
        }
        if name == key {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// What stands before the closing quote; and what stands after it, with the number of its line.
fn quoted<'a>(
    first: &'a str,
    number: usize,
    lines: &mut impl Iterator<Item = Line<'a>>,
) -> Result<(String, Line<'a>), Wrong> {
    let mut value = String::new();
    let mut line = (first, number);
    loop {
        if let Some((inside, after)) = line.0.split_once('\'') {
            value.push_str(inside);
            return Ok((value, (after, line.1)));
        }
        value.push_str(line.0);
        value.push('\n');
        line = lines.next().ok_or((number, "unclosed single quote"))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_upstream_reads_it() {
        let text = "# first\n\n  \t\n  PLAIN='one'\r\nHASH='a#b \"$x\" \\' # a comment\nLINES='a\n # b\n\nc'\t#\nEMPTY=''\nAPART= 'x'\n\
            A-B.c='odd'\nPLAIN='two'\nTWICE='x''y'\n";
        for (key, expected) in [
            ("PLAIN", Some("one")),
            ("HASH", Some("a#b \"$x\" \\")),
            ("LINES", Some("a\n # b\n\nc")),
            ("EMPTY", Some("")),
            ("APART", Some("")),
            ("A-B.c", Some("odd")),
        ] {
            assert_eq!(find(text, key), Ok(expected.map(str::to_owned)), "{key}");
        }
        // Only as far as it has to be read.
        assert_eq!(
            find(text, "NONE"),
            Err((14, "unexpected content after closing quote"))
        );
        for (text, line, why) in [
            ("A='x'\nB", 2, "missing '='"),
            ("='x'", 1, "empty variable name"),
            ("B ='x'", 1, "whitespace before '='"),
            ("\nB=x", 2, "single quotes"),
            ("B=\"x\"", 1, "single quotes"),
            ("B=", 1, "single quotes"),
            ("\nB='x\n\n", 2, "unclosed single quote"),
            ("B='x' y", 1, "unexpected content"),
        ] {
            let found = find(text, "K").unwrap_err();
            assert!(found.0 == line && found.1.contains(why), "{text:?}: {found:?}");
        }
        assert_eq!(find("", "K"), Ok(None));
    }

    #[test]
    fn what_is_not_there_may_be_optional() {
        let place = |path: &str| ("v".to_owned(), path.to_owned());
        let files = EnvFiles::from([
            (
                place("good"),
                Ok(format!("A='x'\nEMPTY=''\nBIG='{}'\n", "x".repeat(MAX_VALUE + 1))),
            ),
            (place("bad"), Ok("A".to_owned())),
            (place("gone"), Err(Unread::Missing)),
            (place("odd"), Err(Unread::Because("it is a pipe".to_owned()))),
        ]);
        let ask = |path: &str, key: &str, optional| {
            let selector = FileKeySelector {
                key: key.to_owned(),
                optional: Some(optional),
                path: path.to_owned(),
                volume_name: "v".to_owned(),
            };
            value(&selector, &files)
        };
        assert_eq!(ask("good", "A", false), Ok(Some("x".to_owned())));
        let long = "K".repeat(129);
        for (path, key, may_miss, why) in [
            ("good", "B", true, "key \"B\" not found in file \"good\""),
            ("good", "EMPTY", true, "not found"),
            ("gone", "A", true, "there is no file \"gone\" in volume \"v\""),
            ("good", "BIG", false, "32KB"),
            ("good", long.as_str(), false, "128 characters"),
            (
                "bad",
                "A",
                false,
                "file \"bad\" of volume \"v\": invalid environment variable format at line 1: missing '='",
            ),
            ("odd", "A", false, "it is a pipe"),
        ] {
            let found = ask(path, key, false).unwrap_err();
            assert!(found.contains(why), "{found}");
            assert_eq!(
                ask(path, key, true).ok(),
                may_miss.then_some(None),
                "{path} {key}"
            );
        }
    }
}
