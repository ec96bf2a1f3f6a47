//! `berth image` and pulls: layouts, archives, registries.

use std::fs;

use berth_tests::{Ended, Layout, Node, Registry, Running, container, document, eventually, pod};
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
fn the_image_inside_berth_needs_no_registry_whatever_the_policy() {
    let node = Node::new();
    // As it is without a policy, for a tag that is `latest`.
    let main = json!({ "name": "main", "image": berth_tests::HELPER, "imagePullPolicy": "Always", "command": ["true"] });
    let manifest = pod(
        "always",
        json!({ "restartPolicy": "Never", "containers": [main] }),
    );
    node.run(&manifest).wait().expect_code(0);
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
    for verb in ["rm", "inspect"] {
        let ended = image(&node, &[verb, "example.test/none:1"]);
        assert_ne!(ended.code(), Some(0));
        let expected =
            "berth: There is no image example.test/none:1; `berth image ls` lists those there are.";
        assert_eq!(ended.output, expected);
    }
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

/// An image of that name, with a layer of its own that has `bytes` bytes beside the helper.
fn sized(node: &Node, name: &str, bytes: usize) {
    let config = json!({ "Entrypoint": ["/bin/berth-helper"], "Env": ["PATH=/bin"] });
    // No two names have the same text, so no two images have the same layer.
    let text = format!("{name}\n").repeat(bytes / (name.len() + 1));
    let directory = node.scratch().join(name.replace([':', '/'], "-"));
    let layout = Layout::make(&directory, name, config, &[("/ballast", &text)]);
    image(node, &["import", layout.directory.to_str().unwrap()]).expect_code(0);
    fs::remove_dir_all(directory).unwrap();
}

/// A pod that keeps an image in use.
fn keeper(image: &str) -> String {
    let container = json!({
        "name": "main", "image": image, "imagePullPolicy": "Never",
        "args": ["run", "echo", "up", ";", "sleep", "inf"],
    });
    pod("keeper", json!({ "containers": [container] }))
}

#[test]
fn prune_takes_what_no_container_uses() {
    let node = Node::new();
    sized(&node, "example.test/used:1", 1000);
    sized(&node, "example.test/unused:1", 100_000);
    let pod = node.run(&keeper("example.test/used:1"));
    pod.log("main", "up");
    let nothing = |arguments: &[&str]| {
        let ended = image(&node, arguments).expect_code(0);
        assert_eq!(ended.output.lines().last(), Some("freed 0B"), "{}", ended.output);
    };
    nothing(&["prune"]);
    nothing(&["prune", "--all", "--older-than", "1h"]);
    for _ in 0..2 {
        let said = image(&node, &["prune", "--all", "--dry-run"]).expect_code(0);
        let lines: Vec<&str> = said.output.lines().collect();
        assert!(
            lines.len() == 2
                && lines[0].starts_with("would delete ")
                && lines[0].contains(" example.test/unused:1 (")
                && lines[1].starts_with("would free "),
            "{lines:#?}"
        );
    }
    image(&node, &["prune", "--all"])
        .expect_code(0)
        .expect_output(&["deleted ", " example.test/unused:1 ("]);
    nothing(&["prune", "--all"]);
    pod.interrupt();
    pod.wait().expect_code(0);
    image(&node, &["prune", "-a"])
        .expect_code(0)
        .expect_output(&[" example.test/used:1 ("]);
    // What comes with berth stays.
    image(&node, &["ls"])
        .expect_code(0)
        .expect_output(&["berth.local/helper"]);
    image(&node, &["prune", "--older-than", "soon"]).expect_code(2);
    node.finish();
}

/// How full the node's disk is, in percent.
fn used_percent(node: &Node) -> u64 {
    let disk = nix::sys::statvfs::statvfs(node.root()).unwrap();
    100 - 100 * disk.blocks_available() / disk.blocks()
}

#[test]
fn a_daemon_removes_unused_images_when_the_disk_gets_full() {
    const IMAGE: usize = 8 << 20;
    let helper = fs::metadata(berth_tests::program("berth-helper")).unwrap().len();
    let each = helper + IMAGE as u64;
    // Ten images and the built-in one.
    let node = Node::with_disk(each * 10 + helper);
    sized(&node, "example.test/used:1", IMAGE);
    let pod = node.run(&keeper("example.test/used:1"));
    pod.log("main", "up");
    let mut count = 0;
    while used_percent(&node) < 85 {
        count += 1;
        sized(&node, &format!("example.test/filler:{count}"), IMAGE);
    }
    let daemon = |more: &[&str]| {
        let mut command = node.berth(["daemon"]);
        command.args(more);
        Running::start(command, "")
    };
    // A line for each.
    let names = || format!("{}\n", image(&node, &["ls", "-o", "name"]).expect_code(0).output);
    // All of them are too young for it.
    let young = daemon(&[]);
    young.line("only 0 of");
    young.signal(nix::sys::signal::Signal::SIGTERM);
    young.wait().expect_no_panic();
    assert!(names().contains("example.test/filler:1\n"), "{}", names());
    let old = daemon(&["--image-minimum-gc-age", "0"]);
    old.line("removed image example.test/filler:1,");
    eventually("there is room again", || {
        (used_percent(&node) <= 80).then_some(())
    });
    old.signal(nix::sys::signal::Signal::SIGTERM);
    let ended = old.wait().expect_no_panic();
    let left = names();
    assert!(
        !left.contains("example.test/filler:1\n"),
        "{left}\n{}",
        ended.output
    );
    for stays in [
        "example.test/used:1",
        &format!("example.test/filler:{count}"),
        "berth.local/helper",
    ] {
        assert!(left.contains(stays), "{stays} is not in {left}\n{}", ended.output);
    }
    pod.interrupt();
    pod.wait().expect_code(0);
    let thresholds = [
        "--image-gc-high-threshold",
        "50",
        "--image-gc-low-threshold",
        "60",
    ];
    daemon(&thresholds)
        .wait()
        .expect_code(1)
        .expect_output(&["must be less than"]);
    node.finish();
}
