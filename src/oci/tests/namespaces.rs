//! Namespaces that are made, joined, or shared with the host.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

const SHOW: &str = "for n in mnt pid net ipc uts user cgroup time; do readlink /proc/self/ns/$n; done";

/// The namespaces of this process, by kind.
fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}"))
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

fn kind_of(line: &str) -> &str {
    line.split(':').next().unwrap()
}

#[test]
fn new_namespaces_and_those_of_the_host() {
    let mut bundle = Bundle::script("new", SHOW);
    for line in bundle.output().lines() {
        let kind = kind_of(line);
        assert_eq!(line == own(kind), matches!(kind, "user" | "time"), "{line}");
    }
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }]);
    bundle.config.as_object_mut().unwrap().remove("hostname");
    for line in bundle.output().lines() {
        assert_eq!(line != own(kind_of(line)), kind_of(line) == "mnt", "{line}");
    }
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "mount" }]);
    assert!(failed(&bundle.run()).contains("twice"));
}

/// A container that joins all namespaces of another.
fn joiner(first: &Bundle, kinds: &[(&str, &str)]) -> Bundle {
    let pid = first.state()["pid"].as_i64().unwrap();
    let mut second = Bundle::script(&format!("{}-joins", first.id().rsplit('-').next().unwrap()), SHOW);
    second.config.as_object_mut().unwrap().remove("hostname");
    for (kind, file) in kinds {
        second.namespace(json!({ "type": kind, "path": format!("/proc/{pid}/ns/{file}") }));
    }
    second
}

#[test]
fn namespaces_of_another_container_are_joined() {
    let first = Bundle::new("first", &["/bin/sleep", "1000"]);
    first.start();
    let theirs = succeeded(&first.exec(SHOW));
    let kinds = [
        ("pid", "pid"),
        ("network", "net"),
        ("ipc", "ipc"),
        ("uts", "uts"),
        ("cgroup", "cgroup"),
    ];
    let second = joiner(&first, &kinds);
    for line in second.output().lines() {
        assert_eq!(theirs.contains(line), kind_of(line) != "mnt", "{line}");
    }
    let mut wrong = joiner(&first, &[]);
    let pid = first.state()["pid"].as_i64().unwrap();
    wrong.namespace(json!({ "type": "network", "path": format!("/proc/{pid}/ns/uts") }));
    assert!(failed(&wrong.run()).contains("is not a network namespace"));
    wrong.namespace(json!({ "type": "network", "path": "/dev/null" }));
    assert!(failed(&wrong.run()).contains("is not a network namespace"));
    wrong.namespace(json!({ "type": "network", "path": "/no/such" }));
    assert!(failed(&wrong.run()).contains("/no/such"));
}

