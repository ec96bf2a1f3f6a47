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

/// podman of an ordinary user runs the runtime as root of a user namespace, which has no control groups of its own.
#[test]
fn root_of_a_users_namespace_needs_no_cgroup() {
    let mut bundle = Bundle::new("users-root", &["/bin/sleep", "1000"]);
    let namespaces = json!([{ "type": "mount" }, { "type": "pid" }, { "type": "uts" }, { "type": "ipc" }, { "type": "network" }]);
    bundle.config["linux"]["namespaces"] = namespaces;
    let groupless = bundle.config["linux"].as_object_mut().unwrap();
    groupless.remove("cgroupsPath");
    groupless.remove("resources");
    bundle.capabilities(&["CAP_CHOWN"]);
    // Only one group is mapped.
    bundle.config["mounts"]
        .as_array_mut()
        .unwrap()
        .retain(|mount| mount["type"] != "devpts");
    let run = bundle.command(&[]);
    let given = Command::new("chown")
        .args(["-R", "1500:1500"])
        .arg(bundle.path())
        .status();
    assert!(given.unwrap().success());
    let script = "oci() { \"$0\" \"$@\"; }; oci \"$1\" \"$2\" create --bundle \"$3\" \"$4\" </dev/null >/dev/null && \
                  oci \"$1\" \"$2\" start \"$4\" && oci \"$1\" \"$2\" exec \"$4\" /bin/id -u && \
                  oci \"$1\" \"$2\" kill \"$4\" KILL && oci \"$1\" \"$2\" delete --force \"$4\" && echo deleted";
    let output = Command::new("setpriv")
        .args([
            "--reuid=1500",
            "--regid=1500",
            "--clear-groups",
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
        ])
        .args(["sh", "-c", script])
        .arg(run.get_program())
        .args(run.get_args())
        .arg(bundle.path())
        .arg(bundle.id())
        .output()
        .unwrap();
    assert_eq!(succeeded(&output), "0\ndeleted");
}
