//! A container's life as clients see it: created, started, ended, deleted; exit codes and signals.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use berth_shim::protocol::{ContainerStatus, Event, FailureCode, Request};
use support::{Pod, is_alive};

#[test]
fn a_container_runs_and_its_end_is_told_and_recorded() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let pid = client.create(pod.bundle("a", &["sh", "-c", "echo out; echo err >&2; exit 3"]));
    let state = client.state();
    assert_eq!(state.pause_pid, Some(pod.record().pause_pid));
    assert_eq!(state.containers.len(), 1);
    assert_eq!(
        (state.containers[0].pid, state.containers[0].status),
        (pid, ContainerStatus::Created)
    );
    client.start("a");
    let started = client.wait_for(|event| match event {
        Event::Started { container, at } => Some((container.clone(), *at)),
        _ => None,
    });
    assert_eq!(started.0, "a");
    let record = client.exited("a");
    assert_eq!(
        (record.exit_code, record.oom_killed, record.started_at),
        (3, false, started.1)
    );
    assert!(record.finished_at >= record.started_at);
    assert_eq!(pod.exit_record("a"), Some(record.clone()));
    assert_eq!(client.state().containers[0].exit, Some(record));
    assert_eq!(pod.logged("a", "stdout"), b"out\n");
    assert_eq!(pod.logged("a", "stderr"), b"err\n");
    client.delete("a");
    client.delete("a");
    assert!(client.state().containers.is_empty());
    assert_eq!(pod.exit_record("a"), None);
}

#[test]
fn signals_end_containers_with_128_and_their_number() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle(
        "term",
        &[
            "sh",
            "-c",
            "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ],
    ));
    client.start("term");
    support::wait_until("it handles signals", || {
        pod.logged("term", "stdout") == b"ready\n"
    });
    client.call(Request::Kill {
        container: "term".into(),
        signal: 15,
        all: false,
    });
    assert_eq!(client.exited("term").exit_code, 7);
    client.create(pod.bundle("kill", &["sleep", "1000"]));
    client.start("kill");
    client.kill("kill");
    assert_eq!(client.exited("kill").exit_code, 137);
    // Real-time signals too: some images are stopped by them.
    client.create(pod.bundle(
        "rt",
        &[
            "sh",
            "-c",
            "trap 'exit 9' 37; echo ready; while :; do sleep 0.05; done",
        ],
    ));
    client.start("rt");
    support::wait_until("it handles signals", || pod.logged("rt", "stdout") == b"ready\n");
    client.call(Request::Kill {
        container: "rt".into(),
        signal: 37,
        all: true,
    });
    assert_eq!(client.exited("rt").exit_code, 9);
    let nonsense = Request::Kill {
        container: "rt".into(),
        signal: 65,
        all: true,
    };
    assert_eq!(client.refused(nonsense).code, FailureCode::Invalid);
    // Too late is no error.
    client.kill("kill");
    let failure = client.refused(Request::Kill {
        container: "nobody".into(),
        signal: 9,
        all: true,
    });
    assert_eq!(failure.code, FailureCode::NotFound);
}

#[test]
fn a_program_that_can_not_run_leaves_a_record() {
    let pod = Pod::start();
    let mut client = pod.client();
    for (id, program, code) in [
        ("missing", "/bin/no-such-program", 127),
        ("denied", "/etc/not-a-program", 126),
    ] {
        client.create(pod.bundle(id, &[program]));
        let failure = client.refused(Request::Start { container: id.into() });
        assert_eq!(failure.code, FailureCode::CannotRun, "{}", failure.message);
        assert!(failure.message.contains(program), "{}", failure.message);
        assert_eq!(pod.exit_record(id).unwrap().exit_code, code);
        client.delete(id);
    }
}

#[test]
fn requests_in_the_wrong_state_are_refused() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let request = pod.bundle("a", &["sleep", "1000"]);
    client.create(request.clone());
    assert_eq!(
        client.refused(Request::Create(Box::new(request))).code,
        FailureCode::AlreadyExists
    );
    client.start("a");
    for request in [
        Request::Start {
            container: "a".into(),
        },
        Request::Delete {
            container: "a".into(),
        },
    ] {
        assert_eq!(client.refused(request).code, FailureCode::WrongState);
    }
    assert_eq!(
        client
            .refused(Request::Start {
                container: "b".into()
            })
            .code,
        FailureCode::NotFound
    );
    let mut escape = pod.bundle("x", &["true"]);
    escape.id = "../x".into();
    assert_eq!(
        client.refused(Request::Create(Box::new(escape))).code,
        FailureCode::Invalid
    );
    for hook in ["poststart", "poststop"] {
        let hooks = |spec: &mut serde_json::Value| {
            spec["hooks"] = serde_json::json!({ hook: [{ "path": "/bin/true" }] })
        };
        let failure = client.refused(Request::Create(Box::new(pod.bundle_with(hook, &["true"], hooks))));
        assert_eq!(failure.code, FailureCode::Invalid);
        assert!(failure.message.contains(hook), "{}", failure.message);
    }
    client.kill("a");
    client.exited("a");
}

