//! `berth image` and pulls: layouts, archives, registries.

use std::fs;

use berth_tests::{Ended, Layout, Node, Registry, Running, container, document, pod};
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

#[test]
fn a_pull_secret_opens_a_registry() {
    let node = Node::new();
    let registry = Registry::start(&node);
    registry.push(&layout(&node, "any"), "team/motto", "1");
    let registry = registry.protect(&node);
    let name = format!("{}/team/motto:1", Registry::HOST);
    let secret = |name: &str, password: &str| {
        let auths = json!({ "auths": { Registry::HOST: { "username": "someone", "password": password } } });
        document(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "type": "kubernetes.io/dockerconfigjson", "stringData": { ".dockerconfigjson": auths.to_string() },
        }))
    };
    let with = |secrets: Value| {
        pod(
            "secret",
            json!({
                "restartPolicy": "Never", "imagePullSecrets": secrets,
                "containers": [{ "name": "main", "image": name, "imagePullPolicy": "Always" }],
            }),
        )
    };
    let both = format!("{}{}", secret("wrong", "guess"), secret("right", "secret word"));
    // The right one does not have to be the first.
    node.run(&format!(
        "{both}{}",
        with(json!([{ "name": "wrong" }, { "name": "right" }]))
    ))
    .wait()
    .expect_code(0)
    .expect_log("main", "made by a test");
    let refused = node.run(&format!("{both}{}", with(json!([{ "name": "wrong" }]))));
    refused.line("The credentials do not allow it");
    refused.interrupt();
    let ended = refused.wait().expect_no_panic();
    assert!(!ended.output.contains("guess"), "{}", ended.output);
    registry.stop();
    node.finish();
}

#[test]
fn an_image_is_a_volume() {
    let node = Node::new();
    let registry = Registry::start(&node);
    registry.push(&layout(&node, "any"), "team/motto", "1");
    let name = format!("{}/team/motto:1", Registry::HOST);
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "files", "image": { "reference": name } }],
        "containers": [
            container(
                "main",
                &["run", "checks", "file=/files/motto:made by a test", "readonly=/files", ";", "checks", "file=/part/here:"],
                json!({ "volumeMounts": [
                    { "name": "files", "mountPath": "/files" },
                    { "name": "files", "mountPath": "/part", "subPath": "srv" },
                ]})
            ),
            container("other", &["true"], json!({})),
        ],
    });
    node.run(&pod("volume", spec))
        .wait()
        .expect_code(0)
        .expect_no_panic();
    registry.stop();
    // It is here now, and not asked for again.
    let missing = |reference: &str| {
        json!({
            "restartPolicy": "Never",
            "volumes": [{ "name": "files", "image": { "reference": reference, "pullPolicy": "Never" } }],
            "containers": [container("main", &["true"], json!({ "volumeMounts": [{ "name": "files", "mountPath": "/f" }] }))],
        })
    };
    node.run(&pod("there", missing(&name))).wait().expect_code(0);
    let waits = node.run(&pod("missing", missing("example.test/none:1")));
    waits.line("ErrImageNeverPull");
    waits.interrupt();
    waits.wait().expect_no_panic();
    node.finish();
}
