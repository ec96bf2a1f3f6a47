//! `berth apply` of what a running pod shows in its volumes.

use berth_tests::{Ended, Node, berth, container, document, eventually};
use serde_json::{Value, json};

fn apply(node: &Node, manifest: &str) -> Ended {
    let file = node.file("applied.yaml", manifest).display().to_string();
    berth(node, &["apply", &file])
}

fn config_map(name: &str, data: Value) -> String {
    document(&json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data }))
}

/// A pod that sleeps, with these volumes at `/NAME`, and what more it has.
fn sleeper(name: &str, volumes: Value, metadata: Value) -> String {
    let mounts: Vec<Value> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|volume| json!({ "name": volume["name"], "mountPath": format!("/{}", volume["name"].as_str().unwrap()) }))
        .collect();
    let mut metadata = metadata;
    metadata["name"] = json!(name);
    document(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "volumes": volumes,
            "containers": [container("main", &["sleep", "inf"], json!({ "volumeMounts": mounts }))],
        },
    }))
}

/// Whether the container of a pod finds this.
#[track_caller]
fn until(node: &Node, pod: &str, check: &str) {
    eventually(check, || {
        let ended = berth(node, &["exec", pod, "--", "checks", check]);
        (ended.code() == Some(0)).then_some(())
    });
}

fn container_id(node: &Node, pod: &str) -> String {
    let path = "jsonpath={.status.containerStatuses[0].containerID}";
    let output = node.berth(["inspect", pod, "-o", path]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn labels_and_annotations_in_volumes_follow_while_the_pod_runs() {
    let node = Node::new();
    let volumes = json!([
        { "name": "own", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "note", "fieldRef": { "fieldPath": "metadata.annotations['note']" } },
        ]}},
        { "name": "projected", "projected": { "sources": [{ "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        ]}}]}},
    ]);
    let manifest = |label: &str, note: &str| {
        let metadata = json!({ "labels": { "tier": label }, "annotations": { "note": note } });
        sleeper("shown", volumes.clone(), metadata)
    };
    let running = node.run(&manifest("front", "one"));
    running.line("main started");
    let before = container_id(&node, "shown");
    assert!(!before.is_empty());
    apply(&node, &manifest("back", "two"))
        .expect_code(0)
        .expect_output(&["pod/shown configured"]);
    until(&node, "shown", "file=/own/labels:tier=\"back\"");
    until(&node, "shown", "file=/own/note:two");
    until(&node, "shown", "file=/projected/labels:tier=\"back\"");
    assert_eq!(container_id(&node, "shown"), before);
    apply(&node, &manifest("back", "two"))
        .expect_code(0)
        .expect_output(&["pod/shown unchanged"]);
    running.interrupt();
    running.wait().expect_no_panic();
    node.finish();
}

#[test]
fn a_config_map_alone_changes_every_pod_that_names_it() {
    let node = Node::new();
    let volumes = json!([
        { "name": "words", "configMap": { "name": "words" } },
        { "name": "later", "configMap": { "name": "later", "optional": true } },
    ]);
    let other =
        json!([{ "name": "mixed", "projected": { "sources": [{ "configMap": { "name": "words" } }] } }]);
    let first = config_map("words", json!({ "word": "old" }));
    let foreground = node.run(&format!("{first}{}", sleeper("foreground", volumes, json!({}))));
    foreground.line("main started");
    let file = node.file(
        "second.yaml",
        &format!("{first}{}", sleeper("detached", other, json!({}))),
    );
    berth(&node, &["run", "-d", &file.display().to_string()]).expect_code(0);
    berth(&node, &["wait", "detached", "--for=condition=Ready"]).expect_code(0);
    let update = config_map("words", json!({ "word": "new" }));
    apply(&node, &update)
        .expect_code(0)
        .expect_output(&["configmap/words configured: pod default/detached, default/foreground"]);
    until(&node, "foreground", "file=/words/word:new");
    until(&node, "detached", "file=/mixed/word:new");
    apply(&node, &update)
        .expect_code(0)
        .expect_output(&["configmap/words unchanged"]);
    // One that may be missing comes, and goes with its keys.
    until(&node, "foreground", "absent=/later/late");
    apply(&node, &config_map("later", json!({ "late": "here" })))
        .expect_code(0)
        .expect_output(&["configmap/later configured: pod default/foreground"]);
    until(&node, "foreground", "file=/later/late:here");
    apply(&node, &config_map("later", json!({}))).expect_code(0);
    until(&node, "foreground", "absent=/later/late");
    // Nothing would keep this one.
    apply(&node, &config_map("nobody-s", json!({})))
        .expect_code(1)
        .expect_output(&["configmap/nobody-s: no pod that runs names it"]);
    berth(&node, &["rm", "--force", "detached"]).expect_code(0);
    foreground.interrupt();
    foreground.wait().expect_no_panic();
    eventually("the daemon ends", || {
        let lock = node.daemon_lock();
        (!lock.exists()).then_some(())
    });
    node.finish();
}

#[test]
fn a_pod_in_the_foreground_follows_its_file() {
    let node = Node::new();
    let manifest = |word: &str, more: Value| {
        let volumes = json!([{ "name": "words", "configMap": { "name": "words" } }]);
        let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "words" }, "data": { "word": word } });
        let mut map = map;
        map.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        format!("{}{}", document(&map), sleeper("foreground", volumes, json!({})))
    };
    let running = node.run(&manifest("old", json!({})));
    running.line("main started");
    apply(&node, &manifest("new", json!({ "immutable": true })))
        .expect_code(0)
        .expect_output(&["pod/foreground configured"]);
    until(&node, "foreground", "file=/words/word:new");
    apply(&node, &manifest("newer", json!({ "immutable": true })))
        .expect_code(1)
        .expect_output(&["ConfigMap words is immutable"]);
    // What can't be changed in place needs whoever began it.
    let volumes = json!([{ "name": "empty", "emptyDir": {} }]);
    apply(&node, &sleeper("foreground", volumes, json!({})))
        .expect_code(1)
        .expect_output(&["but a `berth run` in the foreground has it: stop it, and run it again"]);
    running.interrupt();
    running.wait().expect_no_panic();
    node.finish();
}
