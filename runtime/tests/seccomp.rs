//! Filters at work in the kernel. Filters bind the thread that installs them, so that each case has a thread, or a
//! process where it ends one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::thread;

use berth_runtime::oci::LinuxSeccomp;
use berth_runtime::seccomp::{Program, compile, default_profile};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde_json::json;

fn program(json: &str) -> Program {
    compile(&serde_json::from_str::<LinuxSeccomp>(json).unwrap()).unwrap()
}

/// Runs a closure in a thread with the filter.
fn filtered<T: Send + 'static>(program: Program, body: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        assert!(program.install().unwrap().is_none());
        body()
    });
    thread.join().unwrap()
}

fn working_directory() -> Option<i32> {
    std::env::current_dir().err().and_then(|e| e.raw_os_error())
}

#[test]
fn a_refused_call_returns_the_errno_asked_for() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW",
        "syscalls":[{"names":["getcwd","no_such_call"],"action":"SCMP_ACT_ERRNO","errnoRet":117}]}"#;
    assert_eq!(filtered(program(json), working_directory), Some(117));
    let json =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["getcwd"],"action":"SCMP_ACT_ERRNO"}]}"#;
    assert_eq!(filtered(program(json), working_directory), Some(libc::EPERM));
    assert_eq!(working_directory(), None);
}

#[test]
fn arguments_are_compared_in_all_ways() {
    let family = |json: &str| {
        let program = program(&format!(
            r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG","SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
                "syscalls":[{{"names":["socket"],"action":"SCMP_ACT_ERRNO","errnoRet":99,"args":[{json}]}}]}}"#
        ));
        filtered(program, || {
            [AddressFamily::Unix, AddressFamily::Inet, AddressFamily::Netlink].map(|family| {
                let result = socket(family, SockType::Datagram, SockFlag::empty(), None);
                result
                    .map(drop)
                    .err()
                    .is_some_and(|errno| errno == Errno::EADDRNOTAVAIL)
            })
        })
    };
    // AF_UNIX is 1, AF_INET 2, AF_NETLINK 16.
    let cases = [
        (
            r#"{"index":0,"value":2,"op":"SCMP_CMP_EQ"}"#,
            [false, true, false],
        ),
        (r#"{"index":0,"value":2,"op":"SCMP_CMP_NE"}"#, [true, false, true]),
        (
            r#"{"index":0,"value":2,"op":"SCMP_CMP_LT"}"#,
            [true, false, false],
        ),
        (r#"{"index":0,"value":2,"op":"SCMP_CMP_LE"}"#, [true, true, false]),
        (r#"{"index":0,"value":2,"op":"SCMP_CMP_GE"}"#, [false, true, true]),
        (
            r#"{"index":0,"value":2,"op":"SCMP_CMP_GT"}"#,
            [false, false, true],
        ),
        (
            r#"{"index":0,"value":3,"valueTwo":2,"op":"SCMP_CMP_MASKED_EQ"}"#,
            [false, true, false],
        ),
        (
            r#"{"index":0,"value":2,"op":"SCMP_CMP_EQ"},{"index":1,"value":1,"op":"SCMP_CMP_EQ"}"#,
            [false, false, false],
        ),
        (
            r#"{"index":0,"value":1,"op":"SCMP_CMP_EQ"},{"index":0,"value":16,"op":"SCMP_CMP_EQ"}"#,
            [true, false, true],
        ),
    ];
    for (json, expected) in cases {
        assert_eq!(family(json), expected, "{json}");
    }
}

/// Rules for two calls each, for pids that there are none of.
fn long_profile(rules: u64) -> LinuxSeccomp {
    let rule = |n: u64| {
        json!({
            "names": ["getpgid", "getsid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 20 + n % 100,
            "args": [{ "index": 0, "value": FIRST_PID + n, "op": "SCMP_CMP_EQ" }]
        })
    };
    let rules: Vec<_> = (0..rules).map(rule).collect();
    serde_json::from_value(json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules })).unwrap()
}

/// Above the kernel's PID_MAX_LIMIT.
const FIRST_PID: u64 = 5_000_000;

#[test]
fn a_filter_may_be_as_long_as_the_kernel_takes() {
    let longest = (1..)
        .take_while(|n| compile(&long_profile(*n)).is_ok())
        .last()
        .unwrap();
    let program = compile(&long_profile(longest)).unwrap();
    let length = program.instructions().len();
    assert!((4080..=4096).contains(&length), "{length}");
    let errnos = filtered(program, move || {
        [0, longest - 1, longest].map(|n| {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(FIRST_PID + n).unwrap());
            nix::unistd::getpgid(Some(pid)).unwrap_err() as u64
        })
    });
    assert_eq!(errnos, [20, 20 + (longest - 1) % 100, Errno::ESRCH as u64]);
    let refused = compile(&long_profile(longest + 1)).unwrap_err().to_string();
    assert!(refused.contains("the kernel takes at most 4096"), "{refused}");
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    // The profile knows of nothing newer than clone3 (435); openat2 is 437.
    let json =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["openat2"],"action":"SCMP_ACT_ERRNO"}]}"#;
    let open = || {
        let how = nix::fcntl::OpenHow::new().flags(nix::fcntl::OFlag::O_PATH);
        nix::fcntl::openat2(nix::fcntl::AT_FDCWD, "/", how)
            .map(drop)
            .err()
    };
    assert_eq!(filtered(program(json), open), Some(Errno::EPERM));
    let mut profile = default_profile(&[].into());
    for rule in &mut profile.syscalls {
        rule.names.retain(|name| !NEW.contains(&name.as_str()));
    }
    assert_eq!(filtered(compile(&profile).unwrap(), open), Some(Errno::ENOSYS));
}

