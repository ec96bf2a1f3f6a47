//! More processes in a running container: their streams, their ends, and killing all that they started.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;
use std::io::{Read, Write};

use berth_runtime::cgroups::Cgroup;
use berth_shim::protocol::{FailureCode, Request, Response};
use support::{Pod, TestClient, exec_request, is_alive, wait_until};

fn sleeper(pod: &Pod) -> TestClient {
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sleep", "1000"]));
    client.start("a");
    client
}

fn end(client: &mut TestClient) {
    client.kill("a");
    client.exited("a");
    client.delete("a");
}

#[test]
fn an_exec_has_its_own_streams_and_exit_code() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let mut pipes = client.exec(
        "a",
        "one",
        &["sh", "-c", "echo out; echo err >&2; hostname; exit 5"],
        0,
    );
    let (mut out, mut err) = (String::new(), String::new());
    pipes.stdout.read_to_string(&mut out).unwrap();
    pipes.stderr.read_to_string(&mut err).unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("out\npod\n", "err\n"));
    assert_eq!(client.exec_exited("one"), (5, false));
    assert!(pod.log("a").is_empty(), "an exec's output is not the container's");
    end(&mut client);
}

#[test]
fn a_timeout_kills_the_whole_tree() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let script = "setsid sh -c 'echo $PPID; exec sleep 1000' & (sleep 1000 &); sleep 1000";
    let mut pipes = client.exec("a", "slow", &["sh", "-c", script], 300);
    assert_eq!(client.exec_exited("slow"), (137, true));
    // The end of the output: nobody is left to write, whatever session it was in.
    pipes.stdout.read_to_end(&mut Vec::new()).unwrap();
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    wait_until("only the container's own process is left", || {
        cgroup.pids().unwrap().len() == 1
    });
    end(&mut client);
}

#[test]
fn what_an_exec_left_running_can_still_be_killed() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let mut pipes = client.exec("a", "bg", &["sh", "-c", "setsid sleep 1000 & echo started"], 0);
    assert_eq!(client.exec_exited("bg"), (0, false));
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    assert_eq!(cgroup.pids().unwrap().len(), 2);
    client.call(Request::KillExec { exec: "bg".into() });
    let mut out = String::new();
    pipes.stdout.read_to_string(&mut out).unwrap();
    assert_eq!(out, "started\n");
    wait_until("it is dead", || cgroup.pids().unwrap().len() == 1);
    let mut rounds = 0;
    wait_until("it is forgotten", || {
        rounds += 1;
        // A new exec takes the opportunity to tidy up.
        let id = format!("tidy-{}", rounds);
        client.exec("a", &id, &["true"], 0);
        client.exec_exited(&id);
        client
            .client
            .call(Request::KillExec { exec: "bg".into() }, vec![])
            .is_err()
    });
    end(&mut client);
}

#[test]
fn a_terminal_comes_back_with_the_reply() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let request = exec_request("a", "tty", &["sh", "-c", "read go; stty size; exit 4"], 0, true);
    let (response, mut fds) = client.call_with(request, vec![]);
    assert!(matches!(response, Response::ExecStarted { .. }));
    let mut master = File::from(fds.pop().expect("the terminal's master"));
    client.call(Request::Resize {
        id: "tty".into(),
        width: 132,
        height: 43,
    });
    master.write_all(b"go\n").unwrap();
    let mut output = Vec::new();
    // The end of a terminal is an error.
    let _ = master.read_to_end(&mut output);
    let output = String::from_utf8(output).unwrap();
    assert!(output.contains("43 132"), "{output:?}");
    assert_eq!(client.exec_exited("tty"), (4, false));
    end(&mut client);
}

#[test]
fn a_client_that_goes_hangs_up_its_terminal() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let (_, fds) = client.call_with(exec_request("a", "tty", &["sleep", "1000"], 0, true), vec![]);
    drop(fds);
    assert_eq!(client.exec_exited("tty"), (129, false));
    end(&mut client);
}

#[test]
fn execs_end_with_the_client_that_asked_for_them() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let mut other = pod.client();
    other.subscribe();
    other.exec("a", "bg", &["sh", "-c", "setsid sleep 1000 &"], 0);
    other.exec_exited("bg");
    // Without the last word some shells execute the last command in their own place.
    other.exec(
        "a",
        "one",
        &["sh", "-c", "sleep 1000 & setsid sleep 1000; true"],
        0,
    );
    client.exec("a", "mine", &["sleep", "1000"], 0);
    let cgroup = Cgroup::open(&pod.cgroup_of("a")).unwrap().unwrap();
    let processes = || cgroup.pids().unwrap().len();
    wait_until("all of them run", || processes() == 6);
    drop(other);
    // What it was told of the end of, and what others asked for, goes on.
    wait_until("its command is gone with all that it started", || {
        processes() == 3
    });
    client.call(Request::KillExec { exec: "mine".into() });
    assert_eq!(client.exec_exited("one"), (137, false));
    assert_eq!(client.exec_exited("mine"), (137, false));
    end(&mut client);
}

#[test]
fn what_can_not_run_says_so() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    let null = || {
        std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap()
            .into()
    };
    for (id, program, wanted) in [
        ("x", "/bin/no-such", FailureCode::CannotRun),
        ("y", "/etc/not-a-program", FailureCode::CannotRun),
    ] {
        let request = exec_request("a", id, &[program], 0, false);
        match client.client.call(request, vec![null(), null(), null()]) {
            Err(berth_shim::client::ClientError::Refused(failure)) => {
                assert_eq!(failure.code, wanted, "{}", failure.message)
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        client.refused(exec_request("a", "z", &["true"], 0, false)).code,
        FailureCode::Invalid
    );
    assert_eq!(
        client.refused(exec_request("b", "z", &["true"], 0, true)).code,
        FailureCode::NotFound
    );
    assert_eq!(
        client.refused(Request::KillExec { exec: "z".into() }).code,
        FailureCode::NotFound
    );
    client.kill("a");
    client.exited("a");
    assert_eq!(
        client.refused(exec_request("a", "z", &["true"], 0, true)).code,
        FailureCode::WrongState
    );
}

#[test]
fn an_exec_dies_with_its_container() {
    let pod = Pod::start();
    let mut client = sleeper(&pod);
    client.exec("a", "e", &["sleep", "1000"], 0);
    client.kill("a");
    let mut ends = (None, None);
    while ends.0.is_none() || ends.1.is_none() {
        match client.client.event(support::PATIENCE).unwrap() {
            berth_shim::protocol::Event::Exited(record) => ends.0 = Some(record.exit_code),
            berth_shim::protocol::Event::ExecExited { exit_code, .. } => ends.1 = Some(exit_code),
            _ => {}
        }
    }
    assert_eq!(ends, (Some(137), Some(137)));
    client.delete("a");
    assert!(is_alive(pod.record().pid));
}
