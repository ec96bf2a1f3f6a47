//! What the validation programs of runtime-tools found, and what runc's integration tests expect beyond the
//! specification; see docs/oci-conformance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::json;
use support::{Bundle, eventually, failed, lives, succeeded};

#[test]
fn a_filter_from_before_newer_system_calls_does_not_stop_the_runtime() {
    for no_new_privileges in [false, true] {
        let mut bundle = Bundle::new("old-filter", &["echo", "ran"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["faccessat2", "close_range", "openat2", "clone3", "execveat", "pidfd_open", "statx"],
                "action": "SCMP_ACT_ERRNO",
            }],
        });
        assert_eq!(bundle.output(), "ran", "noNewPrivileges {no_new_privileges}");
    }
}

#[test]
fn rules_for_devices_hold_beside_those_that_every_container_has() {
    let mut bundle = Bundle::script(
        "devices",
        "mknod /tmp/full c 1 7; mknod /tmp/loop c 10 237; head -c 1 /tmp/full | wc -c; \
         head -c 1 /tmp/loop 2>&1 | grep -o 'not permitted'; mknod /tmp/kmsg c 1 11; head -c 0 /tmp/kmsg && echo read",
    );
    bundle.mount("/tmp", "tmpfs", "tmpfs", &["mode=755"]);
    bundle.capabilities(&["CAP_MKNOD", "CAP_SYSLOG"]);
    bundle.config["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" },
    ]);
    assert_eq!(bundle.output(), "1\nnot permitted\nread");
}

#[test]
fn a_container_that_waits_holds_no_file_of_its_host() {
    let bundle = Bundle::new("descriptors", &["/bin/true"]);
    bundle.create();
    let process = format!("/proc/{}", bundle.state()["pid"]);
    // Its error output is this test's, which may be a file.
    let errors = std::fs::read_link("/proc/self/fd/2").unwrap();
    let inside = std::fs::read_to_string(format!("{process}/mountinfo")).unwrap();
    for entry in std::fs::read_dir(format!("{process}/fd")).unwrap() {
        let path = entry.unwrap().path();
        let target = std::fs::read_link(&path).unwrap();
        if path.ends_with("2") && target == errors {
            continue;
        }
        let target = target.to_str().unwrap();
        let known = ["/dev/null", "/", "socket:", "pipe:", "anon_inode:"];
        assert!(
            known
                .iter()
                .any(|name| target == *name || name.ends_with(':') && target.starts_with(name)),
            "{} is {target}; {inside}",
            path.display()
        );
    }
}

#[test]
fn of_a_variable_that_is_there_twice_the_last_value_is_passed_on() {
    let mut bundle = Bundle::new("environment", &["/bin/env"]);
    bundle.config["process"]["env"] = json!(["ONE=two", "HOME=", "PATH=/bin", "ONE="]);
    assert_eq!(bundle.output(), "PATH=/bin\nONE=\nHOME=/");
}

#[test]
fn without_a_cgroup_namespace_a_user_namespace_sees_its_own_group_too() {
    let mut bundle = Bundle::script(
        "own-group",
        "cd /sys/fs/cgroup; [ -e pids ] && cd pids; cat cgroup.procs | wc -l; grep -q own-group /proc/self/cgroup && echo in",
    );
    let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "cgroup");
    bundle.namespace(json!({ "type": "user" }));
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
    bundle.config["linux"]["uidMappings"] = map.clone();
    bundle.config["linux"]["gidMappings"] = map;
    // Nothing can be made in the root file system: its owner is not mapped.
    for place in ["dev", "proc", "sys"] {
        std::fs::create_dir_all(bundle.root().join(place)).unwrap();
    }
    let output = bundle.output();
    // The shell and what it runs.
    assert!(
        matches!(output.split_once('\n'), Some(("2" | "3", "in"))),
        "{output}"
    );
}

#[test]
fn without_a_pid_namespace_killing_takes_all_processes() {
    for first_process_lives in [true, false] {
        let mut bundle = Bundle::new("host-pids", &["/bin/sleep", "1000"]);
        let namespaces = bundle.config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        bundle.start();
        let first = bundle.state()["pid"].as_i64().unwrap();
        let pid_file = bundle.path().join("exec.pid");
        let path = pid_file.to_str().unwrap();
        let arguments = [
            "exec",
            "--detach",
            "--pid-file",
            path,
            bundle.id(),
            "/bin/sleep",
            "1000",
        ];
        assert!(bundle.command(&arguments).status().unwrap().success());
        let added: i64 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
        if !first_process_lives {
            let first = nix::unistd::Pid::from_raw(i32::try_from(first).unwrap());
            nix::sys::signal::kill(first, nix::sys::signal::Signal::SIGKILL).unwrap();
            eventually("its end", || bundle.status() == "stopped");
        }
        assert!(lives(added));
        succeeded(&bundle.oci(&["kill", bundle.id(), "KILL"]));
        eventually("the end of all", || !lives(first) && !lives(added));
        assert_eq!(bundle.status(), "stopped");
        assert!(failed(&bundle.oci(&["kill", bundle.id(), "KILL"])).contains("container not running"));
    }
}

#[test]
fn hooks_before_the_program_have_its_environment_and_are_counted() {
    let mut bundle = Bundle::script("hook-environment", "true");
    bundle.config["process"]["env"] = json!(["ONE=two"]);
    let test = |script: &str| json!({ "path": "/bin/sh", "args": ["sh", "-c", script] });
    let with_own = json!({ "path": "/bin/sh", "args": ["sh", "-c", "[ -z $ONE ]"], "env": ["OWN=1"] });
    bundle.config["hooks"] = json!({ "startContainer": [test("[ $ONE = two ] && [ $HOME = / ]"), with_own] });
    assert_eq!(bundle.output(), "");
    bundle.config["hooks"]["startContainer"][1] = test("exit 7");
    let said = failed(&bundle.run());
    assert!(
        said.contains("error running startContainer hook #1: /bin/sh: it ended with exit code 7"),
        "{said}"
    );
}

#[test]
fn a_limit_of_no_process_is_one_of_one() {
    let mut bundle = Bundle::script(
        "one-process",
        "cd /sys/fs/cgroup; [ -e pids ] && cd pids; read limit < pids.max; echo $limit",
    );
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 0 });
    assert_eq!(bundle.output(), "1");
}

#[test]
fn a_frozen_group_is_refused_in_whichever_hierarchy() {
    let bundle = Bundle::new("frozen", &["/bin/true"]);
    let group = bundle.cgroup();
    let freezers = [
        ("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"),
        ("/sys/fs/cgroup/unified", "cgroup.freeze", "1"),
        ("/sys/fs/cgroup", "cgroup.freeze", "1"),
    ];
    for (hierarchy, file, frozen) in freezers {
        let directory = std::path::PathBuf::from(format!("{hierarchy}{group}"));
        let is_hierarchy = std::path::Path::new(hierarchy).join("cgroup.procs").exists();
        if !is_hierarchy || std::fs::create_dir(&directory).is_err() || !directory.join(file).exists() {
            continue;
        }
        std::fs::write(directory.join(file), frozen).unwrap();
        let said = failed(&bundle.run());
        assert!(
            said.contains("container's cgroup unexpectedly frozen"),
            "{hierarchy}: {said}"
        );
        let _ = std::fs::remove_dir(&directory);
    }
    assert_eq!(bundle.output(), "");
}
