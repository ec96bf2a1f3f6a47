//! SELinux labels where it is on: in the virtual machine of `hack/vm/selinux`. Elsewhere they are refused, which is tested
//! with the other settings of a process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::{Bundle, failed, succeeded};

const PROCESS: &str = "system_u:system_r:container_t:s0:c1,c2";
const FILE: &str = "system_u:object_r:container_file_t:s0:c1,c2";

fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// A container with both labels whose root has been labelled, as an engine does it.
fn labelled(name: &str, script: &str) -> Bundle {
    let mut bundle = Bundle::script(name, script);
    bundle.config["process"]["selinuxLabel"] = json!(PROCESS);
    bundle.config["linux"]["mountLabel"] = json!(FILE);
    let root = bundle.root();
    let done = Command::new("chcon")
        .args(["-R", FILE])
        .arg(root)
        .status()
        .unwrap();
    assert!(done.success());
    bundle
}

/// Words of a label that ends with a zero byte.
fn shown(text: &str) -> &str {
    text.trim_matches(['\0', '\n'])
}

#[test]
fn processes_and_file_systems_get_their_labels() {
    if !is_enabled() {
        return;
    }
    let bundle = labelled(
        "labels",
        "cat /proc/self/attr/current; echo; mount; exec sleep 1000",
    );
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    let label = std::fs::read_to_string(format!("/proc/{pid}/attr/current")).unwrap();
    assert_eq!(shown(&label), PROCESS);
    let mounts = succeeded(&bundle.exec("cat /proc/self/mounts"));
    let options = |kind: &str| {
        mounts
            .lines()
            .find(|line| line.split(' ').nth(2) == Some(kind))
            .unwrap()
            .to_owned()
    };
    for kind in ["tmpfs", "devpts"] {
        assert!(
            options(kind).contains(&format!("context={FILE}"))
                || options(kind).contains(&format!("context=\"{FILE}\"")),
            "{mounts}"
        );
    }
    // They are file systems that others mount as well.
    for kind in ["mqueue", "proc", "sysfs", "cgroup2"] {
        assert!(!options(kind).contains("context="), "{mounts}");
    }
    let stat = Command::new("stat")
        .args(["-c", "%C", &format!("/proc/{pid}/root/dev/mqueue")])
        .output()
        .unwrap();
    assert_eq!(shown(&succeeded(&stat)), FILE);
    assert_eq!(
        shown(&succeeded(&bundle.exec("cat /proc/self/attr/current"))),
        PROCESS
    );
    let other = "system_u:system_r:container_t:s0:c3";
    let script = "cat /proc/self/attr/current";
    let exec = [
        "exec",
        "--process-label",
        other,
        bundle.id(),
        "/bin/sh",
        "-c",
        script,
    ];
    // Who has other categories can't execute the container's files.
    failed(&bundle.oci(&exec));
}

#[test]
fn the_session_keyring_is_the_containers() {
    if !is_enabled() {
        return;
    }
    let bundle = labelled("keys", "exec sleep 1000");
    bundle.start();
    // keyctl(2) KEYCTL_GET_SECURITY of the keyring by its name.
    let script = "
import ctypes, sys
for line in open('/proc/keys'):
    if sys.argv[1] in line:
        label = ctypes.create_string_buffer(256)
        ctypes.CDLL(None).syscall(250, 17, ctypes.c_int32(int(line.split()[0], 16)), label, 256)
        print(label.value.decode())
";
    let name = format!("_ses.{}", bundle.id());
    let found = Command::new("python3")
        .args(["-c", script, &name])
        .output()
        .unwrap();
    assert_eq!(succeeded(&found), PROCESS);
}

#[test]
fn without_a_label_the_policy_decides() {
    if !is_enabled() {
        return;
    }
    let mut bundle = labelled("privileged", "cat /proc/self/attr/current");
    bundle.config["process"]
        .as_object_mut()
        .unwrap()
        .remove("selinuxLabel");
    assert_eq!(shown(&bundle.output()), "system_u:system_r:spc_t:s0");
}

#[test]
fn labels_that_no_policy_has_are_errors() {
    if !is_enabled() {
        return;
    }
    let mut bundle = labelled("wrong", "true");
    let wrong = "system_u:system_r:no_such_t:s0";
    bundle.config["process"]["selinuxLabel"] = json!(wrong);
    let said = failed(&bundle.run());
    assert!(
        said.contains("process.selinuxLabel") && said.contains(wrong),
        "{said}"
    );
    bundle.config["process"]["selinuxLabel"] = json!(PROCESS);
    bundle.config["linux"]["mountLabel"] = json!(wrong);
    let said = failed(&bundle.run());
    assert!(said.contains(wrong), "{said}");
}
