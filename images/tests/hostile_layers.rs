//! Layers that try to leave their directory, or to fill the disk. Each is refused by name and leaves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use berth_images::{ImageError, Limits, StoreOptions};
use support::{Header, Tar, TestImage, TestStore, digest, gzip};

/// The layer is refused, with a message that has all of `words`, and nothing is left of it.
fn refused(layer: Tar, words: &[&str]) {
    let store = TestStore::new();
    let error = store.layers(vec![layer.bytes()]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ImageError::Refused(_)), "{error:?}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(text.contains("layer sha256:"), "{text}");
    assert_eq!(store.leftovers(), Vec::<std::path::PathBuf>::new());
    assert!(store.store.list().unwrap().is_empty());
}

#[test]
fn names_that_leave_the_root() {
    refused(Tar::new().file("../evil", "x"), &["../evil", "`..`"]);
    refused(Tar::new().file("a/../../evil", "x"), &["`..`"]);
    refused(Tar::new().dir("a/..", 0o755), &["`..`"]);
    refused(Tar::new().file("/etc/evil", "x"), &["/etc/evil", "absolute"]);
    refused(
        Tar::new().pax(&[("path", b"../long")]).file("short", "x"),
        &["../long"],
    );
    refused(
        Tar::new().pax(&[("path", b"/long")]).file("short", "x"),
        &["absolute"],
    );
    refused(
        Tar::new()
            .entry(Header::new("name", b'L'), b"../gnu\0")
            .file("short", "x"),
        &["../gnu"],
    );
    refused(
        Tar::new().pax(&[("path", b"a\0b")]).file("short", "x"),
        &["zero byte"],
    );
}

#[test]
fn names_through_symbolic_links_out_of_the_root() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    refused(
        Tar::new().symlink("a", path).file("a/evil", "x"),
        &["a/evil", "symbolic link out of the layer"],
    );
    refused(
        Tar::new()
            .symlink("a", "../../../../../../tmp")
            .file("a/evil", "x"),
        &["symbolic link out"],
    );
    refused(
        Tar::new()
            .symlink("a", "b")
            .symlink("b", "..")
            .file("a/evil", "x"),
        &["symbolic link out"],
    );
    refused(
        Tar::new().symlink("a", path).dir("a/sub", 0o777),
        &["symbolic link out"],
    );
    refused(
        Tar::new().symlink("a", path).symlink("a/sub", "x"),
        &["symbolic link out"],
    );
    refused(
        Tar::new().symlink("a", path).file("a/.wh.evil", ""),
        &["symbolic link out"],
    );
    refused(
        Tar::new().symlink("a", path).file("a/.wh..wh..opq", ""),
        &["symbolic link out"],
    );
    refused(Tar::new().symlink("a", "a").file("a/evil", "x"), &["loop"]);
    refused(
        Tar::new().symlink("a", "nowhere").file("a/evil", "x"),
        &["a is a symbolic link to nothing"],
    );
    refused(
        Tar::new().symlink("a", "/proc/self/fd/0").file("a/evil", "x"),
        &["symbolic link"],
    );
    assert_eq!(fs::read_dir(path).unwrap().count(), 0);
}

#[test]
fn a_link_that_changes_its_target_after_its_directory_was_described() {
    let outside = tempfile::tempdir().unwrap();
    let path = outside.path().to_str().unwrap();
    let before = fs::metadata(path).unwrap();
    fs::create_dir(outside.path().join("sub")).unwrap();
    let sub_before = fs::metadata(outside.path().join("sub")).unwrap();
    refused(
        Tar::new()
            .dir("real", 0o755)
            .symlink("l", "real")
            .dir("l/sub", 0o700)
            .symlink("l", path),
        &["l/sub"],
    );
    let sub_after = fs::metadata(outside.path().join("sub")).unwrap();
    assert_eq!(
        (sub_after.mode(), sub_after.mtime()),
        (sub_before.mode(), sub_before.mtime())
    );
    assert_eq!(fs::metadata(path).unwrap().mode(), before.mode());
}

#[test]
fn hard_links_to_outside() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "x").unwrap();
    let path = outside.path().to_str().unwrap();
    let secret = format!("{path}/secret");
    refused(Tar::new().hard_link("a", &secret), &["entry \"a\"", "absolute"]);
    refused(Tar::new().hard_link("a", "../../../../etc/passwd"), &["`..`"]);
    refused(
        Tar::new().symlink("l", path).hard_link("a", "l/secret"),
        &["through a symbolic link"],
    );
    refused(
        Tar::new()
            .dir("d", 0o755)
            .file("d/f", "")
            .symlink("l", "d")
            .hard_link("a", "l/f"),
        &["through a symbolic link"],
    );
    refused(Tar::new().hard_link("a", "missing"), &["not in the layer"]);
    refused(Tar::new().hard_link("a", "missing/deep"), &["not in the layer"]);
    refused(Tar::new().dir("d", 0o755).hard_link("a", "d"), &["directory"]);
    refused(Tar::new().hard_link("a", "./"), &["the root"]);
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
}

