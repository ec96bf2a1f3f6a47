//! The status of a pod reads as `kubectl get pod -o json` would show it.

use berth_tests::{Ended, Node, container, pod};
use serde_json::{Value, json};

/// Runs pods to their end and returns what `--output json` printed last.
fn last_status(node: &Node, manifest: &str) -> (Ended, Value) {
    let ended = node
        .run_with(&["--output", "json"], manifest)
        .wait()
        .expect_no_panic();
    let start = ended
        .output
        .find("\n{\n")
        .unwrap_or_else(|| panic!("no JSON:\n{}", ended.output));
    let mut values = serde_json::Deserializer::from_str(&ended.output[start..]).into_iter();
    let value = values.next().unwrap().unwrap();
    (ended, value)
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or_else(|| panic!("no {kind} in {all:#?}"))
}

#[test]
fn a_pod_that_succeeded() {
    let node = Node::new();
    let (ended, pod) = last_status(
        &node,
        &pod(
            "fine",
            json!({
                "restartPolicy": "Never",
                "initContainers": [container("prepare", &["true"], json!({}))],
                "containers": [container("main", &["echo", "done"], json!({
                    "resources": { "limits": { "cpu": "100m", "memory": "32Mi" } },
                }))],
            }),
        ),
    );
    ended.expect_code(0);
    let status = &pod["status"];
    assert_eq!(pod["kind"], "Pod");
    assert_eq!(status["phase"], "Succeeded");
    assert_eq!(condition(&pod, "Initialized")["status"], "True");
    assert_eq!(condition(&pod, "Ready")["status"], "False");
    assert_eq!(condition(&pod, "Ready")["reason"], "PodCompleted");
    assert_eq!(condition(&pod, "PodScheduled")["status"], "True");
    for (kind, name) in [
        ("initContainerStatuses", "prepare"),
        ("containerStatuses", "main"),
    ] {
        let container = &status[kind][0];
        assert_eq!(container["name"], name);
        assert_eq!(container["restartCount"], 0);
        let terminated = &container["state"]["terminated"];
        assert_eq!(
            (&terminated["exitCode"], &terminated["reason"]),
            (&json!(0), &json!("Completed")),
            "{container:#}"
        );
        let id = container["containerID"].as_str().unwrap();
        assert!(
            id.starts_with("berth://") && id.len() == "berth://".len() + 64,
            "{id}"
        );
        assert!(terminated["startedAt"].as_str().unwrap() <= terminated["finishedAt"].as_str().unwrap());
    }
    node.finish();
}

#[test]
fn a_pod_that_failed_twice() {
    let node = Node::new();
    let (ended, pod) = last_status(
        &node,
        &pod(
            "failed",
            json!({ "restartPolicy": "Never", "containers": [
        container("bad", &["exit", "9"], json!({})),
        container("hungry", &["allocate", "268435456"], json!({ "resources": { "limits": { "memory": "16Mi" } } })),
    ] }),
        ),
    );
    assert!(matches!(ended.code(), Some(9 | 137)), "{:?}", ended.status);
    assert_eq!(pod["status"]["phase"], "Failed");
    assert_eq!(pod["status"]["qosClass"], "Burstable");
    let all = pod["status"]["containerStatuses"].as_array().unwrap();
    let of = |name: &str| {
        let container = all.iter().find(|container| container["name"] == name).unwrap();
        &container["state"]["terminated"]
    };
    assert_eq!(
        (&of("bad")["exitCode"], &of("bad")["reason"]),
        (&json!(9), &json!("Error"))
    );
    assert_eq!(
        (&of("hungry")["exitCode"], &of("hungry")["reason"]),
        (&json!(137), &json!("OOMKilled"))
    );
    node.finish();
}

#[test]
fn the_termination_message_is_what_the_container_left() {
    let node = Node::new();
    let (ended, pod) = last_status(
        &node,
        &pod(
            "message",
            json!({ "restartPolicy": "Never", "containers": [
        container("file", &["run", "append", "/dev/termination-log", "last words", ";", "exit", "1"], json!({})),
        container("log", &["exit", "2", "logged words"], json!({
            "terminationMessagePolicy": "FallbackToLogsOnError",
        })),
    ] }),
        ),
    );
    assert_ne!(ended.code(), Some(0));
    let all = pod["status"]["containerStatuses"].to_string();
    assert!(
        all.contains("last words") && all.contains("logged words"),
        "{all}"
    );
    node.finish();
}

#[test]
fn restarts_are_counted_and_the_last_end_is_kept() {
    let node = Node::new();
    let (ended, pod) = last_status(
        &node,
        &pod(
            "count",
            json!({
                "restartPolicy": "OnFailure",
                "volumes": [{ "name": "data", "emptyDir": {} }],
                "containers": [container("main", &["run", "append", "/data/count", "x", ";", "checks", "file=/data/count:x\nx"], json!({
                    "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
                }))],
            }),
        ),
    );
    ended.expect_code(0);
    let container = &pod["status"]["containerStatuses"][0];
    assert_eq!(container["restartCount"], 1);
    assert_eq!(container["state"]["terminated"]["exitCode"], 0);
    assert_eq!(
        container["lastState"]["terminated"]["exitCode"], 1,
        "{container:#}"
    );
    node.finish();
}
