//! What podman, docker and containerd ask for that others seldom do.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use support::{Bundle, failed};

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