#[test]
fn files_are_not_written_through_links_of_the_same_name() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let store = TestStore::new();
    let layer = Tar::new()
        .symlink("a", victim.to_str().unwrap())
        .file("a", "new")
        .file("one", "first")
        .hard_link("two", "one")
        .file("one", "second");
    let image = store.layers(vec![layer.bytes()]).unwrap();
    let root = store.store.lower_dirs(&image).unwrap().remove(0);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::read_to_string(root.join("a")).unwrap(), "new");
    assert_eq!(fs::read_to_string(root.join("one")).unwrap(), "second");
    assert_eq!(
        fs::read_to_string(root.join("two")).unwrap(),
        "first",
        "written through a hard link"
    );
}

#[test]
fn entries_that_contradict_each_other() {
    refused(
        Tar::new().dir("a", 0o755).file("a/b", "").file("a", "x"),
        &["directory of that name"],
    );
    refused(
        Tar::new().dir("a", 0o755).symlink("a", "/etc"),
        &["directory of that name"],
    );
    refused(Tar::new().file("a", "x").file("a/b", "y"), &["no directory"]);
    refused(Tar::new().file(".", "x"), &["root of a layer is a directory"]);
    refused(Tar::new().symlink("a", ""), &["nowhere"]);
    refused(
        Tar::new()
            .file(&"n".repeat(99), "")
            .pax(&[("path", &[b'n'; 300])])
            .file("x", ""),
        &["255"],
    );
}

#[test]
fn whiteouts_of_no_file() {
    for name in [".wh...", ".wh..", ".wh.", "d/.wh..."] {
        refused(
            Tar::new().dir("d", 0o755).file(name, ""),
            &["whiteout of no file"],
        );
    }
    refused(Tar::new().file(".wh.d/x", ""), &["through a whiteout"]);
}

#[test]
fn attributes_of_overlayfs_itself() {
    for name in [
        "trusted.overlay.redirect",
        "trusted.overlay.metacopy",
        "trusted.overlay.opaque",
        "user.overlay.redirect",
    ] {
        let key = format!("SCHILY.xattr.{name}");
        refused(
            Tar::new().pax(&[(&key, b"/etc")]).dir("d", 0o755),
            &[name, "led astray"],
        );
    }
}

#[test]
fn bombs() {
    let options = StoreOptions {
        limits: Limits {
            max_bytes: 10 << 20,
            max_entries: 1000,
        },
        ..StoreOptions::default()
    };
    let zeros = vec![0; 11 << 20];
    let files = (0..1001).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), ""));
    let table = [
        (
            Tar::new().entry(Header::new("zeros", b'0'), &zeros).bytes(),
            "more than the allowed 10485760 bytes",
        ),
        // Also when it is no file at all, but padding after the archive.
        (
            [Tar::new().file("a", "").bytes(), zeros].concat(),
            "more than the allowed 10485760 bytes",
        ),
        (files.bytes(), "more than the allowed 1000 files"),
    ];
    for (layer, why) in table {
        let store = TestStore::with(options.clone());
        let error = store.layers(vec![layer]).unwrap_err();
        assert!(
            matches!(error, ImageError::Refused(_)) && error.to_string().contains(why),
            "{error}"
        );
        assert!(store.leftovers().is_empty());
    }
    // The limit is the image's, not a layer's.
    let store = TestStore::with(options);
    let part = |name: &str| {
        Tar::new()
            .entry(Header::new(name, b'0'), &vec![0; 4 << 20])
            .bytes()
    };
    assert!(store.layers(vec![part("a"), part("b")]).is_ok());
    let error = store.layers(vec![part("c"), part("d"), part("e")]).unwrap_err();
    assert!(matches!(error, ImageError::Refused(_)), "{error}");
}

#[test]
fn headers_that_want_memory() {
    let store = TestStore::new();
    for flag in [b'L', b'K', b'x'] {
        // The header claims 8 GiB; the archive ends there.
        let mut bytes = Tar::new().entry(Header::new("x", flag), b"").bytes();
        bytes[124..136].copy_from_slice(b"77777777777\0");
        bytes[148..156].copy_from_slice(b"        ");
        let sum: u32 = bytes[..512].iter().map(|&b| u32::from(b)).sum();
        bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let error = store.layers(vec![bytes]).unwrap_err();
        assert!(matches!(error, ImageError::Refused(_)), "{error}");
    }
    assert!(store.leftovers().is_empty());
}