#[test]
fn hooks_and_containers_begin_with_no_signal_blocked() {
    let pod = Pod::start();
    let seen = pod.dir().join("hook-status");
    let script = format!("exec cat /proc/self/status > {}", seen.display());
    let hooks = |spec: &mut serde_json::Value| {
        let hook = serde_json::json!({
            "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]
        });
        spec["hooks"] = serde_json::json!({ "createRuntime": [hook] });
    };
    let mut client = pod.client();
    client.subscribe();
    client.run(pod.bundle_with("a", &["cat", "/proc/self/status"], hooks));
    let hook = std::fs::read_to_string(&seen).unwrap();
    let container = String::from_utf8(pod.logged("a", "stdout")).unwrap();
    for status in [hook, container] {
        for mask in ["SigBlk", "SigIgn"] {
            let line = status.lines().find(|line| line.starts_with(mask));
            assert_eq!(line, Some(&*format!("{mask}:\t0000000000000000")), "{status}");
        }
    }
    std::fs::remove_file(seen).unwrap();
    client.delete("a");
}

#[test]
fn a_container_that_never_started_can_be_deleted() {
    let pod = Pod::start();
    let mut client = pod.client();
    let pid = client.create(pod.bundle("a", &["sleep", "1000"]));
    client.delete("a");
    assert!(!is_alive(pid));
    assert!(client.state().containers.is_empty());
}

#[test]
fn what_a_dead_container_left_running_is_killed() {
    let pod = Pod::start_with(|config| config.shared_pid = true);
    let mut client = pod.client();
    client.subscribe();
    let script = "setsid sh -c 'sleep 1000' & sleep 0.1; echo left";
    let record = client.run(pod.bundle("a", &["sh", "-c", script]));
    assert_eq!(record.exit_code, 0);
    assert_eq!(pod.logged("a", "stdout"), b"left\n");
    client.delete("a");
}

#[test]
fn an_update_changes_the_limits() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    client.create(pod.bundle("a", &["sleep", "1000"]));
    client.start("a");
    client.call(Request::Update {
        container: "a".into(),
        resources: serde_json::json!({ "pids": { "limit": 17 } }),
    });
    let limit = std::fs::read_to_string(format!("/sys/fs/cgroup/pids/{}/pids.max", pod.cgroup_of("a")))
        .or_else(|_| std::fs::read_to_string(format!("/sys/fs/cgroup/{}/pids.max", pod.cgroup_of("a"))));
    assert_eq!(limit.unwrap().trim(), "17");
    let nonsense = Request::Update {
        container: "a".into(),
        resources: serde_json::json!({ "pids": "many" }),
    };
    assert_eq!(client.refused(nonsense).code, FailureCode::Invalid);
    client.kill("a");
    client.exited("a");
}

#[test]
fn many_containers_run_at_once_and_each_end_is_told() {
    let pod = Pod::start();
    let mut client = pod.client();
    client.subscribe();
    let ids: Vec<String> = (0..25).map(|number| format!("c{number}")).collect();
    for (number, id) in ids.iter().enumerate() {
        let script = format!("i=0; while [ $i -lt 200 ]; do echo {id} $i; i=$((i+1)); done; exit {number}");
        client.create(pod.bundle(id, &["sh", "-c", &script]));
    }
    for id in &ids {
        client.start(id);
    }
    let mut ends = std::collections::BTreeMap::new();
    while ends.len() < ids.len() {
        if let Event::Exited(record) = client.client.event(support::PATIENCE).unwrap() {
            assert!(
                ends.insert(record.container.clone(), record.exit_code).is_none(),
                "told twice"
            );
        }
    }
    for (number, id) in ids.iter().enumerate() {
        assert_eq!(ends[id], i32::try_from(number).unwrap());
        let expected: String = (0..200).map(|i| format!("{id} {i}\n")).collect();
        assert_eq!(String::from_utf8(pod.logged(id, "stdout")).unwrap(), expected);
    }
}
