//! What layers unpack to.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that can not go on panics"
)]

mod support;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use support::{Header, Tar, TestImage, TestStore, gzip};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let n = lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(n);
    Some(value)
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_char_device() && m.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

/// What `layers` look like when they are stacked, in a mount namespace that goes with the shell.
fn in_overlay(store: &TestStore, layers: Vec<Vec<u8>>, script: &str) -> String {
    let image = store.layers(layers).unwrap();
    let lower = store.store.lower_dirs(&image).unwrap();
    let lower: Vec<&str> = lower.iter().map(|path| path.to_str().unwrap()).collect();
    let scratch = store.directory.path();
    for directory in ["upper", "work", "merged"] {
        fs::create_dir_all(scratch.join(directory)).unwrap();
    }
    // The engine makes the upper directory like the topmost lower one: it is the root that is seen.
    fs::set_permissions(
        scratch.join("upper"),
        fs::metadata(lower[0]).unwrap().permissions(),
    )
    .unwrap();
    let mount = format!(
        "mount -t overlay overlay -o lowerdir={},upperdir={d}/upper,workdir={d}/work {d}/merged && cd {d}/merged && {script}",
        lower.join(":"),
        d = scratch.display()
    );
    let output = std::process::Command::new("unshare")
        .args(["-m", "sh", "-ec", &mount])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn files_keep_all_that_they_are() {
    let store = TestStore::new();
    let long = format!("dir/{}", "n".repeat(200));
    // A capability: cap_net_raw=ep.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let layer = Tar::new()
        .dir("./", 0o711)
        .entry(
            Header {
                mode: 0o1777,
                mtime: 5,
                ..Header::new("dir/", b'5')
            },
            b"",
        )
        .entry(
            Header {
                mode: 0o4755,
                uid: 12,
                gid: 34,
                mtime: 77,
                ..Header::new("dir/setuid", b'0')
            },
            b"#!",
        )
        .entry(
            Header {
                uid: 1,
                gid: 2,
                link: "setuid",
                mtime: 99,
                ..Header::new("dir/link", b'2')
            },
            b"",
        )
        .entry(
            Header {
                link: "./dir/setuid",
                ..Header::new("dir/hard", b'1')
            },
            b"",
        )
        .entry(
            Header {
                mode: 0o620,
                device: (5, 1),
                uid: 3,
                ..Header::new("dev/console", b'3')
            },
            b"",
        )
        .entry(
            Header {
                mode: 0o600,
                device: (259, 70000),
                ..Header::new("dev/block", b'4')
            },
            b"",
        )
        .entry(
            Header {
                mode: 0o666,
                gid: 7,
                ..Header::new("fifo", b'6')
            },
            b"",
        )
        .pax(&[("path", long.as_bytes()), ("uid", b"3000000"), ("mtime", b"1.25")])
        .file("short", "long name")
        .pax(&[
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.note", b"a=\n\0b"),
        ])
        .file("ping", "x")
        .pax(&[("comment", b"x")])
        .symlink("abs", "/etc/passwd")
        .file("empty", "");
    let image = store.layers(vec![layer.bytes()]).unwrap();
    let root = store.store.lower_dirs(&image).unwrap().remove(0);
    let stat = |name: &str| fs::symlink_metadata(root.join(name)).unwrap();
    let mode = |name: &str| stat(name).mode() & 0o7777;
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o711);
    assert_eq!((mode("dir"), stat("dir").mtime()), (0o1777, 5));
    let setuid = stat("dir/setuid");
    assert_eq!(
        (
            mode("dir/setuid"),
            setuid.uid(),
            setuid.gid(),
            setuid.mtime(),
            setuid.nlink()
        ),
        (0o4755, 12, 34, 77, 2)
    );
    assert_eq!(stat("dir/hard").ino(), setuid.ino());
    let link = stat("dir/link");
    assert_eq!((link.uid(), link.gid(), link.mtime()), (1, 2, 99));
    assert_eq!(fs::read_link(root.join("abs")).unwrap(), Path::new("/etc/passwd"));
    let console = stat("dev/console");
    assert!(console.file_type().is_char_device());
    assert_eq!(
        (mode("dev/console"), console.uid(), console.rdev()),
        (0o620, 3, rustix::fs::makedev(5, 1))
    );
    assert!(stat("dev/block").file_type().is_block_device());
    assert_eq!(stat("dev/block").rdev(), rustix::fs::makedev(259, 70000));
    assert!(stat("fifo").file_type().is_fifo());
    assert_eq!((mode("fifo"), stat("fifo").gid()), (0o666, 7));
    let named = stat(&long);
    assert_eq!(
        (named.uid(), named.mtime(), named.mtime_nsec()),
        (3_000_000, 1, 250_000_000)
    );
    assert_eq!(
        xattr(&root.join("ping"), "security.capability").as_deref(),
        Some(&capability[..])
    );
    assert_eq!(
        xattr(&root.join("ping"), "user.note").as_deref(),
        Some(&b"a=\n\0b"[..])
    );
    assert_eq!(stat("empty").len(), 0);
    assert_eq!(fs::read_to_string(root.join("dir/hard")).unwrap(), "#!");
}

