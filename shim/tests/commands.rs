//! Commands that the shim runs to their end: the first one starts as any other process, later ones by a launcher, and nobody
//! can tell the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

use berth_runtime::cgroups::Cgroup;
use berth_shim::frame;
use berth_shim::protocol::{Call, FailureCode, Request, SOCKET_NAME};
use serde_json::json;
use support::commands::{
    Ran, end, launchers, repeated, request, run, run_with, shell, shell_processes, sleeper, warm_up,
};
use support::{Pod, is_alive, wait_until};

#[test]
fn each_command_has_its_own_output_and_exit_code() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    for round in 0..4 {
        let script = format!("echo out {round}; echo err >&2; exit {round}");
        let wanted = Ran {
            exit_code: round,
            timed_out: false,
            stdout: format!("out {round}\n"),
            stderr: "err\n".into(),
        };
        assert_eq!(shell(&mut client, &round.to_string(), &script), wanted);
        assert_eq!(shell(&mut client, "killed", "kill -9 $$"), Ran::quietly(137));
    }
    assert!(
        pod.log("a").is_empty(),
        "a command's output is not the container's"
    );
    end(&mut client);
}

/// All that a process can ask about itself is the same, whichever way it was started: groups, namespaces, identity, limits,
/// signals, descriptors.
#[test]
fn a_command_can_not_tell_how_it_was_started() {
    let pod = Pod::start();
    let client = sleeper(&pod, |spec| {
        spec["process"]["user"] =
            json!({ "uid": 1000, "gid": 2000, "additionalGids": [3000], "umask": 0o027 });
        spec["process"]["oomScoreAdj"] = json!(321);
        spec["process"]["env"] = json!(["PATH=/bin", "A=b c"]);
        spec["process"]["cwd"] = json!("/tmp");
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 }]);
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"],
        });
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["linux"]["seccomp"] = json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }],
        });
        spec["linux"]["namespaces"]
            .as_array_mut()
            .unwrap()
            .push(json!({ "type": "cgroup" }));
    });
    let Some(mut client) = client else { return };
    let script = "cat /proc/self/cgroup
        busybox grep -E '^(Uid|Gid|Groups|Sig|Shd|Cap|NoNewPrivs|Seccomp|Cpus_allowed|Umask|NSpid)' /proc/self/status | busybox grep -v SigQ
        for kind in cgroup ipc mnt net pid user uts; do busybox readlink /proc/self/ns/$kind; done
        cat /proc/self/oom_score_adj /proc/self/limits
        busybox ls -l /proc/self/fd | busybox sed 's/.* //; s/pipe:.*/pipe/; s,/proc/[0-9]*/fd,fds,'
        busybox env; pwd; busybox id; busybox mkdir made; busybox tty; set -- /proc/[0-9]*; echo $#; exit 7";
    let mut wanted = shell(&mut client, "first", script);
    wanted.exit_code = 7;
    assert!(wanted.stdout.contains("uid=1000 gid=2000"), "{wanted:?}");
    assert!(wanted.stdout.contains("\n321\n"), "{wanted:?}");
    assert!(
        launchers(&pod, &mut client).is_empty(),
        "one command takes no launcher"
    );
    // A pid is another one each time.
    let unnumbered = |ran: &mut Ran| {
        let lines = ran.stdout.lines().filter(|line| !line.starts_with("NSpid"));
        ran.stdout = lines.collect::<Vec<_>>().join("\n");
    };
    unnumbered(&mut wanted);
    for id in ["second", "third"] {
        let mut ran = shell(&mut client, id, script);
        unnumbered(&mut ran);
        assert_eq!(ran, wanted);
        assert_eq!(launchers(&pod, &mut client).len(), 1);
    }
    let mut ran = run_with(&mut client, repeated("repeated", &["sh", "-c", script], 0));
    unnumbered(&mut ran);
    assert_eq!(ran, wanted);
    end(&mut client);
}