/// What comes is not what was announced: `Corrupt`, and nothing is left.
#[test]
fn wrong_digests_and_sizes() {
    let tar = Tar::new().file("a", "contents").bytes();
    let good = gzip(&tar);
    let corrupt = |image: TestImage, words: &[&str]| {
        let store = TestStore::new();
        let error = store.import(image.archive("test.local/x:1")).unwrap_err();
        assert!(matches!(error, ImageError::Corrupt(_)), "{error:?}");
        for word in words {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        store.store.sweep().unwrap();
        assert!(store.leftovers().is_empty(), "{:?}", store.leftovers());
    };
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut image = TestImage::gzipped(vec![tar.clone()]);
        let at = image.layers[0].clone();
        let blob = image.blobs.iter_mut().find(|(digest, _)| *digest == at).unwrap();
        change(&mut blob.1);
        image
    };
    let middle = good.len() / 2;
    corrupt(changed(&|blob| blob[middle] ^= 1), &["digest"]);
    corrupt(
        changed(&|blob| blob.truncate(blob.len() - 9)),
        &["bytes, and the manifest says"],
    );
    corrupt(changed(&|blob| blob.push(0)), &["more bytes"]);
    corrupt(changed(&|blob| blob.clear()), &["0 bytes"]);
    let other = digest(b"something else");
    corrupt(
        TestImage::with_diff_ids(&[(tar.clone(), good, "+gzip")], &[other]),
        &["uncompressed it is"],
    );
    // Cut short, but with the digests of what is there.
    let cut = gzip(&tar)[..20].to_vec();
    corrupt(
        TestImage::with_diff_ids(&[(tar.clone(), cut, "+gzip")], &[digest(&tar)]),
        &["damaged"],
    );
    corrupt(
        TestImage::new(&[(tar[..700].to_vec(), gzip(&tar[..700]), "+gzip")]),
        &["cut short"],
    );
    corrupt(
        TestImage::new(&[(b"no tar".repeat(200), b"no tar".repeat(200), "")]),
        &["not a tar archive"],
    );
    let mut image = TestImage::gzipped(vec![tar.clone()]);
    let config = image.config.clone();
    image
        .blobs
        .iter_mut()
        .find(|(digest, _)| *digest == config)
        .unwrap()
        .1
        .push(b' ');
    corrupt(image, &["digest"]);
}

#[test]
fn formats_that_we_do_not_take_are_named() {
    let tar = Tar::new().file("a", "").bytes();
    let table = [
        (Tar::new().entry(Header::new("s", b'S'), b"").bytes(), "sparse"),
        (
            Tar::new()
                .pax(&[("GNU.sparse.major", b"1")])
                .file("s", "")
                .bytes(),
            "sparse",
        ),
        (
            Tar::new().entry(Header::new("v", b'V'), b"").bytes(),
            "unknown type 'V'",
        ),
        ([b"BZh9".to_vec(), tar.clone()].concat(), "bzip2"),
    ];
    let store = TestStore::new();
    for (layer, word) in table {
        let image = TestImage::new(&[(layer.clone(), layer, "")]);
        let error = store.import(image.archive("test.local/x:1")).unwrap_err();
        assert!(
            matches!(error, ImageError::Unsupported(_)) && error.to_string().contains(word),
            "{error}"
        );
    }
    store.store.sweep().unwrap();
    assert!(store.leftovers().is_empty());
}

#[test]
fn a_failed_image_keeps_its_good_layers_for_a_while_only() {
    let good = Tar::new().file("good", "").bytes();
    let bad = Tar::new().file("../bad", "").bytes();
    let keep = TestStore::with(StoreOptions {
        grace: Duration::from_secs(60),
        parallel_layers: 1,
        ..StoreOptions::default()
    });
    keep.layers(vec![good.clone(), bad.clone()]).unwrap_err();
    drop(berth_images::Store::open_with(&keep.root(), StoreOptions::default()).unwrap());
    assert_eq!(keep.leftovers().len(), 1, "the good layer should still be there");
    let none = StoreOptions {
        grace: Duration::ZERO,
        ..StoreOptions::default()
    };
    drop(berth_images::Store::open_with(&keep.root(), none).unwrap());
    assert!(keep.leftovers().is_empty());
}
