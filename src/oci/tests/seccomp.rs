//! System call filters of containers: what they do on each calling convention, and the agents that they ask.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

/// What `mkdir` in the C libraries of this world calls, whose numbers are those of x86_64 or aarch64.
const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];
const MKDIR_NUMBERS: [&str; 2] = if cfg!(target_arch = "x86_64") {
    ["83", "258"]
} else {
    ["34", "34"]
};

/// A seccomp agent, which ends with the test.
struct Agent {
    process: Child,
    states: BufReader<ChildStdout>,
}

impl Agent {
    /// Listens at `socket`; the calls that are named by number fail with ENOMEDIUM ("No medium found").
    fn new(socket: &Path, refused: &[&str]) -> Agent {
        let listener = UnixListener::bind(socket).unwrap();
        let mut process = Command::new("python3")
            .args(["-c", include_str!("support/agent.py")])
            .args(refused)
            .stdin(std::os::fd::OwnedFd::from(listener))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the package python3");
        let states = BufReader::new(process.stdout.take().unwrap());
        Agent { process, states }
    }

    /// The next container process state that came.
    fn state(&mut self) -> Value {
        let mut line = String::new();
        self.states.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn stop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Has the container ask an agent at `agent.sock` about calls.
fn notify(bundle: &mut Bundle, no_new_privileges: bool, names: &[&str]) -> PathBuf {
    let socket = bundle.path().join("agent.sock");
    bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
    bundle.config["root"]["readonly"] = json!(false);
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket,
        "listenerMetadata": "for the agent",
        "architectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_NOTIFY" }]
    });
    socket
}

#[test]
fn an_agent_answers_for_a_container() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::script("asks", "mkdir /x; echo $?; ls /x; echo $?; ls /proc/self/fd");
        let socket = notify(&mut bundle, no_new_privileges, &MKDIR);
        bundle.config["annotations"] = json!({ "a.key": "and its value" });
        let mut agent = Agent::new(&socket, &MKDIR_NUMBERS);
        let output = bundle.run();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("No medium found"), "{said}");
        assert_eq!(
            succeeded(&output),
            "1\n1\n0\n1\n2\n3",
            "no descriptor is left in the container"
        );
        let mut state = agent.state();
        let pid = state["pid"].take();
        assert!(pid.as_i64().unwrap() > 1, "{pid}");
        let version = &bundle.config["ociVersion"];
        let expected = json!({
            "ociVersion": version,
            "fds": ["seccompFd"],
            "pid": null,
            "metadata": "for the agent",
            "state": {
                "ociVersion": version,
                "id": bundle.id(),
                "status": "creating",
                "pid": pid,
                "bundle": bundle.path().canonicalize().unwrap(),
                "annotations": { "a.key": "and its value" }
            }
        });
        assert_eq!(state, expected);
    }
}

#[test]
fn an_agent_answers_whatever_the_flags() {
    for flags in [
        &[][..],
        &["SECCOMP_FILTER_FLAG_TSYNC"],
        &["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        &[
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            "SECCOMP_FILTER_FLAG_TSYNC",
        ],
    ] {
        let mut bundle = Bundle::script("flags", "mkdir /x");
        let socket = notify(&mut bundle, true, &MKDIR);
        bundle.config["linux"]["seccomp"]["flags"] = json!(flags);
        let _agent = Agent::new(&socket, &MKDIR_NUMBERS);
        let said = failed(&bundle.run());
        assert!(said.contains("No medium found"), "{flags:?}: {said}");
    }
}

/// The process has no privileges on the host there, and hands its listener over all the same.
#[test]
fn an_agent_answers_for_a_user_namespace() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::script("userns", "mkdir /x");
        let socket = notify(&mut bundle, no_new_privileges, &MKDIR);
        bundle.namespace(json!({ "type": "user" }));
        let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 65536 }]);
        bundle.config["linux"]["uidMappings"] = map.clone();
        bundle.config["linux"]["gidMappings"] = map;
        fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(bundle.root(), Some(100_000), Some(100_000)).unwrap();
        let mut agent = Agent::new(&socket, &MKDIR_NUMBERS);
        let said = failed(&bundle.run());
        assert!(said.contains("No medium found"), "{said}");
        assert_eq!(agent.state()["fds"], json!(["seccompFd"]));
    }
}

