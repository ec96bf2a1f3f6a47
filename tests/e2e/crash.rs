//! `kill -9` of berth at any moment, then the same command again: the pod is adopted or cleaned up, and in the end nothing
//! is left. `BERTH_CRASH_ROUNDS` sets how many moments are tried (20).

use std::time::Duration;

use berth_tests::{Moments, Node, Running, container, crash_rounds, http_get, pod};
use serde_json::json;

/// The longest life of a berth that will be killed: past readiness of the pod.
const LONGEST: Duration = Duration::from_millis(1500);

/// An init container, a sidecar, a volume, a host port: something of everything that could be left.
fn manifest() -> String {
    let mounted = json!({ "volumeMounts": [{ "name": "www", "mountPath": "/www" }] });
    let mut sidecar = container(
        "clock",
        &["tick", "--file", "/www/time", "--replace", "t"],
        mounted.clone(),
    );
    sidecar["restartPolicy"] = json!("Always");
    let mut web = container(
        "web",
        &["httpd", "--port", "8080", "--dir", "/www"],
        mounted.clone(),
    );
    web["ports"] = json!([{ "containerPort": 8080, "hostPort": 8080 }]);
    web["readinessProbe"] = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    web["resources"] = json!({ "limits": { "cpu": "500m", "memory": "32Mi" } });
    pod(
        "crash",
        json!({
            "volumes": [{ "name": "www", "emptyDir": {} }],
            "initContainers": [container("page", &["write", "/www/index.html", "still here"], mounted), sidecar],
            "containers": [web],
        }),
    )
}

fn serves(pod: &Running) {
    assert_eq!(http_get((pod.address(), 8080), "/").body, "still here\n");
}

#[test]
fn killed_at_random_moments_it_leaves_nothing() {
    let node = Node::new();
    let mut moments = Moments::new();
    for round in 0..crash_rounds(20) {
        let berth = node.run(&manifest());
        let moment = moments.next(LONGEST);
        println!("round {round}: killed after {moment:?}");
        // The point of the test: an arbitrary instant, not a condition.
        std::thread::sleep(moment);
        berth.kill();
    }
    let last = node.run(&manifest());
    serves(&last);
    last.interrupt();
    last.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn a_running_pod_is_adopted_not_restarted() {
    let node = Node::new();
    let berth = node.run(&manifest());
    serves(&berth);
    let address = berth.address();
    let pids = |node: &Node| {
        let all = node.processes().into_iter();
        let mut pids: Vec<i32> = all
            .filter(|process| process.command.starts_with("httpd") || process.command.starts_with("tick"))
            .map(|process| process.pid)
            .collect();
        pids.sort_unstable();
        pids
    };
    let before = pids(&node);
    assert_eq!(before.len(), 2, "{:#?}", node.processes());
    berth.kill();
    assert_eq!(http_get((address, 8080), "/").body, "still here\n");
    let again = node.run(&manifest());
    assert_eq!(again.address(), address);
    serves(&again);
    assert_eq!(pids(&node), before);
    again.interrupt();
    again.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_killed_shim_takes_its_pod_along_and_the_pod_comes_back() {
    let node = Node::new();
    let berth = node.run(&manifest());
    serves(&berth);
    let mark = berth.mark();
    let shim = node
        .processes()
        .into_iter()
        .find(|process| process.command.contains("shim"))
        .unwrap();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(shim.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .unwrap();
    berth.log_after(mark, "web", "serving");
    berth.interrupt();
    berth.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn a_pod_that_was_taken_over_can_be_ended_at_once() {
    let node = Node::new();
    let berth = node.run(&manifest());
    serves(&berth);
    berth.kill();
    let last = node.run(&manifest());
    last.find(0, "its first line", |_| true);
    last.interrupt();
    last.wait().expect_code(0);
    node.finish();
}
