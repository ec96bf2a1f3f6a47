//! Layers of entries drawn at random from names and links that are good at escaping: whatever they do, they do it in their
//! directory, and a refused one leaves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;
use support::{Header, Tar, TestStore};

/// Few, so that entries meet.
const NAMES: [&str; 12] = [
    "a",
    "b",
    "a/b",
    "b/a",
    "a/victim",
    "b/victim",
    "a/new",
    "b/new",
    "./",
    ".wh.a",
    "a/.wh.victim",
    "b/.wh..wh..opq",
];
const LINKS: [&str; 8] = [
    "a",
    "b",
    "..",
    "OUTSIDE",
    "OUTSIDE",
    "OUTSIDE/victim",
    "a/victim",
    "b/victim",
];
/// Refused at once; drawn seldom, or nothing else would happen.
const BAD_NAMES: [&str; 10] = [
    "..",
    "../a",
    "a/../b",
    "/a",
    "OUTSIDE",
    ".wh.",
    ".wh...",
    "",
    "a//b/./c",
    ".wh..wh.plnk",
];
const BAD_LINKS: [&str; 5] = ["/", "/proc/self/cwd", "../../..", ".", ""];
const FLAGS: &[u8] = b"0001122222234555xLK";

#[derive(Clone, Debug)]
struct Drawn {
    name: &'static str,
    link: &'static str,
    flag: u8,
    mode: u32,
}

fn entries() -> impl Strategy<Value = Vec<Drawn>> {
    let name = prop_oneof![20 => select(&NAMES[..]), 1 => select(&BAD_NAMES[..])];
    let link = prop_oneof![20 => select(&LINKS[..]), 1 => select(&BAD_LINKS[..])];
    let entry = (name, link, select(FLAGS), select(vec![0o644, 0o4755, 0o1777, 0])).prop_map(
        |(name, link, flag, mode)| Drawn {
            name,
            link,
            flag,
            mode,
        },
    );
    prop::collection::vec(entry, 1..7)
}

fn archive(entries: &[Drawn], outside: &str) -> Vec<u8> {
    let mut tar = Tar::new();
    for entry in entries {
        let link = entry.link.replace("OUTSIDE", outside);
        let header = Header {
            link: &link,
            mode: entry.mode,
            mtime: 7,
            ..Header::new(entry.name, entry.flag)
        };
        tar = match entry.flag {
            b'x' => tar.pax(&[("linkpath", link.as_bytes()), ("mtime", b"9")]),
            b'L' | b'K' => tar.entry(Header { link: "", ..header }, link.as_bytes()),
            b'0' => tar.entry(header, b"written"),
            _ => tar.entry(header, b""),
        };
    }
    tar.bytes()
}

/// All that a layer could change of a file.
fn state(path: &Path) -> (u32, u32, i64, i64, u64, u64) {
    let m = fs::symlink_metadata(path).unwrap();
    (m.mode(), m.uid(), m.mtime(), m.ctime_nsec(), m.nlink(), m.size())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_outside_is_touched(bottom in entries(), top in entries()) {
        let outside = tempfile::tempdir().unwrap();
        let victim = outside.path().join("victim");
        fs::write(&victim, "untouched").unwrap();
        let before = (state(outside.path()), state(&victim));
        let store = TestStore::new();
        let shown = outside.path().to_str().unwrap();
        let beside = state(store.directory.path());
        let outcome = store.layers(vec![archive(&bottom, shown), archive(&top, shown)]);
        prop_assert_eq!((state(outside.path()), state(&victim)), before);
        prop_assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
        prop_assert_eq!(state(store.directory.path()), beside);
        match outcome {
            Ok(image) => prop_assert!(store.store.lower_dirs(&image).is_ok()),
            Err(_) => {
                store.store.sweep().unwrap();
                prop_assert!(store.leftovers().is_empty());
            }
        }
    }
}

/// What comes through a link of the layer below is not put where a link of its own layer leads.
#[test]
fn a_link_to_a_directory_that_becomes_a_link_leads_nowhere() {
    let entry = |name, link, flag| Drawn {
        name,
        link,
        flag,
        mode: 0o644,
    };
    let (through, out) = (entry("a/new", "a", b'2'), entry("b/victim", "OUTSIDE", b'2'));
    for top in [[through.clone(), out.clone()], [out, through]] {
        let outside = tempfile::tempdir().unwrap();
        let before = state(outside.path());
        let store = TestStore::new();
        let shown = outside.path().to_str().unwrap();
        let bottom = [entry("b/victim", "", b'5'), entry("a", "b/victim", b'2')];
        let image = store.layers(vec![archive(&bottom, shown), archive(&top, shown)]);
        assert!(image.is_ok(), "{image:?}");
        assert_eq!(state(outside.path()), before);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
    }
}
