//! What podman, docker and containerd ask for that others seldom do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::process::Command;

use serde_json::json;
use support::{Bundle, failed, succeeded};

/// podman's `--systemd` binds a hierarchy into the directory of hierarchies, which is read-only.
#[test]
fn a_mount_gets_its_place_below_a_read_only_cgroup_mount() {
    let script = "cat /sys/fs/cgroup/bound/file; mkdir /sys/fs/cgroup/x 2>/dev/null || echo read-only";
    let mut bundle = Bundle::script("below-cgroup", script);
    let source = bundle.path().join("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "bound\n").unwrap();
    bundle.mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid"]);
    bundle.mount(
        "/sys/fs/cgroup/bound",
        "bind",
        source.to_str().unwrap(),
        &["bind"],
    );
    if std::fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap() {
        // The unified hierarchy has no place for anything.
        assert!(failed(&bundle.run()).contains("/sys/fs/cgroup/bound"));
    } else {
        assert_eq!(bundle.output(), "bound\nread-only");
    }
}

/// podman and docker name network namespaces that they mounted on files below `/run`.
#[test]
fn a_mounted_namespace_is_joined() {
    let first = Bundle::new("mounted-namespace", &["/bin/sleep", "1000"]);
    first.start();
    let pid = &first.state()["pid"];
    let theirs = succeeded(&first.exec("readlink /proc/self/ns/net"));
    let mut second = Bundle::script("joins-mounted-namespace", "readlink /proc/self/ns/net");
    let file = second.path().join("namespace");
    std::fs::write(&file, "").unwrap();
    for (kind, joins) in [("net", true), ("ipc", false)] {
        second.namespace(json!({ "type": "network", "path": file }));
        let run = second.command(&["run", "--bundle", second.path().to_str().unwrap(), second.id()]);
        let output = Command::new("unshare")
            .args(["-m", "sh", "-c", "mount --bind \"$0\" \"$1\"; shift; exec \"$@\""])
            .arg(format!("/proc/{pid}/ns/{kind}"))
            .arg(&file)
            .arg(run.get_program())
            .args(run.get_args())
            .output()
            .unwrap();
        if joins {
            assert_eq!(succeeded(&output), theirs);
        } else {
            assert!(failed(&output).contains("is not a network namespace"));
        }
    }
}
