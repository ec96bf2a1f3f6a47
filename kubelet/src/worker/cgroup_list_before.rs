//! The list of groups as berth kept it before there was a journal: one JSON file, written as a whole. After an update without a
//! restart of the machine, what it says is taken over, once.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::cgroup_list::{Change, Locked};

const NAME: &str = "cgroups.json";

#[derive(Default, Deserialize)]
struct Listed {
    #[serde(default)]
    ours: BTreeSet<PathBuf>,
    #[serde(default)]
    requests: BTreeMap<PathBuf, i64>,
}

/// Takes over what is said there of groups that `exist`: it may be of an earlier start of the machine. One that can't be
/// understood says nothing.
pub(super) fn take_over(
    directory: &Path,
    list: &mut Locked<'_>,
    exist: impl Fn(&Path) -> bool,
) -> io::Result<()> {
    let path = directory.join(NAME);
    let bytes = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        bytes => bytes?,
    };
    let Listed { ours, requests } = serde_json::from_slice(&bytes).unwrap_or_default();
    let ours = ours.into_iter().map(Change::Ours);
    let requests = requests
        .into_iter()
        .map(|(pod, milli_cpu)| Change::Requests(pod, milli_cpu));
    let there = ours.chain(requests).filter(|change| match change {
        Change::Ours(group) | Change::Requests(group, _) => exist(group),
        _ => false,
    });
    list.note(there.collect())?;
    // Last: who is killed before it does all of that again.
    std::fs::remove_file(&path)
}

#[cfg(test)]
mod tests {
    use super::super::cgroup_list::List;
    use super::*;

    #[test]
    fn what_was_listed_before_is_taken_over_once() {
        let directory = tempfile::tempdir().unwrap();
        let old = directory.path().join(NAME);
        let list = List::new(directory.path());
        let take = |locked: &mut Locked<'_>| {
            take_over(directory.path(), locked, |group| !group.ends_with("gone")).unwrap();
        };
        let mut locked = list.lock().unwrap();
        take(&mut locked);
        let text = r#"{"ours":["kubepods","kubepods/besteffort","kubepods/gone"],
            "requests":{"kubepods/pod1":100,"kubepods/pod2":200,"kubepods/gone":400}}"#;
        std::fs::write(&old, text).unwrap();
        take(&mut locked);
        assert!(!old.exists());
        let kubepods = Path::new("kubepods");
        assert!(locked.is_ours(kubepods) && locked.is_ours(Path::new("kubepods/besteffort")));
        assert!(!locked.is_ours(Path::new("kubepods/gone")));
        assert_eq!(locked.requested_in(kubepods), 300);
        drop(locked);
        // For good.
        let again = List::new(directory.path());
        assert_eq!(again.lock().unwrap().requested_in(kubepods), 300);
        for damaged in ["", "{", "[1]"] {
            std::fs::write(&old, damaged).unwrap();
            take(&mut again.lock().unwrap());
            assert!(!old.exists());
        }
        assert_eq!(again.lock().unwrap().requested_in(kubepods), 300);
    }
}
