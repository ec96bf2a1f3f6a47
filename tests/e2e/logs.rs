//! `berth logs`: which lines, of which containers, and for how long.

use berth_tests::{Node, Running, berth, container, document, pod};
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

/// Two pods with a label in one manifest, and one with another.
fn labelled() -> String {
    let labelled = |name: &str, app: &str| {
        document(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": app } },
            "spec": { "terminationGracePeriodSeconds": 2, "containers": [
                container("main", &["run", "lines", "12", "10", ";", "sleep", "inf"], json!({})),
                container("side", &["run", "echo", name, ";", "sleep", "inf"], json!({})),
            ]},
        }))
    };
    labelled("one", "web") + &labelled("two", "web") + &labelled("three", "db")
}

#[test]
fn pods_are_chosen_by_their_labels() {
    let node = Node::new();
    let pods = node.run(&labelled());
    for pod in ["one", "two", "three"] {
        pods.find(0, pod, |line| line.contains(pod) && line.contains("00000011"));
        pods.find(0, pod, |line| {
            line.contains("side") && line.ends_with(&format!("| {pod}"))
        });
    }
    let by_label = |more: &[&str]| berth(&node, &[&["logs", "-l", "app=web"], more].concat());
    // The last ten lines of each pod's first container, as with kubectl.
    let last = by_label(&["--prefix"]).expect_code(0);
    for pod in ["one", "two"] {
        let own = format!("[pod/{pod}/main] ");
        assert_eq!(
            last.output.lines().filter(|line| line.starts_with(&own)).count(),
            10,
            "{last:?}"
        );
    }
    assert!(!last.output.contains("pod/three"), "{last:?}");
    let all = by_label(&[
        "--prefix",
        "--all-containers",
        "--tail",
        "-1",
        "--limit-bytes",
        "5",
    ])
    .expect_code(0);
    assert!(all.output.contains("[pod/two/side] two"), "{all:?}");
    let follow = ["--follow", "--all-containers", "--max-log-requests"];
    by_label(&[&follow[..], &["3"]].concat())
        .expect_code(1)
        .expect_output(&["4 logs would be followed, and at most 3 are: --max-log-requests allows more."]);
    // What has used its bytes up is not followed any further.
    by_label(&[&follow[..], &["4", "--limit-bytes", "3"]].concat()).expect_code(0);
    // A container that only some of them have, or none: said, and the others' logs are printed.
    by_label(&["-c", "none"]).expect_output(&["Pod default/one has no container none; it has main, side."]);
    berth(&node, &["logs", "-l", "app=none"])
        .expect_code(0)
        .expect_output(&["No pod has such labels."]);
    berth(&node, &["logs", "one", "-l", "app=web"]).expect_code(2);
    pods.interrupt();
    pods.wait();
    node.finish();
}
