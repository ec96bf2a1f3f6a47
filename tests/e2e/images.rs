//! `berth image` and pulls: layouts, archives, registries.

use std::fs;

use berth_tests::{Ended, Layout, Node, Registry, Running, pod};
use serde_json::{Value, json};

fn image(node: &Node, arguments: &[&str]) -> Ended {
    let mut command = node.berth(["image"]);
    command.args(arguments);
    Running::start(command, "").wait().expect_no_panic()
}

fn layout(node: &Node, name: &str) -> Layout {
    let config = json!({
        "Entrypoint": ["/bin/berth-helper"], "Cmd": ["cat", "/motto"], "Env": ["PATH=/bin", "FROM=image"],
        "WorkingDir": "/srv", "User": "1234",
    });
    Layout::make(
        &node.scratch().join("layout"),
        name,
        config,
        &[("/motto", "made by a test\n"), ("/srv/here", "")],
    )
}

/// A pod of one container that runs once from an image.
fn run_once(name: &str, image: &str, more: Value) -> String {
    let mut container = json!({ "name": "main", "image": image, "imagePullPolicy": "IfNotPresent" });
    container
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    pod(
        name,
        json!({ "restartPolicy": "Never", "containers": [container] }),
    )
}

#[test]
fn an_archive_is_imported_listed_run_and_removed() {
    let node = Node::new();
    let layout = layout(&node, "example.test/motto:1");
    image(&node, &["import", layout.archive().to_str().unwrap()]).expect_code(0);
    image(&node, &["ls"])
        .expect_code(0)
        .expect_output(&["example.test/motto"]);
    image(&node, &["inspect", "example.test/motto:1"])
        .expect_code(0)
        .expect_output(&[&layout.config, "FROM=image"]);
    let manifest = run_once("motto", "example.test/motto:1", json!({}));
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "made by a test");
    image(&node, &["rm", "example.test/motto:1"]).expect_code(0);
    let ended = image(&node, &["ls"]).expect_code(0);
    assert!(!ended.output.contains("example.test/motto"), "{}", ended.output);
    node.finish();
}

#[test]
fn a_layout_directory_is_imported_and_its_configuration_counts() {
    let node = Node::new();
    let layout = layout(&node, "example.test/motto:2");
    image(&node, &["import", layout.directory.to_str().unwrap()]).expect_code(0);
    let what = ["uid=1234", "cwd=/srv", "env=FROM:image", "exists=here"];
    let args: Vec<&str> = ["checks"].iter().chain(&what).copied().collect();
    node.run(&run_once(
        "config",
        "example.test/motto:2",
        json!({ "args": args }),
    ))
    .wait()
    .expect_code(0);
    node.finish();
}

#[test]
fn a_damaged_layer_is_refused_and_leaves_nothing() {
    let node = Node::new();
    let layout = layout(&node, "example.test/motto:3");
    let blob = layout.blob(&layout.layer);
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let ended = image(&node, &["import", layout.directory.to_str().unwrap()]);
    assert_ne!(ended.code(), Some(0), "{}", ended.output);
    assert!(!image(&node, &["ls"]).output.contains("example.test/motto"));
    node.finish();
}

#[test]
fn two_pods_pull_an_image_once() {
    let node = Node::new();
    let registry = Registry::start(&node);
    let layout = layout(&node, "any");
    registry.push(&layout, "team/motto", "1");
    let name = format!("{}/team/motto:1", Registry::HOST);
    let manifest = format!(
        "{}{}",
        run_once("a", &name, json!({})),
        run_once("b", &name, json!({}))
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "made by a test");
    assert_eq!(
        registry.downloads(&layout.layer),
        1,
        "the layer was not downloaded exactly once"
    );
    node.run(&run_once("c", &name, json!({}))).wait().expect_code(0);
    assert_eq!(
        registry.downloads(&layout.layer),
        1,
        "the layer was downloaded again"
    );
    registry.stop();
    node.finish();
}

#[test]
fn pulls_go_by_tag_and_digest_and_name_what_is_missing() {
    let node = Node::new();
    let registry = Registry::start(&node);
    let layout = layout(&node, "any");
    registry.push(&layout, "motto", "1");
    let name = |suffix: &str| format!("{}/motto{suffix}", Registry::HOST);
    image(&node, &["pull", &name(":1")]).expect_code(0);
    image(&node, &["pull", &name(&format!("@{}", layout.manifest))]).expect_code(0);
    let ended = image(&node, &["pull", &name(":2")]);
    assert_ne!(ended.code(), Some(0));
    ended.expect_output(&[&name(":2")]);
    registry.stop();
    node.finish();
}

#[test]
fn an_image_in_use_or_missing_is_not_removed_silently() {
    let node = Node::new();
    let ended = image(&node, &["rm", "example.test/none:1"]);
    assert_ne!(ended.code(), Some(0));
    ended.expect_output(&["example.test/none:1"]);
    let ended = image(&node, &["inspect", "example.test/none:1"]);
    assert_ne!(ended.code(), Some(0));
    ended.expect_output(&["example.test/none:1"]);
    node.finish();
}
