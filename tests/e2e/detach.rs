//! `berth run --detach`: pods that a daemon runs, which is there as long as they are.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use berth_tests::{Ended, Node, Running, berth, container, eventually, pod};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

fn detach(node: &Node, manifest: &str) -> Ended {
    let file = node.file("detached.yaml", manifest);
    berth(node, &["run", "--detach", &file.display().to_string()])
}

fn daemon(node: &Node) -> Option<Pid> {
    let lock = node.daemon_lock();
    fs::read_to_string(lock).ok()?.parse().ok().map(Pid::from_raw)
}

/// A pod that counts its starts in a volume, and has a Secret in its environment.
fn counter(name: &str) -> String {
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "word" }, "stringData": { "word": "xyzzy" } });
    let more = json!({
        "env": [{ "name": "WORD", "valueFrom": { "secretKeyRef": { "name": "word", "key": "word" } } }],
    });
    let script = ["run", "env", ";", "sleep", "inf"];
    let counter = pod(name, json!({ "containers": [container("main", &script, more)] }));
    format!("{}{counter}", berth_tests::document(&secret))
}

fn until_running(node: &Node, name: &str) {
    eventually("the pod runs", || {
        let table = berth(node, &["ps"]).output;
        table
            .lines()
            .any(|line| line.contains(name) && line.contains("Running") && line.contains("daemon"))
            .then_some(())
    });
}

fn finish(node: Node) {
    eventually("the daemon ends with its last pod", || {
        daemon(&node).is_none().then_some(())
    });
    node.finish();
}

#[test]
fn a_detached_pod_outlives_its_command_and_the_daemon_goes_with_the_last_pod() {
    let node = Node::new();
    detach(&node, &counter("first"))
        .expect_code(0)
        .expect_output(&["pod/first created"]);
    detach(&node, &counter("first"))
        .expect_code(0)
        .expect_output(&["pod/first unchanged"]);
    detach(&node, &counter("second")).expect_code(0);
    until_running(&node, "first");
    until_running(&node, "second");
    let group = fs::read_to_string(format!("/proc/{}/cgroup", daemon(&node).unwrap())).unwrap();
    assert!(group.contains("/berth-daemon"), "{group}");
    berth(&node, &["exec", "first", "--", "true"]).expect_code(0);
    berth(&node, &["stop", "first"]).expect_code(0);
    assert!(daemon(&node).is_some());
    // Another manifest of the same name is not taken for it.
    let other = counter("second")
        .replace("xyzzy", "plugh")
        .replace("\"inf\"", "\"1000\"");
    detach(&node, &other)
        .expect_code(1)
        .expect_output(&["berth apply"]);
    berth(&node, &["stop", "--all"]).expect_code(0);
    finish(node);
}

#[test]
fn a_killed_daemon_leaves_pods_running_and_the_next_command_takes_over() {
    let node = Node::new();
    detach(&node, &counter("stays")).expect_code(0);
    until_running(&node, "stays");
    let first = daemon(&node).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    eventually("it is dead", || {
        berth(&node, &["ps"]).output.contains("nobody").then_some(())
    });
    berth(&node, &["exec", "stays", "--", "exit", "3"]).expect_code(3);
    until_running(&node, "stays");
    assert_ne!(daemon(&node).unwrap(), first);
    // The new one knows the Secret.
    berth(&node, &["restart", "stays", "main"])
        .expect_code(0)
        .expect_output(&["main"]);
    eventually("the restarted container has its environment", || {
        let log = berth(&node, &["logs", "stays"]).output;
        (log.contains("WORD=xyzzy") && berth(&node, &["logs", "-p", "stays"]).code() == Some(0)).then_some(())
    });
    // Killed in the middle of a deletion, the pod does not come back.
    berth(&node, &["stop", "--no-wait", "stays"]).expect_code(0);
    if let Some(second) = daemon(&node) {
        let _ = kill(second, Signal::SIGKILL);
    }
    eventually("nothing is left of it", || {
        berth(&node, &["stop", "stays"]);
        let table = berth(&node, &["ps", "-a"]).output;
        (!table.contains("stays")).then_some(())
    });
    let service = Running::start(node.berth(["daemon"]), "");
    service.line("started");
    assert!(!berth(&node, &["ps", "-a"]).output.contains("stays"));
    service.signal(Signal::SIGTERM);
    service.wait().expect_code(0);
    finish(node);
}

