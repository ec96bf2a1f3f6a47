//! What this process has added to tables, by whose it is: so that an attachment goes without the whole table being listed,
//! which takes the longer the more pods there are.
//!
//! It is no more than a hint: whatever is unknown here, or is not there any more, is looked up.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::Element;

/// A table, by the file of its scripts and its name, and the elements of each tag in it.
type Tables = HashMap<(PathBuf, String), HashMap<String, Vec<Element>>>;

fn tables() -> MutexGuard<'static, Tables> {
    static TABLES: OnceLock<Mutex<Tables>> = OnceLock::new();
    let tables = TABLES.get_or_init(Mutex::default);
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// These are in the table now.
pub(super) fn remember(script: &Path, table: &str, elements: &[Element]) {
    let mut tables = tables();
    let tags = tables.entry((script.to_owned(), table.to_owned())).or_default();
    for element in elements {
        let known = tags.entry(element.tag.clone()).or_default();
        if !known.iter().any(|e| e.set == element.set && e.key == element.key) {
            known.push(element.clone());
        }
    }
}

/// These are gone.
pub(super) fn forget(script: &Path, table: &str, elements: &[Element]) {
    let mut tables = tables();
    let Some(tags) = tables.get_mut(&(script.to_owned(), table.to_owned())) else {
        return;
    };
    for element in elements {
        if let Some(known) = tags.get_mut(&element.tag) {
            known.retain(|e| e.set != element.set || e.key != element.key);
            if known.is_empty() {
                tags.remove(&element.tag);
            }
        }
    }
}

/// What is known to be in these sets under the tag; nothing if that may be the last of the table, which goes with it.
pub(super) fn of(script: &Path, table: &str, sets: &[&str], tag: &str) -> Vec<Element> {
    let tables = tables();
    let Some(tags) = tables.get(&(script.to_owned(), table.to_owned())) else {
        return Vec::new();
    };
    let known = tags.get(tag).into_iter().flatten();
    let known: Vec<Element> = known
        .filter(|e| sets.contains(&e.set.as_str()))
        .cloned()
        .collect();
    match tags.len() {
        0 | 1 => Vec::new(),
        _ => known,
    }
}

/// The same, no longer known from now on; `None` if nothing is, or that may be the last of the table.
pub(super) fn take_beside_others(
    script: &Path,
    table: &str,
    sets: &[&str],
    tag: &str,
) -> Option<Vec<Element>> {
    let mut tables = tables();
    let tags = tables.get_mut(&(script.to_owned(), table.to_owned()))?;
    if tags.len() < 2 {
        return None;
    }
    let known = tags.remove(tag)?;
    let (taken, rest): (Vec<_>, Vec<_>) = known.into_iter().partition(|e| sets.contains(&e.set.as_str()));
    if !rest.is_empty() {
        tags.insert(tag.to_owned(), rest);
    }
    (!taken.is_empty()).then_some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attachment_is_known_until_it_may_be_the_last() {
        let script = Path::new("/a-script-of-this-test");
        let element = |set: &str, key: &str, tag: &str| Element::new(set, key.to_owned(), tag);
        let first = [element("masq4", "1", "a"), element("port4", "2", "a")];
        let second = [element("masq4", "3", "b")];
        remember(script, "t", &first);
        remember(script, "t", &first);
        assert_eq!(of(script, "t", &["masq4"], "a"), [], "there is no other");
        remember(script, "t", &second);
        assert_eq!(of(script, "t", &["masq4"], "a"), first[..1]);
        assert_eq!(of(script, "t", &["masq4", "port4"], "a"), first);
        assert_eq!(of(script, "other", &["masq4"], "a"), []);
        assert_eq!(of(script, "t", &["masq4"], "c"), []);
        forget(script, "t", &first[..1]);
        assert_eq!(of(script, "t", &["masq4", "port4"], "a"), first[1..]);
        forget(script, "t", &first);
        assert_eq!(of(script, "t", &["masq4"], "b"), []);
    }

    #[test]
    fn of_those_who_go_at_once_one_is_the_last() {
        let script = Path::new("/another-script-of-this-test");
        let element = |set: &str, tag: &str| Element::new(set, "1".to_owned(), tag);
        let all = [
            element("masq4", "a"),
            element("port4", "a"),
            element("masq4", "b"),
        ];
        remember(script, "t", &all);
        let take = |sets: &[&str], tag| take_beside_others(script, "t", sets, tag);
        assert_eq!(take(&["masq4"], "c"), None);
        assert_eq!(take(&["masq4"], "a"), Some(all[..1].to_vec()));
        assert_eq!(take(&["masq4"], "a"), None, "it was taken");
        assert_eq!(take(&["masq4", "port4"], "a"), Some(all[1..2].to_vec()));
        assert_eq!(take(&["masq4"], "b"), None, "it is the last");
    }
}
