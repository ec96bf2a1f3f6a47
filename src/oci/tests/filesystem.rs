//! Mounts, devices, and paths that are hidden or read-only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;

use serde_json::json;
use support::{Bundle, failed, succeeded};

#[test]
fn the_root_is_read_only_when_asked_for() {
    let mut bundle = Bundle::script("readonly", "touch /x && echo written");
    assert!(failed(&bundle.run()).contains("Read-only file system"));
    bundle.config["root"]["readonly"] = json!(false);
    assert_eq!(bundle.output(), "written");
    assert!(bundle.root().join("x").exists());
}

#[test]
fn ordinary_options_are_applied() {
    let mut bundle = Bundle::script("options", "grep -E ' (/t|/b) ' /proc/self/mounts");
    bundle.config["root"]["readonly"] = json!(false);
    bundle.mount(
        "/t",
        "tmpfs",
        "here",
        &[
            "nosuid", "nodev", "noexec", "noatime", "size=64k", "mode=700", "ro",
        ],
    );
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.mount(
        "/b",
        "bind",
        source.to_str().unwrap(),
        &["rbind", "ro", "nosuid", "nodev", "noexec"],
    );
    // Some kernels show this default.
    let mounts = bundle.output().replace(",inode64", "");
    assert!(
        mounts.contains("here /t tmpfs ro,nosuid,nodev,noexec,noatime,size=64k,mode=700 0 0"),
        "{mounts}"
    );
    assert!(
        mounts.contains(" /b ") && mounts.contains(" ro,nosuid,nodev,noexec,relatime"),
        "{mounts}"
    );
}

#[test]
fn bind_mounts_of_files_and_directories_make_their_targets() {
    let mut bundle = Bundle::script("bind", "cat /new/dir/file; cat /other/data; touch /other/more");
    bundle.config["root"]["readonly"] = json!(false);
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("data"), "content").unwrap();
    bundle.mount(
        "/new/dir/file",
        "bind",
        source.join("data").to_str().unwrap(),
        &["bind"],
    );
    // A relative source is relative to the bundle.
    bundle.mount("/other", "none", "source", &["rbind", "rw"]);
    assert_eq!(bundle.output(), "contentcontent");
    assert!(source.join("more").exists());
}

#[test]
fn recursive_read_only_covers_what_is_mounted_below() {
    let mut bundle = Bundle::script("rro", "touch /b/sub/x");
    let source = bundle.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    // A first container's mount namespace is not ours: the submount is made in a namespace around the runtime.
    let run = |bundle: &Bundle| {
        let command = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .collect();
        let line = words
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ");
        let script = format!("mount -t tmpfs none {} && {line}", source.join("sub").display());
        std::process::Command::new("unshare")
            .args(["-m", "/bin/sh", "-c", &script])
            .output()
            .unwrap()
    };
    bundle.config["root"]["readonly"] = json!(false);
    bundle.mount("/b", "bind", source.to_str().unwrap(), &["rbind", "ro"]);
    succeeded(&run(&bundle));
    bundle.config["mounts"].as_array_mut().unwrap().pop();
    bundle.mount("/b", "bind", source.to_str().unwrap(), &["rbind", "rro"]);
    assert!(failed(&run(&bundle)).contains("Read-only file system"));
}

#[test]
fn a_bind_mount_grants_no_more_than_its_source() {
    let mut bundle = Bundle::script("grant", "touch /b/x || grep ' /b ' /proc/self/mounts");
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    bundle.config["root"]["readonly"] = json!(false);
    bundle.mount(
        "/b",
        "bind",
        source.to_str().unwrap(),
        &["rbind", "rw", "suid", "dev", "exec"],
    );
    let command = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = words
        .iter()
        .map(|word| word.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ");
    let script = format!(
        "mount -t tmpfs -o ro,nosuid,nodev,noexec none {} && {line}",
        source.display()
    );
    let output = std::process::Command::new("unshare")
        .args(["-m", "/bin/sh", "-c", &script])
        .output()
        .unwrap();
    assert!(succeeded(&output).contains(" /b tmpfs ro,nosuid,nodev,noexec,"));
}

#[test]
fn unknown_options_are_refused() {
    for (kind, options) in [
        ("tmpfs", ["nonsense"]),
        ("bind", ["size=1"]),
        ("tmpfs", ["remount"]),
        ("bind", ["tmpcopyup"]),
        ("tmpfs", ["size=x"]),
    ] {
        let mut bundle = Bundle::new("unknown", &["/bin/true"]);
        bundle.mount("/dev/t", kind, "/etc", &options);
        let said = failed(&bundle.run());
        assert!(said.contains(options[0]), "{said}");
    }
}

#[test]
fn default_devices_are_there_and_work() {
    let script = "for d in null zero full random urandom tty; do stat -c %n:%t:%T:%a /dev/$d; done; \
                  echo x > /dev/null; head -c 3 /dev/zero | wc -c; echo x 2>/dev/null > /dev/full || echo full; \
                  for l in fd stdin stdout stderr ptmx; do readlink /dev/$l; done";
    let bundle = Bundle::script("devices", script);
    let expected = "/dev/null:1:3:666\n/dev/zero:1:5:666\n/dev/full:1:7:666\n/dev/random:1:8:666\n/dev/urandom:1:9:666\n\
                    /dev/tty:5:0:666\n3\nfull\n/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx";
    let output = bundle.output();
    assert!(output.starts_with(expected), "{output}");
}

#[test]
fn devices_of_the_configuration_are_made() {
    let script = "stat -c %n:%t:%T:%a:%u:%g /dev/mine /dev/sub/fifo /dev/null";
    let mut bundle = Bundle::script("extra", script);
    bundle.config["linux"]["devices"] = json!([
        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4 },
        { "path": "/dev/sub/fifo", "type": "p", "major": 0, "minor": 0, "fileMode": 0o600 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600 }
    ]);
    assert_eq!(
        bundle.output(),
        "/dev/mine:1:5:640:3:4\n/dev/sub/fifo:0:0:600:0:0\n/dev/null:1:3:600:0:0"
    );
}

