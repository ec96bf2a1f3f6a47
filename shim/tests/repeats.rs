//! Commands that the shim repeats while they end well: who asked hears of the last one only.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use berth_runtime::cgroups::Cgroup;
use berth_shim::frame;
use berth_shim::protocol::{Call, FailureCode, Request, SOCKET_NAME};
use serde_json::json;
use support::commands::{
    Ran, end, launchers, repeated, repeated_every, run, run_with, shell, shell_processes, sleeper, warm_up,
};
use support::fuse::Hanging;
use support::{Pod, TestClient, is_alive, wait_until};

/// Asks on a connection of its own, and does not wait.
fn begin(pod: &Pod, request: Request) -> UnixStream {
    let mut socket = UnixStream::connect(pod.dir().join(SOCKET_NAME)).unwrap();
    socket
        .write_all(&frame::encode(&Call { seq: 1, request }).unwrap())
        .unwrap();
    socket
}

/// How often the command in [`counting`] has run.
fn count(client: &mut TestClient, id: &str) -> usize {
    let ran = shell(client, id, "cat /tmp/count 2>/dev/null");
    ran.stdout.len()
}

/// A command that fails at its n-th time, and says each time which one it is.
fn counting(n: usize) -> String {
    format!(
        "printf x >> /tmp/count; n=$(busybox wc -c < /tmp/count); echo time $n; echo err $n >&2; [ $n -lt {n} ]"
    )
}

#[test]
fn only_the_one_that_fails_is_told_with_what_it_printed_itself() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let begun = Instant::now();
    let ran = run_with(&mut client, repeated("r", &["sh", "-c", &counting(5)], 0));
    let wanted = Ran {
        exit_code: 1,
        timed_out: false,
        stdout: "time 5\n".into(),
        stderr: "err 5\n".into(),
    };
    assert_eq!(ran, wanted);
    // A tenth of a second before each of them.
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(count(&mut client, "count"), 5);
    wait_until("what repeated it is gone", || {
        launchers(&pod, &mut client).is_empty()
    });
    end(&mut client);
}

#[test]
fn one_that_takes_longer_than_the_period_is_not_run_twice_at_a_time() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let script = format!(
        "busybox mkdir /tmp/one || exit 9; sleep 0.3; busybox rmdir /tmp/one; {}",
        counting(3)
    );
    let begun = Instant::now();
    let ran = run_with(&mut client, repeated("r", &["sh", "-c", &script], 0));
    assert_eq!((ran.exit_code, ran.stdout.as_str()), (1, "time 3\n"));
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    end(&mut client);
}

#[test]
fn one_that_stops_has_not_ended_and_any_signal_is_an_end() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let script = format!(
        "(sleep 0.1; kill -CONT $$) & kill -STOP $$; wait; {}",
        counting(3)
    );
    let ran = run_with(&mut client, repeated("stops", &["sh", "-c", &script], 0));
    assert_eq!((ran.exit_code, ran.stdout.as_str()), (1, "time 3\n"));
    for signal in [9, 40] {
        let script = format!("kill -{signal} $$");
        let ran = run_with(&mut client, repeated("killed", &["sh", "-c", &script], 0));
        assert_eq!((ran.exit_code, ran.timed_out), (128 + signal, false));
    }
    end(&mut client);
}

#[test]
fn much_output_is_held_back_by_nobody_and_kept_by_nobody() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let script = format!("yes | head -c 300000; {}", counting(3));
    let ran = run_with(&mut client, repeated("r", &["sh", "-c", &script], 0));
    assert_eq!(
        (ran.exit_code, ran.stdout.len(), ran.stderr.as_str()),
        (1, 4096, "err 3\n")
    );
    end(&mut client);
}