#[test]
fn whiteouts_become_overlay_s() {
    let store = TestStore::new();
    let layer = Tar::new()
        .dir("d", 0o755)
        .file("d/.wh.gone", "")
        .dir("opaque", 0o755)
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "")
        // Deleted and made again, in both orders.
        .file(".wh.again", "")
        .file("again/new", "")
        .file("file", "")
        .file(".wh.file", "")
        .file("implicit/.wh.x", "")
        .file(".wh..wh.plnk", "");
    let image = store.layers(vec![layer.bytes()]).unwrap();
    let root = store.store.lower_dirs(&image).unwrap().remove(0);
    assert!(is_whiteout(&root.join("d/gone")) && !root.join("d/.wh.gone").exists());
    assert!(is_opaque(&root.join("opaque")) && root.join("opaque/new").exists());
    assert!(!root.join("opaque/.wh..wh..opq").exists());
    assert!(is_opaque(&root.join("again")) && root.join("again/new").exists());
    assert!(root.join("file").is_file());
    assert!(is_whiteout(&root.join("implicit/x")));
    assert!(!is_opaque(&root.join("d")) && !is_opaque(&root));
}

#[test]
fn stacked_layers_look_as_they_should() {
    let store = TestStore::new();
    let bottom = Tar::new()
        .dir("a", 0o755)
        .file("a/one", "1")
        .file("a/two", "2")
        .dir("b", 0o755)
        .file("b/three", "3");
    let top = Tar::new()
        .dir("a", 0o755)
        .file("a/.wh.one", "")
        .file("a/two", "22")
        .dir("b", 0o755)
        .file("b/.wh..wh..opq", "");
    let seen = in_overlay(
        &store,
        vec![bottom.bytes(), top.bytes()],
        "find . -mindepth 1 | sort && cat a/two",
    );
    assert_eq!(seen, "./a\n./a/two\n./b\n22");
}

#[test]
fn directories_that_a_layer_does_not_describe_are_those_below() {
    let store = TestStore::new();
    let bottom = Tar::new().dir("./", 0o751).dir("secret", 0o700).entry(
        Header {
            mode: 0o2775,
            uid: 5,
            gid: 6,
            ..Header::new("secret/shared", b'5')
        },
        b"",
    );
    let top = Tar::new().file("secret/shared/new", "x");
    let layers = vec![bottom.bytes(), top.clone().bytes()];
    let seen = in_overlay(
        &store,
        layers,
        "stat -c '%a %u %g' . secret secret/shared && cat secret/shared/new",
    );
    assert_eq!(seen, "751 0 0\n700 0 0\n2775 5 6\nx");
    // The same layer over another base: it is not bound to the first.
    let other = TestStore::new();
    let other_base = Tar::new().dir("secret", 0o750).bytes();
    let seen = in_overlay(
        &other,
        vec![other_base, top.bytes()],
        "stat -c %a secret secret/shared",
    );
    assert_eq!(seen, "750\n755\n");
}

