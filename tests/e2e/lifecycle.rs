//! Hooks, order and grace.

use std::fs;
use std::time::{Duration, Instant};

use berth_tests::{Node, container, pod};
use serde_json::{Value, json};

/// A pod whose containers write to one log that outlives it.
fn with_journal(node: &Node, spec: Value) -> (String, std::path::PathBuf) {
    let directory = node.scratch().join("journal");
    fs::create_dir(&directory).unwrap();
    let mut spec = spec;
    spec["volumes"] = json!([{ "name": "journal", "hostPath": { "path": directory } }]);
    for kind in ["initContainers", "containers"] {
        for container in spec[kind].as_array_mut().into_iter().flatten() {
            container["volumeMounts"] = json!([{ "name": "journal", "mountPath": "/journal" }]);
        }
    }
    (pod("lifecycle", spec), directory.join("all"))
}

fn lines(journal: &std::path::Path) -> Vec<String> {
    fs::read_to_string(journal)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn hooks_run_after_the_start_and_before_the_stop() {
    let node = Node::new();
    let hook = |text: &str| json!({ "exec": { "command": ["append", "/journal/all", text] } });
    let (manifest, journal) = with_journal(
        &node,
        json!({ "containers": [
        container("main", &["run", "echo", "up", ";", "trap", "TERM", "--count", "1", "--file", "/journal/all"], json!({
            "lifecycle": { "postStart": hook("postStart"), "preStop": hook("preStop") },
            "readinessProbe": { "exec": { "command": ["exists", "/journal/all"] }, "periodSeconds": 1 },
        })),
    ] }),
    );
    let pod = node.run(&manifest);
    pod.log("main", "trapping");
    berth_tests::eventually("the postStart hook ran", || journal.exists().then_some(()));
    pod.interrupt();
    pod.wait().expect_code(0);
    let lines = lines(&journal);
    assert_eq!(lines[..2], ["postStart", "preStop"]);
    assert!(lines[2].starts_with("caught SIGTERM"), "{lines:?}");
    node.finish();
}

#[test]
fn a_failing_post_start_hook_kills() {
    let node = Node::new();
    let pod = node.run(&pod(
        "hook",
        json!({ "containers": [
        container("main", &["run", "echo", "up", ";", "sleep", "inf"], json!({
            "lifecycle": { "postStart": { "exec": { "command": ["false"] } } },
        })),
    ] }),
    ));
    pod.log("main", "SIGTERM: ending");
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn init_containers_and_sidecars_keep_their_order() {
    let node = Node::new();
    let note = |text: &str| json!(["append", "/journal/all", text]);
    let (manifest, journal) = with_journal(
        &node,
        json!({
            "restartPolicy": "Never",
            "initContainers": [
                container("first", &[], json!({ "command": note("first") })),
                container("sidecar", &["run", "append", "/journal/all", "sidecar", ";",
                    "trap", "TERM", "--count", "1", "--file", "/journal/all"], json!({
                    "restartPolicy": "Always",
                    "startupProbe": { "exec": { "command": ["exists", "/journal/all"] }, "periodSeconds": 1 },
                })),
                container("second", &[], json!({ "command": note("second") })),
            ],
            "containers": [container("main", &["run", "append", "/journal/all", "main", ";", "sleep", "1", ";",
                "append", "/journal/all", "main ends"], json!({}))],
        }),
    );
    node.run(&manifest).wait().expect_code(0);
    let lines = lines(&journal);
    assert_eq!(lines[0], "first");
    let place = |text: &str| {
        lines
            .iter()
            .position(|line| line.starts_with(text))
            .unwrap_or_else(|| panic!("{lines:?}"))
    };
    assert!(place("second") < place("main"), "{lines:?}");
    assert!(
        place("main ends") < place("caught SIGTERM"),
        "the sidecar must outlive the others: {lines:?}"
    );
    node.finish();
}

#[test]
fn a_stubborn_container_is_killed_after_its_grace_period() {
    let node = Node::new();
    let pod = node.run(&pod("stubborn", json!({
        "terminationGracePeriodSeconds": 3,
        "containers": [container("main", &["run", "echo", "up", ";", "sleep", "inf", "--stubborn"], json!({}))],
    })));
    pod.log("main", "up");
    pod.interrupt();
    let start = Instant::now();
    pod.wait().expect_code(0);
    assert!(start.elapsed() >= Duration::from_secs(2), "it had no grace");
    node.finish();
}

#[test]
fn a_second_ctrl_c_does_not_wait() {
    let node = Node::new();
    let pod = node.run(&pod("impatient", json!({
        "terminationGracePeriodSeconds": 3600,
        "containers": [container("main", &["run", "echo", "up", ";", "sleep", "inf", "--stubborn"], json!({}))],
    })));
    pod.log("main", "up");
    let mark = pod.mark();
    pod.interrupt();
    pod.find(mark, "that it is stopping", |line| {
        line.to_lowercase().contains("stop")
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn an_orphan_that_holds_the_log_open_does_not_hold_the_pod() {
    let node = Node::new();
    let manifest = pod(
        "orphan",
        json!({ "restartPolicy": "Never", "containers": [
        container("main", &["grandchild"], json!({})),
    ] }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "left");
    node.finish();
}