#[test]
fn a_timeout_kills_the_whole_tree_but_nothing_that_was_left_before() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    // What ended well, and left something running, is told at once: that is not the next one's.
    let left = run_with(
        &mut client,
        repeated("left", &["sh", "-c", "setsid sleep 1000 & echo began"], 0),
    );
    assert_eq!(left, Ran::quietly(0));
    wait_until("the one that was left runs", || shell_processes(&cgroup) == 2);
    let script = "setsid sh -c 'exec sleep 1000' & (sleep 1000 &); echo began; sleep 1000";
    for round in 0..2 {
        let id = format!("slow-{round}");
        let ran = run_with(&mut client, repeated(&id, &["sh", "-c", script], 300));
        let wanted = Ran {
            exit_code: 137,
            timed_out: true,
            stdout: "began\n".into(),
            stderr: String::new(),
        };
        assert_eq!(ran, wanted);
        wait_until("the container and what was left before run", || {
            shell_processes(&cgroup) == 2
        });
    }
    client.call(Request::KillExec { exec: "left".into() });
    wait_until("it is dead", || shell_processes(&cgroup) == 1);
    end(&mut client);
}

/// What repeats commands waits for each program to run, and can't look at the time meanwhile.
#[test]
fn a_program_on_a_file_system_that_hangs_is_given_up_in_time() {
    let pod = Pod::start();
    let directory = pod.root.path().join("hanging");
    fs::create_dir(&directory).unwrap();
    let Some(file_system) = Hanging::mount(&directory) else {
        return;
    };
    let client = sleeper(&pod, |spec| {
        let mount =
            json!({ "destination": "/hanging", "type": "bind", "source": directory, "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(mount);
    });
    let Some(mut client) = client else { return };
    file_system.hang();
    let begun = Instant::now();
    let ran = run_with(&mut client, repeated("r", &["/hanging/program"], 1000));
    assert!(ran.timed_out, "{ran:?}");
    let took = begun.elapsed();
    assert!(
        took > Duration::from_secs(1) && took < Duration::from_secs(10),
        "{took:?}"
    );
    end(&mut client);
}

#[test]
fn what_can_not_run_says_so() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    for program in ["/bin/no-such", "no-such", "/etc/not-a-program"] {
        let failure = client.refused(repeated("x", &[program], 0));
        assert_eq!(failure.code, FailureCode::CannotRun, "{}", failure.message);
    }
    // One that goes while it is being repeated.
    let script = "busybox cp /bin/busybox /tmp/true && echo made";
    assert_eq!(shell(&mut client, "make", script).stdout, "made\n");
    let socket = begin(&pod, repeated("goes", &["/tmp/true"], 0));
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(
        run(&mut client, "rm", &["busybox", "rm", "/tmp/true"]),
        Ran::quietly(0)
    );
    let said = answer(socket);
    assert!(
        said.contains("cannotRun") && said.contains("no such file or directory"),
        "{said}"
    );
    assert_eq!(client.refused(repeated("x", &[], 0)).code, FailureCode::Invalid);
    end(&mut client);
    assert_eq!(
        client.refused(repeated("x", &["true"], 0)).code,
        FailureCode::NotFound
    );
}

/// The bytes of the one answer on a connection.
fn answer(mut socket: UnixStream) -> String {
    let mut length = [0; 4];
    socket.read_exact(&mut length).unwrap();
    let mut text = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn it_ends_with_the_container_the_client_and_the_wish() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let slow = ["sh", "-c", "setsid sleep 1000 & sleep 1000"];
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    // Who asked has gone.
    let socket = begin(&pod, repeated("client", &slow, 0));
    wait_until("it runs", || shell_processes(&cgroup) == 3);
    drop(socket);
    wait_until("it is gone", || {
        shell_processes(&cgroup) == 1 && launchers(&pod, &mut client).is_empty()
    });
    // Who asked does not want it any more, while it runs and between two times.
    for (args, period, timeout) in [(&slow[..], 100, 0), (&["true"], u64::MAX, u64::MAX)] {
        let socket = begin(&pod, repeated_every(period, "wish", args, timeout));
        wait_until("it is repeated", || {
            !launchers(&pod, &mut client).is_empty() && (args.len() == 1 || shell_processes(&cgroup) == 3)
        });
        client.call(Request::KillExec { exec: "wish".into() });
        let said = answer(socket);
        assert!(said.contains("is gone"), "{said}");
        wait_until("it is gone", || {
            shell_processes(&cgroup) == 1 && launchers(&pod, &mut client).is_empty()
        });
    }
    // The container ends.
    let running = begin(&pod, repeated("running", &slow, 0));
    let waiting = begin(&pod, repeated("waiting", &["true"], 0));
    wait_until("it runs", || shell_processes(&cgroup) == 3);
    client.kill("a");
    client.exited("a");
    // Where the kill does not reach what repeats it too, the end of a command of that moment may be told first, or that none could
    // be started any more.
    for socket in [running, waiting] {
        let said = answer(socket);
        assert!(
            said.contains(r#"{"Err""#) || said.contains(r#""exit_code":137"#),
            "{said}"
        );
    }
    wait_until("nothing is left", || launchers(&pod, &mut client).is_empty());
    client.delete("a");
}

#[test]
fn it_ends_with_the_shim_and_when_it_is_killed_itself() {
    let mut pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let kill = |pid: i32| {
        let pid = nix::unistd::Pid::from_raw(pid);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    };
    let socket = begin(&pod, repeated("one", &["true"], 0));
    wait_until("it is repeated", || launchers(&pod, &mut client).len() == 1);
    kill(launchers(&pod, &mut client)[0]);
    let said = answer(socket);
    assert!(said.contains("is gone") && said.contains("internal"), "{said}");
    // The same id again: nothing is left of the first.
    let _socket = begin(&pod, repeated("one", &["true"], 0));
    wait_until("it is repeated", || launchers(&pod, &mut client).len() == 1);
    let repeater = launchers(&pod, &mut client)[0];
    kill(pod.record().pid);
    wait_until("it is gone", || !is_alive(repeater));
    pod.expect_leftovers();
}

#[test]
fn other_commands_are_run_meanwhile() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let socket = begin(&pod, repeated("r", &["sh", "-c", &counting(1000)], 0));
    let other = begin(&pod, repeated("other", &["true"], 0));
    warm_up(&mut client);
    let before = count(&mut client, "before");
    wait_until("it goes on", || count(&mut client, "after") > before + 3);
    assert_eq!(launchers(&pod, &mut client).len(), 3);
    drop((socket, other));
    wait_until("one launcher is left", || launchers(&pod, &mut client).len() == 1);
    end(&mut client);
}

/// The processes of commands begin in the memory of what repeats them, which must not fill with what they leave behind.
#[test]
fn what_repeats_a_command_does_not_grow() {
    let pod = Pod::start();
    let Some(mut client) = sleeper(&pod, |_| {}) else {
        return;
    };
    let script = "printf x >> /tmp/count";
    let _socket = begin(&pod, repeated_every(1, "r", &["sh", "-c", script], 0));
    wait_until("it is repeated", || launchers(&pod, &mut client).len() == 1);
    let repeater = launchers(&pod, &mut client)[0];
    let pages = || -> u64 {
        let statm = fs::read_to_string(format!("/proc/{repeater}/statm")).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    let mut ran = |times| {
        wait_until("it was repeated", || {
            // Each look is a command, too, and a machine may be slow.
            std::thread::sleep(Duration::from_millis(200));
            let ran = shell(
                &mut client,
                "count",
                "busybox wc -c < /tmp/count 2>/dev/null || echo 0",
            );
            ran.stdout.trim().parse::<u64>().unwrap() >= times
        });
    };
    ran(50);
    let before = pages();
    ran(450);
    let after = pages();
    // What stayed of each command would be more if it were only twenty bytes.
    assert!(
        after <= before + 1,
        "{before} pages after 50 times, {after} after 450"
    );
    end(&mut client);
}

/// Whoever enters a user namespace has every capability in its bounding set again.
#[test]
fn in_a_user_namespace_it_may_no_more_than_the_container() {
    let pod = Pod::start_in_user_namespace();
    let client = sleeper(&pod, |spec| {
        spec["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
        });
    });
    let Some(mut client) = client else { return };
    let script =
        "busybox grep -E '^(Uid|Gid|Cap|NoNewPrivs)' /proc/self/status; cat /proc/self/uid_map; exit 7";
    let wanted = run(&mut client, "first", &["sh", "-c", script]);
    assert!(
        wanted.stdout.contains("CapBnd:\t0000000000000021\n"),
        "{wanted:?}"
    );
    assert_eq!(run(&mut client, "second", &["sh", "-c", script]), wanted);
    assert_eq!(
        run_with(&mut client, repeated("r", &["sh", "-c", script], 0)),
        wanted
    );
    end(&mut client);
}
