//! What the documents show is what the program understands: commands, manifests, configurations and messages.

use std::path::{Path, PathBuf};

use berth_kubelet::manifest::{self, Options, Source};
use clap::Parser;
use clap::error::ErrorKind;

use crate::Cli;

/// What comes later, and is named where people look for it.
const PROMISED: &str = "berth up";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files with this ending in these directories, and below them if `deep`.
fn files(directories: &[&str], ending: &str, deep: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = directories.iter().map(|name| repository().join(name)).collect();
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if deep && path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{directories:?} have no .{ending}");
    found
}

/// The documents for people, by name.
fn documents() -> Vec<(String, String)> {
    let named = |path: PathBuf| {
        (
            path.file_name().unwrap().to_string_lossy().into_owned(),
            read(&path),
        )
    };
    files(&["", "docs"], "md", false).into_iter().map(named).collect()
}

/// The blocks of a language in all documents, each with where it is.
pub(crate) fn blocks(language: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in documents() {
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(own) = line.trim_start().strip_prefix("```") else {
                continue;
            };
            let inner: Vec<&str> = lines
                .by_ref()
                .map(|(_, line)| line)
                .take_while(|line| !line.trim_start().starts_with("```"))
                .collect();
            if own == language {
                found.push((format!("{name}:{}", number + 1), inner.join("\n")));
            }
        }
    }
    found
}

/// What is between backquotes, outside of blocks.
fn quoted(text: &str) -> Vec<String> {
    let mut outside = String::new();
    let mut inside = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            outside.push_str(line);
            outside.push(' ');
        }
    }
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// A line of a block or of an example as a command of berth: what is before `#`, a pipe, a redirection or the next command.
fn command(line: &str) -> Option<Vec<String>> {
    let line = line
        .trim_start()
        .trim_start_matches("$ ")
        .trim_start_matches("sudo ");
    if !line.starts_with("berth ") {
        return None;
    }
    let ends = |word: &&str| !["#", "|", ">", "&", "&&"].contains(word) && !word.starts_with('#');
    let words = line.split_whitespace().take_while(ends);
    // Quotes are the shell's.
    Some(
        words
            .map(|word| word.trim_matches(['"', '\'', ';']).to_owned())
            .collect(),
    )
}

fn try_command(words: &[String]) -> Result<(), clap::Error> {
    Cli::try_parse_from(words).map(drop)
}

/// Somebody who types what a block shows is understood.
#[test]
fn commands_of_blocks_and_examples_are_understood() {
    let mut wrong = Vec::new();
    let mut count = 0;
    let comments = files(&["examples"], "yaml", false).into_iter().map(|path| {
        let lines = read(&path);
        let lines: Vec<&str> = lines
            .lines()
            .filter_map(|line| line.strip_prefix("#   "))
            .collect();
        (path.display().to_string(), lines.join("\n"))
    });
    let services = files(&["hack"], "service", false).into_iter().map(|path| {
        let text = read(&path).replace("ExecStart=/usr/local/bin/", "");
        (path.display().to_string(), text)
    });
    for (place, text) in blocks("")
        .into_iter()
        .chain(blocks("console"))
        .chain(comments)
        .chain(services)
    {
        for line in text.lines() {
            let Some(words) = command(line) else { continue };
            count += 1;
            match try_command(&words) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::DisplayHelp => {}
                Err(error) => wrong.push(format!("{place}: {line}\n{error}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 30, "only {count} commands were found");
}

/// Commands that are named in passing, in documents and in messages: what is missing may be missing, what is there is right.
#[test]
fn commands_that_are_named_are_there() {
    let sources = files(
        &["src", "kubelet/src", "cri/src", "images/src", "cni/src"],
        "rs",
        true,
    );
    let sources = sources
        .into_iter()
        .map(|path| (path.display().to_string(), read(&path)));
    let mut wrong = Vec::new();
    let mut count = 0;
    for (place, text) in documents().into_iter().chain(sources) {
        let text = text.replace("///", "").replace("//!", "").replace("\\\n", "");
        for name in quoted(&text) {
            let known = name.trim_start_matches("sudo ");
            // What a message fills in, an ellipsis or a name in capitals stands for something.
            let stands_for = |word: &str| word.contains(['{', '…', '|', '[']) || word == "COMMAND";
            let Some(words) = command(known) else { continue };
            if known.starts_with(PROMISED) || words.iter().any(|word| stands_for(word)) {
                continue;
            }
            count += 1;
            let unfinished = |error: &clap::Error| {
                matches!(
                    error.kind(),
                    ErrorKind::MissingRequiredArgument
                        | ErrorKind::MissingSubcommand
                        | ErrorKind::DisplayHelp
                        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
                ) || words.last().is_some_and(|word| word.starts_with("--"))
                    && error.kind() == ErrorKind::InvalidValue
            };
            if let Err(error) = try_command(&words)
                && !unfinished(&error)
            {
                wrong.push(format!("{place}: `{name}`\n{error}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 50, "only {count} commands were found");
}

fn options() -> Options<'static> {
    Options {
        node: "/",
        ..Options::default()
    }
}

#[test]
fn manifests_are_accepted() {
    let examples = files(&["examples"], "yaml", false).into_iter();
    let examples = examples.map(|path| (path.display().to_string(), read(&path)));
    for (name, text) in examples.chain(blocks("yaml")).chain(blocks("json")) {
        // Documents show other programs' objects, too.
        if text.contains("kind: Pod\n") {
            let (name, text) = (name.as_str(), text.as_str());
            let loaded = manifest::load(&[Source { name, text }], options());
            loaded.unwrap_or_else(|errors| panic!("{errors}"));
        }
    }
}

/// docs/manifests.md shows what is said of mistakes, to the letter.
#[test]
fn mistakes_are_named_as_the_manual_shows_it() {
    let text = "\
apiVersion: v1
kind: Pod
metadata: { name: web }
spec:
  resourceClaims: [{ name: gpu }]
  containers:
    - name: main
      imagee: nginx
      env: [{ name: DEBUG, value: on }]
";
    let errors = manifest::load(
        &[Source {
            name: "pod.yaml",
            text,
        }],
        options(),
    )
    .unwrap_err();
    let shown = blocks("")
        .into_iter()
        .find(|(_, text)| text.starts_with("pod.yaml:5:"));
    assert_eq!(shown.unwrap().1, errors.to_string());
}