/// A service that is started while another daemon has pods waits, and takes them up where they are.
#[test]
fn a_service_follows_the_daemon_that_was_faster() {
    let node = Node::new();
    detach(&node, &counter("stays")).expect_code(0);
    until_running(&node, "stays");
    let id = || {
        berth(
            &node,
            &[
                "inspect",
                "stays",
                "-o",
                "jsonpath={.status.containerStatuses[0].containerID}",
            ],
        )
        .output
    };
    let (before, first) = (id(), daemon(&node).unwrap());
    let manager = node.scratch().join("notify");
    let told = UnixDatagram::bind(&manager).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut command = node.berth(["daemon"]);
    command.env("NOTIFY_SOCKET", &manager);
    let service = Running::start(command, "");
    service.line(&format!("process {first} is the daemon"));
    let mut words = [0; 64];
    let count = told.recv(&mut words).unwrap();
    assert_eq!(&words[..count], b"READY=1");
    drop(told);
    kill(first, Signal::SIGTERM).unwrap();
    eventually("the service has the pod", || {
        daemon(&node).filter(|now| *now != first).map(|_| ())
    });
    until_running(&node, "stays");
    assert_eq!(id(), before);
    berth(&node, &["rm", "--force", "stays"]).expect_code(0);
    service.signal(Signal::SIGTERM);
    service.wait().expect_code(0);
    finish(node);
}

#[test]
fn what_ended_stays_until_it_is_removed() {
    let node = Node::new();
    let manifest = pod(
        "job",
        json!({ "restartPolicy": "Never", "containers": [container("main", &["echo", "done"], json!({}))] }),
    );
    detach(&node, &manifest).expect_code(0);
    let listed = eventually("it is done", || {
        let table = berth(&node, &["ps", "-a"]).output;
        table.contains("Completed").then_some(table)
    });
    assert!(listed.contains("job"));
    assert!(!berth(&node, &["ps"]).output.contains("job"));
    berth(&node, &["logs", "job"])
        .expect_code(0)
        .expect_output(&["done"]);
    berth(&node, &["events", "job"])
        .expect_code(0)
        .expect_output(&["Started container main", "Pod is Succeeded"]);
    berth(&node, &["rm", "job"]).expect_code(0);
    finish(node);
}

#[test]
fn running_pods_are_removed_by_force_only() {
    let node = Node::new();
    detach(&node, &counter("runs")).expect_code(0);
    until_running(&node, "runs");
    let follower = Running::start(node.berth(["events", "-f", "runs"]), "");
    follower.line("Started container main");
    berth(&node, &["rm", "runs"])
        .expect_code(1)
        .expect_output(&["berth stop"]);
    berth(&node, &["rm", "--force", "runs"]).expect_code(0);
    follower.interrupt();
    follower.wait();
    finish(node);
}

/// A daemon that begins while another process has a pod for a moment takes it up later, and does not end before.
#[test]
fn a_daemon_waits_for_a_pod_that_another_process_has() {
    let node = Node::new();
    detach(&node, &counter("held")).expect_code(0);
    until_running(&node, "held");
    let first = daemon(&node).unwrap();
    kill(first, Signal::SIGKILL).unwrap();
    let lock = node
        .root()
        .join("var/lib/berth/kubelet/pod-locks/default_held.lock");
    let held = fs::File::options().write(true).open(lock).unwrap();
    eventually("the killed daemon has let it go", || held.try_lock().ok());
    berth(&node, &["daemon", "--background"]).expect_code(0);
    let log = node.root().join("var/log/berth/daemon.log");
    eventually("the daemon waits", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.contains("another process has pod").then_some(())
    });
    assert_ne!(daemon(&node).unwrap(), first);
    drop(held);
    until_running(&node, "held");
    berth(&node, &["stop", "held"]).expect_code(0);
    finish(node);
}