#[test]
fn names_through_symbolic_links_of_lower_layers_follow_them() {
    let store = TestStore::new();
    let bottom = Tar::new()
        .dir("usr", 0o755)
        .dir("usr/bin", 0o711)
        .file("usr/bin/old", "")
        .symlink("bin", "usr/bin")
        .symlink("loop", "loop")
        .dir("run", 0o755)
        .dir("var", 0o755)
        .symlink("var/run", "/run");
    let top = Tar::new()
        .file("bin/new", "n")
        .file("bin/sub/deep", "d")
        .file("var/run/pid", "1")
        .file("loop/x", "");
    let script =
        "readlink bin var/run; cat usr/bin/new usr/bin/sub/deep run/pid; stat -c %a usr/bin; ls usr/bin loop";
    let seen = in_overlay(&store, vec![bottom.bytes(), top.bytes()], script);
    assert_eq!(
        seen,
        "usr/bin\n/run\nnd1711\nloop:\nx\n\nusr/bin:\nnew\nold\nsub\n"
    );
}

#[test]
fn hidden_lower_layers_have_no_say() {
    let store = TestStore::new();
    let bottom = Tar::new().dir("a", 0o700).dir("b", 0o700).symlink("c", "a");
    let middle = Tar::new()
        .file(".wh.a", "")
        .dir("b", 0o711)
        .file("b/.wh..wh..opq", "")
        .file(".wh.c", "");
    let top = Tar::new().file("a/x", "").file("b/x", "").file("c/x", "");
    let layers = vec![bottom.bytes(), middle.bytes(), top.bytes()];
    assert_eq!(
        in_overlay(&store, layers, "stat -c '%a %F' a b c"),
        "755 directory\n711 directory\n755 directory\n"
    );
}

#[test]
fn one_layer_twice_is_stacked_once() {
    let store = TestStore::new();
    let a = Tar::new().file("a", "1").bytes();
    let b = Tar::new().file("a", "2").bytes();
    assert_eq!(in_overlay(&store, vec![a.clone(), b, a], "cat a"), "1");
}

#[test]
fn all_compressions_are_one() {
    let tar = Tar::new().file("a", &"contents ".repeat(1000)).bytes();
    let zstd = ruzstd::encoding::compress_to_vec(&tar[..], ruzstd::encoding::CompressionLevel::Fastest);
    let half = tar.len() / 2;
    let members = [gzip(&tar[..half]), gzip(&tar[half..])].concat();
    let frames = [
        &[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..],
        &ruzstd::encoding::compress_to_vec(&tar[..half], ruzstd::encoding::CompressionLevel::Fastest),
        &ruzstd::encoding::compress_to_vec(&tar[half..], ruzstd::encoding::CompressionLevel::Fastest),
        &[0x5f, 0x2a, 0x4d, 0x18, 0, 0, 0, 0],
    ]
    .concat();
    // The last ones lie about it, as some builders do.
    let table = [
        (gzip(&tar), "+gzip"),
        (members, "+gzip"),
        (zstd.clone(), "+zstd"),
        (frames, "+zstd"),
        (tar.clone(), ""),
        (tar.clone(), "+gzip"),
        (zstd, ""),
    ];
    for (packed, kind) in table {
        let store = TestStore::new();
        let image = TestImage::new(&[(tar.clone(), packed, kind)]);
        let image = store.import(image.archive("test.local/x:1")).unwrap().remove(0);
        let root = store.store.lower_dirs(&image).unwrap().remove(0);
        assert_eq!(fs::read_to_string(root.join("a")).unwrap().len(), 9000, "{kind}");
    }
}

#[test]
fn the_test_machine_can_hold_attributes() {
    // Without trusted attributes nothing here says anything.
    let file = tempfile::NamedTempFile::new().unwrap();
    let set = lsetxattr(file.path(), "trusted.test", b"x", XattrFlags::empty());
    assert!(set.is_ok(), "{}", io::Error::from(set.unwrap_err()));
}
