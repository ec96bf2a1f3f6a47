//! Processes that are added to a container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::process::Stdio;

use serde_json::json;
use support::{Bundle, failed, succeeded};

#[test]
fn a_process_is_in_the_container_and_like_its_own() {
    let mut bundle = Bundle::new("inside", &["/bin/sleep", "1000"]);
    bundle.config["hostname"] = json!("inner");
    bundle.config["process"]["user"] = json!({ "uid": 10, "gid": 20 });
    bundle.start();
    let script = "hostname; id -u; id -g; grep -E 'CapBnd|NoNewPrivs' /proc/self/status; ls /proc/self/fd | wc -l; \
                  for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup";
    let mut output = succeeded(&bundle.exec(script));
    let pid = bundle.state()["pid"].as_i64().unwrap();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert!(output.contains(link.to_str().unwrap()), "{kind}: {output}");
    }
    assert!(
        output.starts_with("inner\n10\n20\nCapBnd:\t0000000020000420\nNoNewPrivs:\t1\n4\n"),
        "{output}"
    );
    output.retain(|c| c != '\r');
    assert!(
        output
            .lines()
            .filter(|line| line.contains("::/") || line.contains(":pids:"))
            .all(|l| l.ends_with(":/")),
        "{output}"
    );
}

#[test]
fn options_change_the_process() {
    let bundle = Bundle::new("options", &["/bin/sleep", "1000"]);
    bundle.start();
    let exec = |options: &[&str], script: &str| {
        let arguments = [&["exec"], options, &[bundle.id(), "/bin/sh", "-c", script]].concat();
        bundle.oci(&arguments)
    };
    assert_eq!(
        succeeded(&exec(&["-u", "5:6", "-g", "7"], "id -u; id -g; id -G")),
        "5\n6\n6 7"
    );
    assert_eq!(
        succeeded(&exec(&["-e", "A=b", "--env", "C=d e"], "echo $A $C")),
        "b d e"
    );
    assert_eq!(
        succeeded(&exec(&["--cwd", "/proc/self"], "pwd"))
            .split('/')
            .nth(1),
        Some("proc")
    );
    assert!(
        succeeded(&exec(
            &["--cap", "CAP_NET_ADMIN"],
            "grep CapEff /proc/self/status"
        ))
        .ends_with("0000000020001420")
    );
    assert_eq!(exec(&[], "exit 9").status.code(), Some(9));
    assert_eq!(
        bundle.oci(&["exec", bundle.id(), "nosuch"]).status.code(),
        Some(255)
    );
    assert_eq!(
        bundle.oci(&["exec", bundle.id(), "/proc"]).status.code(),
        Some(255)
    );
    assert!(failed(&exec(&["-u", "name"], "true")).contains("numeric"));
    assert!(failed(&bundle.oci(&["exec", bundle.id()])).contains("missing"));
    assert_eq!(succeeded(&exec(&["-t"], "tty")), "/dev/pts/0");
}

#[test]
fn a_process_from_a_file() {
    let bundle = Bundle::new("file", &["/bin/sleep", "1000"]);
    bundle.start();
    let path = bundle.path().join("process.json");
    let process =
        json!({ "args": ["/bin/env"], "env": ["A=1", "HOME=/"], "cwd": "/", "user": { "uid": 3, "gid": 3 } });
    fs::write(&path, process.to_string()).unwrap();
    assert_eq!(
        succeeded(&bundle.oci(&["exec", "--process", path.to_str().unwrap(), bundle.id()])),
        "A=1\nHOME=/"
    );
}

#[test]
fn a_detached_process_lives_on() {
    let bundle = Bundle::new("detached", &["/bin/sleep", "1000"]);
    bundle.start();
    let pid_file = bundle.path().join("exec.pid");
    let status = bundle
        .command(&[
            "exec",
            "-d",
            "--pid-file",
            pid_file.to_str().unwrap(),
            bundle.id(),
            "/bin/sleep",
            "1000",
        ])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let pid: i64 = fs::read_to_string(pid_file).unwrap().parse().unwrap();
    assert!(support::lives(pid));
    succeeded(&bundle.oci(&["kill", "--all", bundle.id(), "KILL"]));
    support::eventually("the end", || !support::lives(pid));
}

#[test]
fn the_filter_of_the_container_holds_for_added_processes() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("seccomp", &["/bin/sleep", "1000"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["root"]["readonly"] = json!(false);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95 }]
        });
        bundle.start();
        let said = failed(&bundle.exec("grep Seccomp: /proc/self/status; mkdir /x"));
        assert!(said.contains("not supported"), "{said}");
        bundle.config["process"]["args"] = json!(["/bin/mkdir", "/x"]);
        succeeded(&bundle.oci(&["delete", "-f", bundle.id()]));
        assert!(failed(&bundle.run()).contains("not supported"));
    }
}