/// It may do all that the shim may: the container must not get at it.
#[test]
fn the_container_can_not_see_the_launcher() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let [launcher] = launchers(&pod, &mut client)[..] else {
        panic!("there is no launcher")
    };
    let processes = shell(&mut client, "ps", "busybox ps -o pid,args");
    assert!(processes.stdout.contains("sleep 1000"), "{processes:?}");
    assert_eq!(
        processes.stdout.lines().count(),
        3,
        "heading, container, itself: {processes:?}"
    );
    for kind in ["pid", "mnt", "net", "ipc", "uts", "user", "cgroup"] {
        let of = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(launcher), of(pod.record().pid), "{kind}");
    }
    // Nothing of the host's but what it says: streams of the shim's, the socket to the shim, and the container's process.
    let descriptors = fs::read_dir(format!("/proc/{launcher}/fd")).unwrap();
    let others: Vec<String> = descriptors
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_str().unwrap().parse::<u32>().unwrap() > 2)
        .map(|entry| fs::read_link(entry.path()).unwrap().display().to_string())
        .collect();
    assert_eq!(others.len(), 2, "{others:?}");
    assert!(
        others.iter().any(|link| link.starts_with("socket:")),
        "{others:?}"
    );
    assert!(others.iter().any(|link| link.contains("pidfd")), "{others:?}");
    end(&mut client);
    wait_until("the launcher is gone", || !is_alive(launcher));
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    let script = "setsid sh -c 'exec sleep 1000' & (sleep 1000 &); echo began; sleep 1000";
    for round in 0..3 {
        let ran = run_with(
            &mut client,
            request(&format!("slow-{round}"), &["sh", "-c", script], 300),
        );
        let wanted = Ran {
            exit_code: 137,
            timed_out: true,
            stdout: "began\n".into(),
            stderr: String::new(),
        };
        assert_eq!(ran, wanted);
        wait_until("only the container's own process is left", || {
            shell_processes(&cgroup) == 1
        });
        assert_eq!(
            run(&mut client, &format!("after-{round}"), &["true"]),
            Ran::quietly(0)
        );
    }
    end(&mut client);
}

#[test]
fn much_output_holds_up_nobody() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    for round in 0..3 {
        let ran = shell(
            &mut client,
            &round.to_string(),
            "yes | head -c 1000000; echo end >&2; exit 3",
        );
        assert_eq!(
            (ran.exit_code, ran.stdout.len(), ran.stderr.as_str()),
            (3, 4096, "end\n")
        );
    }
    end(&mut client);
}

#[test]
fn what_a_command_left_running_does_not_keep_its_answer_and_can_still_be_killed() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let ran = shell(&mut client, "bg", "setsid sleep 1000 & echo started");
    assert_eq!((ran.exit_code, ran.stdout.as_str()), (0, "started\n"));
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    assert_eq!(shell_processes(&cgroup), 2);
    // The next one has a group of its own.
    assert_eq!(run(&mut client, "next", &["true"]), Ran::quietly(0));
    assert_eq!(shell_processes(&cgroup), 2);
    client.call(Request::KillExec { exec: "bg".into() });
    wait_until("it is dead", || shell_processes(&cgroup) == 1);
    end(&mut client);
}

#[test]
fn what_can_not_run_says_so() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    for _ in 0..3 {
        for program in ["/bin/no-such", "no-such", "/etc/not-a-program"] {
            let failure = client.refused(request("x", &[program], 0));
            assert_eq!(failure.code, FailureCode::CannotRun, "{}", failure.message);
        }
        assert_eq!(run(&mut client, "x", &["true"]), Ran::quietly(0));
    }
    assert_eq!(client.refused(request("x", &[], 0)).code, FailureCode::Invalid);
    let long = "x".repeat(10_000);
    assert_eq!(run(&mut client, "long", &["echo", &long]).stdout.len(), 4096);
    end(&mut client);
    assert_eq!(
        client.refused(request("x", &["true"], 0)).code,
        FailureCode::NotFound
    );
}

#[test]
fn a_command_ends_with_its_container() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let mut other = pod.client();
    let answer = std::thread::spawn(move || run(&mut other, "e", &["sleep", "1000"]));
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    wait_until("it runs", || shell_processes(&cgroup) == 2);
    client.kill("a");
    assert_eq!(answer.join().unwrap(), Ran::quietly(137));
    client.exited("a");
    client.delete("a");
}

#[test]
fn a_command_ends_with_the_client_that_asked_for_it() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let mut other = UnixStream::connect(pod.dir().join(SOCKET_NAME)).unwrap();
    let request = request("e", &["sh", "-c", "setsid sleep 1000 & sleep 1000"], 0);
    other
        .write_all(&frame::encode(&Call { seq: 1, request }).unwrap())
        .unwrap();
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    wait_until("it runs", || shell_processes(&cgroup) == 3);
    drop(other);
    wait_until("it is gone", || shell_processes(&cgroup) == 1);
    end(&mut client);
}

#[test]
fn a_launcher_that_was_killed_is_replaced() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let [launcher] = launchers(&pod, &mut client)[..] else {
        panic!("there is no launcher")
    };
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(launcher),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    wait_until("it is gone", || !is_alive(launcher));
    // Nobody knows whether a command began that was being passed on: it is not started twice.
    assert_eq!(
        client.refused(request("lost", &["true"], 0)).code,
        FailureCode::Internal
    );
    warm_up(&mut client);
    assert_eq!(launchers(&pod, &mut client).len(), 1);
    end(&mut client);
}

#[test]
fn a_launcher_ends_with_the_shim() {
    let mut pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    warm_up(&mut client);
    let [launcher] = launchers(&pod, &mut client)[..] else {
        panic!("there is no launcher")
    };
    let shim = nix::unistd::Pid::from_raw(pod.record().pid);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_until("it is gone", || !is_alive(launcher));
    pod.expect_leftovers();
}