#[test]
fn an_agent_answers_for_added_processes() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("exec-asks", &["/bin/sleep", "1000"]);
        let socket = notify(&mut bundle, no_new_privileges, &MKDIR);
        let mut agent = Agent::new(&socket, &MKDIR_NUMBERS);
        bundle.create();
        let created = agent.state();
        let first = bundle.state()["pid"].clone();
        assert_eq!(created["pid"], first);
        succeeded(&bundle.oci(&["start", bundle.id()]));
        let said = failed(&bundle.exec("mkdir /x"));
        assert!(said.contains("No medium found"), "{said}");
        let state = agent.state();
        assert_eq!(state["state"]["status"], "running");
        assert_eq!(state["state"]["pid"], first);
        assert!(
            state["pid"].as_i64().unwrap() > 1 && state["pid"] != first,
            "{state}"
        );
        assert_eq!(state["metadata"], "for the agent");
        // Without its agent the process can't begin.
        agent.stop();
        let said = failed(&bundle.exec("mkdir /x"));
        assert!(
            said.contains("listenerPath") && said.contains("agent.sock"),
            "{said}"
        );
    }
}

/// The runtime itself makes these calls between the filter and the program.
#[test]
fn an_agent_may_be_asked_about_almost_every_call() {
    let names = [
        "execve",
        "openat",
        "openat2",
        "open",
        "read",
        "close",
        "fcntl",
        "sendmsg",
        "recvmsg",
        "mmap",
        "munmap",
        "brk",
        "prctl",
        "capset",
        "setresuid",
        "accept4",
        "prlimit64",
        "newfstatat",
        "stat",
        "faccessat2",
        "faccessat",
        "chdir",
        "fchdir",
        "getcwd",
        "close_range",
        "wait4",
        "waitid",
        "clone",
        "clone3",
        "vfork",
        "poll",
        "ppoll",
        "rt_sigaction",
        "rt_sigprocmask",
        "pidfd_open",
        "exit_group",
    ];
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::script("everything", "echo done; sleep 1000 & kill $!");
        let socket = notify(&mut bundle, no_new_privileges, &names);
        bundle.config["hooks"] = json!({ "startContainer": [{ "path": "/bin/true" }] });
        let mut agent = Agent::new(&socket, &[]);
        assert_eq!(bundle.output(), "done");
        agent.state();
    }
}

#[test]
fn without_its_agent_a_call_does_not_exist() {
    let mut bundle = Bundle::script("alone", "read line; mkdir /x");
    let socket = notify(&mut bundle, true, &MKDIR);
    let mut agent = Agent::new(&socket, &MKDIR_NUMBERS);
    let mut container = bundle
        .command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    agent.state();
    agent.stop();
    drop(container.stdin.take());
    let said = failed(&container.wait_with_output().unwrap());
    assert!(said.contains("Function not implemented"), "{said}");
}

#[test]
fn an_agent_is_found_at_any_path() {
    let mut bundle = Bundle::script("path", "mkdir /x");
    let deep = bundle.path().join("d".repeat(120));
    fs::create_dir(&deep).unwrap();
    let socket = notify(&mut bundle, false, &MKDIR);
    let mut agent = Agent::new(&socket, &MKDIR_NUMBERS);
    let long = deep.join("agent.sock");
    fs::rename(&socket, &long).unwrap();
    let relative = long.strip_prefix(bundle.path()).unwrap();
    for path in [long.as_path(), relative] {
        bundle.config["linux"]["seccomp"]["listenerPath"] = json!(path);
        assert!(failed(&bundle.run()).contains("No medium found"));
        agent.state();
    }
}

#[test]
fn agents_that_are_not_there_or_not_needed() {
    let refused = |change: &dyn Fn(&mut Value), expected: &str| {
        let mut bundle = Bundle::new("no-agent", &["/bin/true"]);
        notify(&mut bundle, true, &MKDIR);
        change(&mut bundle.config["linux"]["seccomp"]);
        let said = failed(&bundle.run());
        assert!(said.contains(expected), "{said}");
        assert!(!bundle.state_directory().exists());
    };
    refused(&|_| (), "agent.sock");
    refused(&|s| s["listenerPath"] = json!("/nowhere.sock"), "/nowhere.sock");
    refused(&|s| s["listenerPath"] = json!("/dev/null"), "/dev/null");
    refused(&|s| s["listenerPath"] = json!(""), "listenerMetadata");
    refused(
        &|s| *s = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": s["syscalls"] }),
        "linux.seccomp.listenerPath",
    );
    refused(
        &|s| s["syscalls"][0]["names"] = json!(["write"]),
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    );
    refused(
        &|s| s["syscalls"][0]["names"] = json!(["sendmsg", "sendmmsg"]),
        "both sendmsg and sendmmsg",
    );
    refused(
        &|s| s["defaultAction"] = json!("SCMP_ACT_NOTIFY"),
        "default action",
    );

    let mut bundle = Bundle::script("not-asked", "mkdir /x; ls -d /x");
    notify(&mut bundle, true, &MKDIR);
    bundle.config["linux"]["seccomp"]["syscalls"] = json!([]);
    assert_eq!(bundle.output(), "/x", "the path is ignored where nobody is asked");
}

