//! `berth logs`: which lines, of which containers, and for how long.

use berth_tests::{Node, Running, berth, container, pod};
use serde_json::json;

/// Fails at its first run and goes on for ever at its second.
fn restarting() -> String {
    let script = [
        "run",
        "append",
        "/data/runs",
        "x",
        ";",
        "echo",
        "a",
        "run",
        ";",
        "checks",
        "file=/data/runs:x\nx",
        ";",
        "tick",
    ];
    pod(
        "again",
        json!({
            "volumes": [{ "name": "data", "emptyDir": {} }],
            "containers": [container("main", &script, json!({
                "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
            }))],
        }),
    )
}

#[test]
fn followed_over_a_restart_and_over_the_death_of_who_runs_the_pod() {
    let node = Node::new();
    let pod = node.run(&restarting());
    pod.log("main", "FAIL file");
    let follower = Running::start(node.berth(["logs", "-f", "again"]), "");
    follower.line("ok file");
    pod.kill();
    // The shim writes on.
    let mark = follower.mark();
    follower.find(mark + 2, "lines of an ownerless pod", |_| true);
    berth(&node, &["stop", "again"]).expect_code(0);
    // Nothing can be written any more.
    follower.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn several_containers_are_told_apart_and_follow_to_their_end() {
    let node = Node::new();
    let pod = node.run(&pod(
        "two",
        json!({ "restartPolicy": "Never", "containers": [
            container("first", &["lines", "5", "40"], json!({})),
            container("second", &["run", "echo", "here", ";", "sleep", "inf"], json!({})),
        ]}),
    ));
    pod.log("second", "here");
    berth(&node, &["logs", "two", "--tail", "1"])
        .expect_code(0)
        .expect_output(&["Defaulted container \"first\" out of: first, second"]);
    let follower = Running::start(
        node.berth(["logs", "-f", "--prefix", "--all-containers", "two"]),
        "",
    );
    follower.line("[pod/two/second] here");
    follower.line("[pod/two/first]");
    // A container that is not to run again is at its end; the other goes on.
    berth(&node, &["logs", "-f", "two", "-c", "first"]).expect_code(0);
    pod.interrupt();
    pod.wait();
    follower.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let node = Node::new();
    let pod = node.run(&pod(
        "talker",
        json!({ "containers": [container("main", &["lines", "100000", "40"], json!({}))] }),
    ));
    pod.log("main", "00000002");
    let mut head = std::process::Command::new("sh");
    let berth = node.berth(["logs", "-f", "talker"]);
    let words: Vec<String> = std::iter::once(berth.get_program())
        .chain(berth.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    head.arg("-c").arg(format!("{} | head -n 3", words.join(" ")));
    Running::start(head, "").wait().expect_code(0);
    pod.interrupt();
    pod.wait();
    node.finish();
}