#[test]
fn the_device_cgroup_keeps_the_hosts_disk_away() {
    let mut bundle = Bundle::script("disk", "mknod /dev/disk b 254 0 && head -c 1 /dev/disk");
    bundle.capabilities(&["CAP_MKNOD"]);
    assert!(failed(&bundle.run()).contains("not permitted"));
}

#[test]
fn masked_and_read_only_paths() {
    let script = "ls -A /dir | wc -l; cat /file | wc -c; grep -c ' /dir ' /proc/mounts; touch /dir/x 2>/dev/null || echo no; \
                  touch /ro/x 2>/dev/null || echo no; echo x > /proc/sys/kernel/printk || echo no";
    let mut bundle = Bundle::script("masked", script);
    bundle.config["root"]["readonly"] = json!(false);
    for directory in ["dir", "dir2", "ro"] {
        fs::create_dir(bundle.root().join(directory)).unwrap();
        fs::write(bundle.root().join(directory).join("secret"), "x").unwrap();
    }
    fs::write(bundle.root().join("file"), "secret").unwrap();
    bundle.config["linux"]["maskedPaths"] = json!(["/dir", "/dir2", "/file", "/not/there", "/dir"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/ro", "/proc/sys", "/not/there"]);
    let output = bundle.output();
    assert_eq!(output, "0\n0\n1\nno\nno\nno");
}

#[test]
fn propagation_into_and_out_of_a_container() {
    let mut bundle = Bundle::script("propagation", "grep -E ' /(s|p|l) ' /proc/self/mountinfo");
    bundle.config["root"]["readonly"] = json!(false);
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    for (target, option) in [("/s", "rshared"), ("/p", "rprivate"), ("/l", "rslave")] {
        bundle.mount(target, "bind", source.to_str().unwrap(), &["rbind", option]);
    }
    let command = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = words
        .iter()
        .map(|word| word.to_str().unwrap())
        .collect::<Vec<_>>()
        .join(" ");
    let script = format!(
        "mount --bind {0} {0} && mount --make-shared {0} && {line}",
        source.display()
    );
    let output = std::process::Command::new("unshare")
        .args(["-m", "/bin/sh", "-c", &script])
        .output()
        .unwrap();
    let mounts = succeeded(&output);
    let line = |target: &str| {
        mounts
            .lines()
            .find(|line| line.contains(target))
            .unwrap()
            .to_owned()
    };
    assert!(line(" /s ").contains("shared:"), "{mounts}");
    assert!(line(" /l ").contains("master:"), "{mounts}");
    assert!(
        !line(" /p ").contains("shared:") && !line(" /p ").contains("master:"),
        "{mounts}"
    );
}

#[test]
fn the_cgroup_mount_shows_the_containers_own_groups() {
    let script = "for f in /sys/fs/cgroup/pids/cgroup.procs /sys/fs/cgroup/cgroup.procs; do [ -e $f ] && cat $f; done; true";
    let bundle = Bundle::script("cgroup-mount", script);
    let pids = bundle.output();
    assert!(pids.lines().next() == Some("1"), "{pids}");
    let mut bundle = Bundle::script("cgroup-host-namespace", script);
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "cgroup");
    let pids = bundle.output();
    assert!(pids.lines().next() == Some("1"), "{pids}");
}

#[test]
fn a_host_dev_is_left_as_it_is() {
    let mut bundle = Bundle::script("host-dev", "ls /dev");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    let source = bundle.path().join("dev");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("only"), "").unwrap();
    bundle.mount("/dev", "bind", source.to_str().unwrap(), &["rbind", "rprivate"]);
    bundle.config["linux"]["maskedPaths"] = json!([]);
    assert_eq!(bundle.output(), "only");
    assert_eq!(fs::read_dir(&source).unwrap().count(), 1);
}

#[test]
fn without_a_mount_the_devices_are_made_in_the_image() {
    let mut bundle = Bundle::script("image-dev", "stat -c %n:%t:%T /dev/null");
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
    assert_eq!(bundle.output(), "/dev/null:1:3");
    assert!(Path::new(&bundle.root().join("dev/null")).exists());
}

#[test]
fn many_mounts() {
    let mut bundle = Bundle::script("many", "grep -c ' /m/' /proc/self/mounts");
    bundle.config["root"]["readonly"] = json!(false);
    for i in 0..500 {
        bundle.mount(&format!("/m/{i}"), "bind", "/etc", &["rbind", "ro"]);
    }
    assert_eq!(bundle.output(), "500");
}