#[test]
fn start_hooks_run_under_the_filter() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::new("hook", &["/bin/true"]);
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": MKDIR, "action": "SCMP_ACT_KILL_PROCESS" }]
        });
        bundle.config["hooks"] = json!({
            "startContainer": [{ "path": "/bin/mkdir", "args": ["mkdir", "/dev/shm/x"] }]
        });
        let said = failed(&bundle.run());
        assert!(
            said.contains("startContainer") && said.contains("signal 31"),
            "{said}"
        );
    }
}

/// A filter for an old kernel's calls, installed while the process is still being set up.
#[test]
fn the_runtime_manages_without_new_calls_once_the_filter_is_there() {
    for no_new_privileges in [true, false] {
        let mut bundle = Bundle::script("old", "echo runs");
        bundle.config["process"]["noNewPrivileges"] = json!(no_new_privileges);
        bundle.config["process"]["user"] = json!({ "uid": 10, "gid": 20 });
        bundle.config["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{
                "names": ["close_range", "fsopen", "fsconfig", "fspick", "openat2", "open_tree", "move_mount",
                    "mount_setattr", "faccessat2", "pidfd_open", "clone3", "capget"],
                "action": "SCMP_ACT_ERRNO", "errnoRet": 38
            }]
        });
        assert_eq!(bundle.output(), "runs");
        bundle.config["process"]["args"] = json!(["/bin/sleep", "1000"]);
        bundle.start();
        assert_eq!(succeeded(&bundle.exec("echo too")), "too");
    }
}

#[test]
fn features_lists_what_is_known() {
    let bundle = Bundle::new("features", &["/bin/true"]);
    let features: Value = serde_json::from_str(&succeeded(&bundle.oci(&["features"]))).unwrap();
    let seccomp = &features["linux"]["seccomp"];
    assert_eq!(seccomp["enabled"], true);
    let profile = |list: &str, name: &Value| {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": "/nowhere.sock",
            "architectures": [],
            "flags": [],
            "syscalls": [{ "names": ["getpid"], "action": "SCMP_ACT_LOG", "args": [] }]
        });
        match list {
            "actions" => profile["syscalls"][0]["action"] = name.clone(),
            "operators" => profile["syscalls"][0]["args"] = json!([{ "index": 0, "value": 0, "op": name }]),
            "archs" => profile["architectures"] = json!([name]),
            _ => profile["flags"] = json!([name]),
        }
        profile
    };
    for (list, count) in [
        ("actions", 9),
        ("operators", 7),
        ("archs", 24),
        ("knownFlags", 4),
        ("supportedFlags", 4),
    ] {
        let names = seccomp[list].as_array().unwrap();
        assert_eq!(names.len(), count, "{list}: {names:?}");
        let mut bundle = Bundle::new("known", &["/bin/true"]);
        for name in names {
            bundle.config["linux"]["seccomp"] = profile(list, name);
            let output = bundle.run();
            let said = String::from_utf8_lossy(&output.stderr);
            // Understood, though there is no agent, or no rule that asks one.
            match name.as_str().unwrap() {
                "SCMP_ACT_NOTIFY" => assert!(said.contains("/nowhere.sock"), "{said}"),
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => assert!(said.contains("needs a rule"), "{said}"),
                name => assert!(output.status.success(), "{name}: {said}"),
            }
        }
        bundle.config["linux"]["seccomp"] = profile(list, &json!("SCMP_OTHER"));
        let said = failed(&bundle.run());
        assert!(said.contains("SCMP_OTHER"), "{said}");
    }
}

/// The other calling conventions of x86_64.
#[cfg(target_arch = "x86_64")]
mod conventions {
    use super::*;
    use support::machine_code::{Convention, program};

    const GETPID: (u32, u32) = (39, 20);

