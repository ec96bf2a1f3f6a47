//! Volumes: who sees which files, with which rights.

use std::fs;

use berth_tests::{Node, container, document, pod};
use serde_json::{Value, json};

fn run_to_success(node: &Node, volumes: Value, containers: Value) {
    let spec = json!({ "restartPolicy": "Never", "volumes": volumes, "containers": containers });
    node.run(&pod("volumes", spec))
        .wait()
        .expect_code(0)
        .expect_no_panic();
}

#[test]
fn an_empty_dir_is_shared_and_goes_with_the_pod() {
    let node = Node::new();
    let mounted = |read_only: bool| {
        json!({
            "volumeMounts": [{ "name": "data", "mountPath": "/data", "readOnly": read_only }],
        })
    };
    run_to_success(
        &node,
        json!([{ "name": "data", "emptyDir": {} }]),
        json!([
            container("writer", &["write", "/data/word", "hello"], mounted(false)),
            container(
                "reader",
                &[
                    "run",
                    "wait-file",
                    "/data/word",
                    "--timeout",
                    "30",
                    ";",
                    "checks",
                    "file=/data/word:hello",
                    "readonly=/data"
                ],
                mounted(true)
            ),
        ]),
    );
    node.finish();
}

#[test]
fn an_empty_dir_in_memory_is_a_tmpfs_of_its_size() {
    let node = Node::new();
    let spec = json!({
        "restartPolicy": "Never",
        "volumes": [{ "name": "ram", "emptyDir": { "medium": "Memory", "sizeLimit": "1Mi" } }],
        "containers": [container("main", &["run", "checks", "writable=/ram", ";", "mounts"], json!({
            "volumeMounts": [{ "name": "ram", "mountPath": "/ram" }],
        }))],
    });
    let ended = node.run(&pod("memory", spec)).wait().expect_code(0);
    let mount = ended.output.lines().find(|line| line.contains(" /ram ")).unwrap();
    assert!(
        mount.contains("- tmpfs") && mount.contains("size=1024k"),
        "{mount}"
    );
    node.finish();
}

#[test]
fn host_paths_are_the_host_s() {
    let node = Node::new();
    fs::create_dir(node.scratch().join("there")).unwrap();
    fs::write(node.scratch().join("there/word"), "from the host").unwrap();
    run_to_success(
        &node,
        json!([
            { "name": "there", "hostPath": { "path": node.scratch().join("there"), "type": "Directory" } },
            { "name": "made", "hostPath": { "path": node.scratch().join("made"), "type": "DirectoryOrCreate" } },
        ]),
        json!([container(
            "main",
            &[
                "run",
                "checks",
                "file=/there/word:from the host",
                ";",
                "write",
                "/made/word",
                "from inside"
            ],
            json!({ "volumeMounts": [
                { "name": "there", "mountPath": "/there" }, { "name": "made", "mountPath": "/made" },
            ] })
        ),]),
    );
    assert_eq!(
        fs::read_to_string(node.scratch().join("made/word")).unwrap(),
        "from inside\n"
    );
    node.finish();
}

#[test]
fn a_host_path_of_the_wrong_type_is_named() {
    let node = Node::new();
    let missing = node.scratch().join("missing");
    let pod = node.run(&pod("wrong", json!({
        "volumes": [{ "name": "v", "hostPath": { "path": missing, "type": "Directory" } }],
        "containers": [container("main", &["true"], json!({ "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }))],
    })));
    pod.line(&missing.display().to_string());
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn config_maps_and_secrets_are_files() {
    let node = Node::new();
    let manifest = [
        document(
            &json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" },
            "data": { "a.conf": "alpha", "b.conf": "beta" } }),
        ),
        document(
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" },
            "stringData": { "key": "hush" } }),
        ),
        pod(
            "files",
            json!({
                "restartPolicy": "Never",
                "volumes": [
                    { "name": "all", "configMap": { "name": "c" } },
                    { "name": "one", "configMap": { "name": "c", "items": [{ "key": "b.conf", "path": "sub/renamed" }] } },
                    { "name": "secret", "secret": { "secretName": "s", "defaultMode": 256 } },
                ],
                "containers": [container("main", &["run",
                    "checks", "file=/all/a.conf:alpha", "file=/all/b.conf:beta", "file=/one/sub/renamed:beta",
                    "absent=/one/b.conf", "file=/secret/key:hush", "file=/etc/single.conf:alpha", "readonly=/all", ";",
                    "ls", "/secret/..data/"],
                    json!({ "volumeMounts": [
                        { "name": "all", "mountPath": "/all" }, { "name": "one", "mountPath": "/one" },
                        { "name": "secret", "mountPath": "/secret" },
                        { "name": "all", "mountPath": "/etc/single.conf", "subPath": "a.conf" },
                    ] }))],
            }),
        ),
    ];
    let ended = node.run(&manifest.concat()).wait().expect_code(0);
    let key = ended
        .output
        .lines()
        .find(|line| line.contains("/secret/..data/key"))
        .unwrap();
    assert!(key.contains("- 0400"), "{key}");
    node.finish();
}

#[test]
fn the_secret_s_text_is_nowhere_in_what_berth_prints() {
    let node = Node::new();
    let manifest = [
        document(
            &json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" },
            "stringData": { "key": "very-hush-hush" } }),
        ),
        pod(
            "quiet",
            json!({ "restartPolicy": "Never", "containers": [container("main", &["true"], json!({
            "env": [{ "name": "K", "valueFrom": { "secretKeyRef": { "name": "s", "key": "key" } } }],
        }))] }),
        ),
    ];
    let ended = node.run(&manifest.concat()).wait().expect_code(0);
    assert!(!ended.output.contains("very-hush-hush"), "{}", ended.output);
    node.finish();
}

#[test]
fn a_mount_can_be_read_only_with_all_that_is_mounted_below_it() {
    let node = Node::new();
    run_to_success(
        &node,
        json!([{ "name": "devices", "hostPath": { "path": "/dev" } }]),
        json!([container(
            "main",
            &["checks", "readonly=/host/dev", "readonly=/host/dev/shm"],
            json!({ "volumeMounts": [
                { "name": "devices", "mountPath": "/host/dev", "readOnly": true, "recursiveReadOnly": "Enabled" },
            ]})
        )]),
    );
    node.finish();
}