fn with_user(bundle: &mut Bundle) {
    bundle.namespace(json!({ "type": "user" }));
    let map: Value = json!([{ "containerID": 0, "hostID": 100_000, "size": 65_536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // Its root owns nothing of the image, so that the places for mounts must be there.
    for place in ["proc", "dev", "sys", "tmp"] {
        let _ = fs::create_dir(bundle.root().join(place));
    }
}

#[test]
fn a_user_namespace_of_its_own() {
    let script = "id -u; cat /proc/self/uid_map; stat -c %u:%g:%t:%T /dev/null; echo x >/dev/null && echo ok; \
                  grep CapEff /proc/self/status; touch /tmp/f && stat -c %u /tmp/f; cat /proc/sys/net/ipv4/ip_forward";
    let mut bundle = Bundle::script("user", script);
    with_user(&mut bundle);
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    bundle.config["linux"]["sysctl"] = json!({ "net.ipv4.ip_forward": "1" });
    let output = bundle.output();
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(lines[0], "0");
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["0", "100000", "65536"]
    );
    // The host's device, whose owner is not mapped.
    assert_eq!(lines[2..4], ["65534:65534:1:3", "ok"]);
    assert_eq!(lines[5..], ["0", "1"]);
    bundle.config["linux"]["uidMappings"] = json!([]);
    assert!(failed(&bundle.run()).contains("linux.uidMappings"));
}

/// The user of an image may be one that a rootless user, or a pod with ids of its own, does not have.
#[test]
fn an_id_that_the_namespace_lacks_is_named_with_the_way_out() {
    let mut bundle = Bundle::new("beyond", &["/bin/true"]);
    with_user(&mut bundle);
    for (user, field, of_pod) in [
        (
            json!({ "uid": 70_000, "gid": 0 }),
            "process.user.uid: [70000]",
            "runAsUser",
        ),
        (
            json!({ "uid": 0, "gid": 70_001 }),
            "process.user.gid: [70001]",
            "runAsGroup",
        ),
        (
            json!({ "uid": 0, "gid": 0, "additionalGids": [5, 65_536] }),
            "process.user.additionalGids: [5, 65536]",
            "supplementalGroups",
        ),
    ] {
        bundle.config["process"]["user"] = user;
        let said = failed(&bundle.run());
        for part in [
            field,
            of_pod,
            "beyond the ids of the container's user namespace",
            "/etc/subuid",
        ] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn exec_and_join_into_a_user_namespace() {
    let mut first = Bundle::new("userns", &["/bin/sleep", "1000"]);
    with_user(&mut first);
    first.start();
    let theirs = succeeded(&first.exec(&format!("id -u >&2; {SHOW}")));
    assert_ne!(
        theirs.lines().find(|line| line.starts_with("user")).unwrap(),
        own("user")
    );
    // A pid namespace of its own, in the user namespace of the other.
    for kinds in [
        vec![
            ("user", "user"),
            ("network", "net"),
            ("ipc", "ipc"),
            ("uts", "uts"),
        ],
        vec![
            ("user", "user"),
            ("network", "net"),
            ("ipc", "ipc"),
            ("uts", "uts"),
            ("pid", "pid"),
        ],
    ] {
        let second = joiner(&first, &kinds);
        for place in ["proc", "dev", "sys"] {
            fs::create_dir(second.root().join(place)).unwrap();
        }
        let output = second.output();
        for line in output.lines() {
            let joined = kinds.iter().any(|(_, file)| *file == kind_of(line)) || kind_of(line) == "time";
            assert_eq!(theirs.contains(line), joined, "{line}\n{theirs}");
        }
    }
}

#[test]
fn a_time_namespace_with_offsets() {
    let mut bundle = Bundle::script("time", "cut -d. -f1 /proc/uptime; readlink /proc/self/ns/time");
    bundle.namespace(json!({ "type": "time" }));
    bundle.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
    let output = bundle.output();
    let (uptime, namespace) = output.split_once('\n').unwrap();
    assert!(uptime.parse::<u64>().unwrap() >= 1_000_000_000, "{uptime}");
    assert_ne!(namespace, own("time"));
}

#[test]
fn offsets_are_checked() {
    for (offsets, said) in [
        (
            json!({ "realtime": { "secs": 1 } }),
            "linux.timeOffsets[\"realtime\"]",
        ),
        (
            json!({ "monotonic": { "nanosecs": 1_000_000_000 } }),
            "linux.timeOffsets[\"monotonic\"]",
        ),
        (json!({ "boottime": { "secs": i64::MIN } }), "time offsets"),
    ] {
        let mut bundle = Bundle::new("offsets", &["/bin/true"]);
        bundle.namespace(json!({ "type": "time" }));
        bundle.config["linux"]["timeOffsets"] = offsets;
        let output = failed(&bundle.run());
        assert!(output.contains(said), "{said}: {output}");
    }
}

#[test]
fn a_time_namespace_is_joined_by_path() {
    let mut first = Bundle::new("time-first", &["/bin/sleep", "1000"]);
    first.namespace(json!({ "type": "time" }));
    first.config["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1_000_000_000 } });
    first.start();
    let theirs = succeeded(&first.exec(SHOW));
    let kinds = [("time", "time"), ("pid", "pid"), ("uts", "uts")];
    let second = joiner(&first, &kinds);
    for line in second.output().lines() {
        let joined = kinds.iter().any(|(_, file)| *file == kind_of(line)) || kind_of(line) == "user";
        assert_eq!(theirs.contains(line), joined, "{line}");
    }
}

#[test]
fn without_a_mount_namespace_nothing_of_the_host_changes() {
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut bundle = Bundle::new("shared-mounts", &["/bin/sleep", "1000"]);
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|namespace| namespace["type"] != "mount");
    bundle.mount("/tmp", "tmpfs", "tmpfs", &[]);
    bundle.start();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let theirs = fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap();
    assert_eq!(theirs.to_str().unwrap(), own("mnt"));
    let script = "ls -d /tmp /bin/busybox; ls /proc/1/root/bin/busybox; cat /proc/sys/kernel/hostname; touch /dev/x; \
                  touch /proc/sys/x; ls /etc/debian_version";
    let output = bundle.exec(script);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text, "/bin/busybox\n/tmp\n/proc/1/root/bin/busybox\nberth\n");
    let after = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before, after);
}

#[test]
fn a_mount_namespace_is_joined_by_path() {
    let first = Bundle::new("mounts-first", &["/bin/true"]);
    // A mount that only that namespace has.
    let mark = first.path().join("mark");
    fs::create_dir(&mark).unwrap();
    let mut other = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c"])
        .arg(format!(
            "mount -t tmpfs mark {0} && echo there > {0}/file && echo ready && exec sleep 1000",
            mark.display()
        ))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut ready = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let mut bundle = Bundle::new("mounts-second", &["/bin/sleep", "1000"]);
    bundle.namespace(json!({ "type": "mount", "path": format!("/proc/{}/ns/mnt", other.id()) }));
    bundle.mount("/mark", "bind", mark.to_str().unwrap(), &["rbind"]);
    bundle.start();
    let pid = bundle.state()["pid"].as_i64().unwrap();
    let [ours, theirs] = [u64::from(other.id()), pid.unsigned_abs()]
        .map(|pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap());
    let read = bundle.exec("cat /mark/file");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", other.id())).unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!(ours, theirs);
    assert_eq!(succeeded(&read), "there");
    assert!(!mounts.contains("/rootfs"), "{mounts}");
}