/// Calls of the default profile that are newer than clone3.
const NEW: [&str; 23] = [
    "listmount",
    "statmount",
    "close_range",
    "openat2",
    "faccessat2",
    "epoll_pwait2",
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "memfd_secret",
    "process_mrelease",
    "futex_waitv",
    "cachestat",
    "fchmodat2",
    "map_shadow_stack",
    "futex_wake",
    "futex_wait",
    "futex_requeue",
    "mseal",
    "setxattrat",
    "getxattrat",
    "listxattrat",
    "removexattrat",
];

#[test]
fn the_default_profile_lets_programs_run_and_denies_what_it_should() {
    let program = compile(&default_profile(&[].into())).unwrap();
    let (families, unshared, hostname, child) = filtered(program, || {
        let families = [
            (AddressFamily::Vsock, SockType::Stream),
            (AddressFamily::Alg, SockType::SeqPacket),
            (AddressFamily::Unix, SockType::Stream),
            (AddressFamily::Inet6, SockType::Datagram),
            (AddressFamily::Netlink, SockType::Raw),
        ];
        let families =
            families.map(|(family, kind)| socket(family, kind, SockFlag::empty(), None).map(drop).err());
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).err();
        let hostname = nix::unistd::sethostname("berth-test").err();
        let child = Command::new("/bin/sh")
            .args(["-c", "ls / > /dev/null && (exit 7)"])
            .status()
            .unwrap();
        (families, unshared, hostname, child.code())
    });
    let refused = Some(Errno::EPERM);
    assert_eq!(families, [refused, refused, None, None, None]);
    assert_eq!((unshared, hostname), (refused, refused));
    assert_eq!(child, Some(7));
}

#[test]
fn capabilities_open_the_default_profile() {
    let all = compile(&default_profile(&["CAP_SYS_ADMIN".to_owned()].into())).unwrap();
    let unshared = filtered(all, || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS).err()
    });
    assert_eq!(unshared, None);
}

#[test]
fn a_listener_hears_of_calls() {
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls":[{"names":["getcwd"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    let without_tsync = json.replace(r#""SECCOMP_FILTER_FLAG_TSYNC""#, "");
    let program = program(&without_tsync);
    assert!(program.needs_listener());
    let (send, receive) = std::sync::mpsc::channel();
    let caller = thread::spawn(move || {
        nix::sys::prctl::set_no_new_privs().unwrap();
        send.send(program.install().unwrap().unwrap()).unwrap();
        working_directory()
    });
    let listener = receive.recv().unwrap();
    let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1));
    // Nobody answers: without its listener the call does not exist.
    drop(listener);
    assert_eq!(caller.join().unwrap(), Some(libc::ENOSYS));
}

/// What a process of its own does: it installs a filter from its environment, and calls getcwd.
#[test]
fn victim() {
    let Ok(json) = std::env::var("BERTH_TEST_FILTER") else {
        return;
    };
    filtered(program(&json), working_directory);
}

fn end_of_victim(action: &str) -> ExitStatus {
    let json = format!(
        r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{{"names":["getcwd"],"action":"{action}"}}]}}"#
    );
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "victim"])
        .env("BERTH_TEST_FILTER", json)
        .output()
        .unwrap()
        .status
}

#[test]
fn killing_actions_end_the_process() {
    assert_eq!(
        end_of_victim("SCMP_ACT_KILL_PROCESS").signal(),
        Some(libc::SIGSYS)
    );
    assert_eq!(end_of_victim("SCMP_ACT_TRAP").signal(), Some(libc::SIGSYS));
    assert!(end_of_victim("SCMP_ACT_ALLOW").success());
    assert!(end_of_victim("SCMP_ACT_LOG").success());
    // Without a tracer the call fails.
    assert!(end_of_victim("SCMP_ACT_TRACE").success());
}
