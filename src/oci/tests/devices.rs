//! Device nodes: every kind, their modes and owners, what is there already, and user namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::{Bundle, failed};

fn device(path: &str, kind: &str, major: u32, minor: u32) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor })
}

/// A container whose `/dev` is the image's own directory.
fn with_image_dev(name: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::script(name, script);
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.config["linux"]["maskedPaths"] = json!([]);
    bundle.config["root"]["readonly"] = json!(false);
    fs::create_dir(bundle.root().join("dev")).unwrap();
    bundle
}

fn make_node(path: &Path, major: u32, minor: u32, mode: &str) {
    let numbers = [major.to_string(), minor.to_string()];
    let made = Command::new("mknod")
        .args(["-m", mode])
        .arg(path)
        .arg("c")
        .args(numbers)
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn every_kind_of_device_is_made() {
    let script =
        "stat -c %n:%F:%t:%T:%a:%u:%g /dev/c /dev/u /dev/b /dev/p /dev/fifo /opt/deep/c; readlink /dev/ptmx";
    let mut bundle = Bundle::script("kinds", script);
    bundle.config["root"]["readonly"] = json!(false);
    let mut whole_mode = device("/dev/c", "c", 1, 3);
    // Some callers give the file type along with the mode.
    whole_mode["fileMode"] = json!(0o020_640);
    let mut fifo = json!({ "path": "/dev/fifo", "type": "p" });
    fifo["fileMode"] = json!(0o600);
    fifo["uid"] = json!(5);
    let mut deep = device("/opt/deep/c", "c", 1, 5);
    deep["gid"] = json!(6);
    bundle.config["linux"]["devices"] = json!([
        whole_mode,
        device("/dev/u", "u", 1, 9),
        device("/dev/b", "b", 7, 200),
        device("/dev/p", "p", 0, 0),
        fifo,
        deep,
        // The container's own devpts has that one.
        device("/dev/ptmx", "c", 5, 2),
    ]);
    let expected = "/dev/c:character special file:1:3:640:0:0\n/dev/u:character special file:1:9:666:0:0\n\
                    /dev/b:block special file:7:c8:666:0:0\n/dev/p:fifo:0:0:666:0:0\n/dev/fifo:fifo:0:0:600:5:0\n\
                    /opt/deep/c:character special file:1:5:666:0:6\npts/ptmx";
    assert_eq!(bundle.output(), expected);
    for (device, said) in [
        (device("/dev/a", "a", 1, 3), "\"a\""),
        (device("/dev/x", "x", 1, 3), "x"),
        (device("/", "c", 1, 3), "not that of a device"),
        (
            json!({ "path": "/dev/n", "type": "c", "major": -1, "minor": 3 }),
            "-1 is no device number",
        ),
    ] {
        bundle.config["linux"]["devices"] = json!([device]);
        let message = failed(&bundle.run());
        assert!(message.contains(said), "{device}: {message}");
    }
}

#[test]
fn what_the_image_has_in_a_devices_place_is_not_taken_for_it() {
    let secret = |bundle: &Bundle| fs::write(bundle.root().join("secret"), "secret").unwrap();
    for kind in ["file", "directory", "link", "other device", "link to the device"] {
        let mut bundle = with_image_dev("replaced", "true");
        secret(&bundle);
        let place = bundle.root().join("dev/mine");
        match kind {
            "file" => fs::write(&place, "").unwrap(),
            "directory" => fs::create_dir(&place).unwrap(),
            "link" => symlink("/secret", &place).unwrap(),
            "other device" => make_node(&place, 1, 7, "666"),
            _ => symlink("zero", &place).unwrap(),
        }
        bundle.config["linux"]["devices"] = json!([device("/dev/mine", "c", 1, 5)]);
        let said = failed(&bundle.run());
        assert!(
            said.contains("/dev/mine") && said.contains("something else in its place"),
            "{kind}: {said}"
        );
        assert_eq!(
            fs::read_to_string(bundle.root().join("secret")).unwrap(),
            "secret"
        );
    }
    // A default device, and one that a mount has replaced.
    let bundle = with_image_dev("replaced-zero", "true");
    fs::write(bundle.root().join("dev/zero"), "").unwrap();
    assert!(failed(&bundle.run()).contains("/dev/zero"));
    let mut bundle = Bundle::script("replaced-null", "true");
    fs::write(bundle.path().join("data"), "").unwrap();
    bundle.mount("/dev/null", "bind", "data", &["bind"]);
    assert!(failed(&bundle.run()).contains("/dev/null"));
}

/// Runtimes have been seen to change the mode and the owner of the host's `/dev/null`.
#[test]
fn a_device_that_is_there_already_is_never_changed() {
    let mut bundle = Bundle::script("host-node", "stat -c %a:%u:%g /host/node");
    bundle.config["root"]["readonly"] = json!(false);
    let host = bundle.path().join("host");
    fs::create_dir(&host).unwrap();
    make_node(&host.join("node"), 1, 3, "640");
    std::os::unix::fs::chown(host.join("node"), Some(3), Some(4)).unwrap();
    bundle.mount("/host", "bind", "host", &["bind"]);
    // As it is, or with the mode and owner that it has, it can be used.
    let mut same = device("/host/node", "c", 1, 3);
    for fields in [json!({}), json!({ "fileMode": 0o640, "uid": 3, "gid": 4 })] {
        same.as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        bundle.config["linux"]["devices"] = json!([same]);
        assert_eq!(bundle.output(), "640:3:4");
    }
    for (field, value) in [("fileMode", 0o666), ("uid", 0), ("gid", 0)] {
        let mut other = same.clone();
        other[field] = json!(value);
        bundle.config["linux"]["devices"] = json!([other]);
        let said = failed(&bundle.run());
        assert!(said.contains("is not changed"), "{said}");
    }
    let node = fs::metadata(host.join("node")).unwrap();
    assert_eq!((node.mode() & 0o7777, node.uid(), node.gid()), (0o640, 3, 4));
    // One that is made in a directory of the host stays there, and gets the owner that it was made for.
    let mut new = device("/host/new", "c", 1, 5);
    new["uid"] = json!(9);
    bundle.config["linux"]["devices"] = json!([new]);
    assert_eq!(bundle.output(), "640:3:4");
    assert_eq!(fs::metadata(host.join("new")).unwrap().uid(), 9);
}

fn with_user(bundle: &mut Bundle) {
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    for place in ["proc", "dev", "sys"] {
        let _ = fs::create_dir(bundle.root().join(place));
    }
}

#[test]
fn in_a_user_namespace_devices_are_the_hosts() {
    let mut bundle = Bundle::script(
        "userns",
        "stat -c %t:%T /dev/mine/zero; stat -c %F:%a /dev/fifo; echo x >/dev/mine/zero && echo ok",
    );
    with_user(&mut bundle);
    // The device of the same path on the host, in a directory of its own below /dev.
    let own = tempfile::Builder::new()
        .prefix("berth-test-")
        .tempdir_in("/dev")
        .unwrap();
    fs::set_permissions(own.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let node = own.path().join("zero");
    make_node(&node, 1, 5, "666");
    let path = node.to_str().unwrap();
    bundle.config["process"]["args"][2] = json!(format!(
        "stat -c %t:%T {path}; stat -c %F:%a /dev/fifo; echo x >{path} && echo ok"
    ));
    bundle.config["linux"]["devices"] =
        json!([device(path, "c", 1, 5), { "path": "/dev/fifo", "type": "p", "fileMode": 0o600 }]);
    assert_eq!(bundle.output(), "1:5\nfifo:600\nok");
    // It has to be that device: another one of that name is not shown.
    bundle.config["linux"]["devices"] = json!([device(path, "c", 1, 3)]);
    assert!(failed(&bundle.run()).contains("another device than 1:3"));
    fs::remove_file(&node).unwrap();
    symlink("/etc/passwd", &node).unwrap();
    bundle.config["linux"]["devices"] = json!([device(path, "c", 1, 5)]);
    assert!(failed(&bundle.run()).contains("another device than 1:5"));
    assert!(fs::metadata("/dev/zero").unwrap().file_type().is_char_device());
}

/// A link in a device's place is covered itself: what it leads to, in the image, is not.
#[test]
fn in_a_user_namespace_links_are_not_followed_to_devices() {
    let mut bundle = with_image_dev("userns-link", "cat /secret; stat -c %t:%T /dev/null");
    with_user(&mut bundle);
    fs::write(bundle.root().join("secret"), "secret\n").unwrap();
    for name in [
        "null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr", "core",
    ] {
        symlink("/secret", bundle.root().join("dev").join(name)).unwrap();
    }
    std::os::unix::fs::chown(bundle.root().join("dev"), Some(100_000), Some(100_000)).unwrap();
    assert_eq!(bundle.output(), "secret\n1:3");
}

/// CVE-2025-52565: the terminal is attached to `/dev/console`, which the image has made a link.
#[test]
fn a_console_that_is_a_link_is_refused() {
    let mut bundle = with_image_dev("console", "true");
    bundle.mount(
        "/dev/pts",
        "devpts",
        "devpts",
        &["newinstance", "ptmxmode=0666", "mode=0620"],
    );
    fs::write(bundle.root().join("covered"), "").unwrap();
    symlink("/covered", bundle.root().join("dev/console")).unwrap();
    bundle.config["process"]["terminal"] = json!(true);
    let said = failed(&bundle.run());
    assert!(
        said.contains("/dev/console") && said.contains("symbolic link"),
        "{said}"
    );
    fs::remove_file(bundle.root().join("dev/console")).unwrap();
    bundle.config["process"]["args"][2] = json!("stat -c %F /dev/console; stat -c %F /covered");
    let output = bundle.output();
    assert!(output.starts_with("character special file"), "{output}");
    assert!(output.contains("regular empty file"), "{output}");
}

/// CVE-2025-31133: files are masked with the null device, which is looked at where nothing has made sure of it before.
#[test]
fn files_are_masked_with_the_null_device_only() {
    let mut bundle = Bundle::script("masks", "cat /secret");
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let dev = bundle.path().join("dev");
    fs::create_dir(&dev).unwrap();
    fs::create_dir(bundle.root().join("dev")).unwrap();
    fs::write(bundle.root().join("secret"), "secret").unwrap();
    bundle.mount("/dev", "bind", "dev", &["bind"]);
    bundle.config["linux"]["maskedPaths"] = json!(["/secret"]);
    for kind in ["link", "file", "other device", "null device"] {
        let _ = fs::remove_file(dev.join("null"));
        match kind {
            "link" => symlink("/secret", dev.join("null")).unwrap(),
            "file" => fs::write(dev.join("null"), "content").unwrap(),
            "other device" => make_node(&dev.join("null"), 1, 5, "666"),
            _ => {
                make_node(&dev.join("null"), 1, 3, "666");
                assert_eq!(bundle.output(), "");
                continue;
            }
        }
        let said = failed(&bundle.run());
        assert!(said.contains("it is not the null device"), "{kind}: {said}");
    }
    fs::remove_file(dev.join("null")).unwrap();
    let said = failed(&bundle.run());
    assert!(
        said.contains("what is mounted on /dev has to bring one"),
        "{said}"
    );
}

/// A terminal comes from a devpts: what the image has in its place could be any device.
#[test]
fn a_terminal_of_the_image_is_not_used() {
    let mut bundle = with_image_dev("pts", "true");
    let pts = bundle.root().join("dev/pts");
    fs::create_dir(&pts).unwrap();
    bundle.config["process"]["terminal"] = json!(true);
    for (major, minor) in [(1, 3), (5, 0)] {
        make_node(&pts.join("ptmx"), major, minor, "666");
        let said = failed(&bundle.run());
        assert!(said.contains("/dev/pts"), "{said}");
        fs::remove_file(pts.join("ptmx")).unwrap();
    }
    make_node(&pts.join("ptmx"), 1, 3, "666");
    assert!(failed(&bundle.run()).contains("not a devpts"));
}