    /// How a program ends that makes one call under a profile: with the errno of the call.
    fn end(profile: &Value, convention: Convention, number: u32, arguments: [u32; 3]) -> Option<i32> {
        let mut bundle = Bundle::new("convention", &["/bin/program"]);
        let path = bundle.root().join("bin/program");
        fs::write(&path, program(convention, number, arguments)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        bundle.config["linux"]["seccomp"] = profile.clone();
        bundle.run().status.code()
    }

    const KILLED: Option<i32> = Some(128 + 31);

    #[test]
    fn a_filter_holds_for_all_that_are_listed() {
        let profile = |architectures: &[&str]| {
            json!({
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": architectures,
                "syscalls": [{ "names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]
            })
        };
        let all = profile(&["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
        for (convention, number) in [
            (Convention::X86_64, GETPID.0),
            (Convention::X32, GETPID.0),
            (Convention::X86, GETPID.1),
            (Convention::X86FromX86_64, GETPID.1),
        ] {
            assert_eq!(end(&all, convention, number, [0; 3]), Some(77), "{convention:?}");
        }
        // The number of one means another call in the other: 20 is writev, 39 is mkdir.
        assert_eq!(end(&all, Convention::X86_64, GETPID.1, [9, 0, 0]), Some(9));
        assert_eq!(end(&all, Convention::X86, GETPID.0, [0; 3]), Some(14));
        for architectures in [
            &[][..],
            &["SCMP_ARCH_X86_64"],
            &["SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS"],
        ] {
            let native = profile(architectures);
            assert_eq!(end(&native, Convention::X86_64, GETPID.0, [0; 3]), Some(77));
            assert_eq!(end(&native, Convention::X32, GETPID.0, [0; 3]), KILLED);
            assert_eq!(end(&native, Convention::X86, GETPID.1, [0; 3]), KILLED);
            assert_eq!(end(&native, Convention::X86FromX86_64, GETPID.1, [0; 3]), KILLED);
        }
    }

    /// socketcall is 102 and ipc 117; a null pointer for their arguments is EFAULT, an id that does not exist EINVAL.
    #[test]
    fn a_rule_holds_behind_multiplexers() {
        let mut profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [
                { "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 88 },
                { "names": ["shmctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99 }
            ]
        });
        let x86 = Convention::X86;
        assert_eq!(end(&profile, x86, 359, [1, 1, 0]), Some(88), "socket");
        assert_eq!(
            end(&profile, x86, 102, [1, 0, 0]),
            Some(88),
            "socketcall(SYS_SOCKET)"
        );
        assert_eq!(
            end(&profile, x86, 102, [2, 0, 0]),
            Some(14),
            "socketcall(SYS_BIND)"
        );
        assert_eq!(end(&profile, x86, 117, [24, 12345, 0]), Some(99), "ipc(SHMCTL)");
        assert_eq!(
            end(&profile, x86, 117, [0x1_0018, 12345, 0]),
            Some(99),
            "ipc(SHMCTL), version 1"
        );
        assert_eq!(end(&profile, x86, 117, [22, 0, 0]), Some(22), "ipc(SHMDT)");
        // A condition can't be checked there: nothing gets past it.
        profile["syscalls"][0]["args"] = json!([{ "index": 0, "value": 40, "op": "SCMP_CMP_EQ" }]);
        assert_eq!(end(&profile, x86, 359, [40, 1, 0]), Some(88), "socket(AF_VSOCK)");
        assert_eq!(
            end(&profile, x86, 359, [1234, 1, 0]),
            Some(97),
            "socket with an unknown family"
        );
        assert_eq!(
            end(&profile, x86, 102, [1, 0, 0]),
            Some(88),
            "socketcall(SYS_SOCKET)"
        );
    }

    /// All that is allowed is to begin and to end.
    #[test]
    fn calls_newer_than_the_profile_do_not_exist() {
        for (default, refused) in [
            ("SCMP_ACT_ERRNO", Some(1)),
            ("SCMP_ACT_KILL_PROCESS", KILLED),
            ("SCMP_ACT_TRAP", KILLED),
            ("SCMP_ACT_LOG", Some(14)),
        ] {
            let profile = json!({
                "defaultAction": default,
                "syscalls": [{ "names": ["execve", "exit"], "action": "SCMP_ACT_ALLOW" }]
            });
            // A null path is EFAULT.
            let (rename, unlink, open, exit) = (82, 87, 2, 60);
            assert_eq!(
                end(&profile, Convention::X86_64, open, [0; 3]),
                refused,
                "{default}"
            );
            assert_eq!(
                end(&profile, Convention::X86_64, exit, [3, 0, 0]),
                Some(3),
                "{default}"
            );
            let newer = if default == "SCMP_ACT_LOG" { 14 } else { 38 };
            for number in [rename, unlink] {
                assert_eq!(
                    end(&profile, Convention::X86_64, number, [0; 3]),
                    Some(newer),
                    "{default}"
                );
            }
        }
    }

    #[test]
    fn conditions_of_64_bits_and_of_32() {
        let profile = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "syscalls": [{
                "names": ["close"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
                "args": [{ "index": 0, "value": 0xffff_ffff_ffff_ffff_u64, "op": "SCMP_CMP_EQ" }]
            }]
        });
        assert_eq!(
            end(&profile, Convention::X86, 6, [u32::MAX, 0, 0]),
            Some(77),
            "-1 is -1 in 32 bits"
        );
        assert_eq!(
            end(&profile, Convention::X86_64, 3, [u32::MAX, 0, 0]),
            Some(9),
            "and another number in 64"
        );
    }
}
