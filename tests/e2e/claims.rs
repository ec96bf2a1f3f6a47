//! PersistentVolumeClaims and PersistentVolumes without an API server.

use std::fs;
use std::process::Output;

use berth_tests::{Node, container, document, pod};
use serde_json::{Value, json};

fn claim(name: &str, spec: Value) -> String {
    let mut whole =
        json!({ "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } });
    let fields = whole.as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    document(
        &json!({ "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": name }, "spec": whole }),
    )
}

fn volume(name: &str, spec: Value) -> String {
    let mut whole = json!({ "accessModes": ["ReadWriteOnce"], "capacity": { "storage": "5Gi" } });
    let fields = whole.as_object_mut().unwrap();
    fields.extend(spec.as_object().unwrap().clone());
    document(
        &json!({ "apiVersion": "v1", "kind": "PersistentVolume", "metadata": { "name": name }, "spec": whole }),
    )
}

/// A pod with one volume at `/data`.
fn mounted(name: &str, source: Value, command: &[&str], more: Value) -> String {
    let mut source = source;
    source["name"] = json!("data");
    let mut spec = json!({
        "restartPolicy": "Never",
        "volumes": [source],
        "containers": [container("main", command, json!({
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        }))],
    });
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    pod(name, spec)
}

fn of_claim(claim: &str) -> Value {
    json!({ "persistentVolumeClaim": { "claimName": claim } })
}

fn berth(node: &Node, words: &[&str]) -> Output {
    node.berth(words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Removes a claim, for good.
#[track_caller]
fn remove(node: &Node, claim: &str) {
    let output = berth(node, &["volume", "rm", claim]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(!text(&berth(node, &["volume", "ls"]).stdout).contains(claim));
}

#[test]
fn a_claim_keeps_its_files_from_pod_to_pod() {
    let node = Node::new();
    let user = json!({ "securityContext": { "runAsUser": 1234, "runAsGroup": 1234, "fsGroup": 4321 } });
    let writer = mounted("writer", of_claim("data"), &["write", "/data/word", "kept"], user);
    node.run(&format!("{}{writer}", claim("data", json!({}))))
        .wait()
        .expect_code(0);
    let listed = text(&berth(&node, &["volume", "ls"]).stdout);
    assert!(listed.contains("data   1Gi"), "{listed}");
    // Neither the claim's document nor write access is needed to read.
    let read_only = json!({ "persistentVolumeClaim": { "claimName": "data", "readOnly": true } });
    let reader = mounted(
        "reader",
        read_only,
        &["checks", "file=/data/word:kept", "readonly=/data"],
        json!({}),
    );
    node.run(&reader).wait().expect_code(0);
    remove(&node, "data");
    node.finish();
}

#[test]
fn a_claim_that_is_nowhere_is_named() {
    let node = Node::new();
    let ended = node
        .run(&mounted("lost", of_claim("lost"), &["true"], json!({})))
        .wait();
    ended
        .expect_code(1)
        .expect_output(&["claimName: persistentvolumeclaim \"lost\" not found"]);
    node.finish();
}

#[test]
fn an_ephemeral_volume_goes_with_its_pod() {
    let node = Node::new();
    let template = json!({
        "metadata": { "labels": { "kind": "scratch" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let source = json!({ "ephemeral": { "volumeClaimTemplate": template } });
    let manifest = mounted(
        "short",
        source,
        &["run", "write", "/data/word", "x", ";", "sleep", "600"],
        json!({}),
    );
    let running = node.run(&manifest);
    running.line("main started");
    let listed = text(&berth(&node, &["volume", "ls", "-o", "json"]).stdout);
    assert!(
        listed.contains("\"short-data\"") && listed.contains("\"scratch\""),
        "{listed}"
    );
    let missing = berth(&node, &["volume", "rm", "none"]);
    assert_eq!(
        text(&missing.stderr),
        "berth: There is no claim default/none; `berth volume ls` lists those there are.\n"
    );
    let refused = berth(&node, &["volume", "rm", "short-data"]);
    assert!(
        text(&refused.stderr).contains("is used by pod default/short"),
        "{}",
        text(&refused.stderr)
    );
    running.interrupt();
    running.wait().expect_no_panic();
    // Nothing is left to remove.
    node.finish();
}

/// As under upstream: a kubelet mounts no volume that is for another node, and the pod waits.
#[test]
fn a_persistent_volume_for_another_node_is_not_mounted() {
    let node = Node::new();
    let directory = node.scratch().join("local");
    fs::create_dir(&directory).unwrap();
    let terms =
        json!([{ "matchExpressions": [{ "key": "example.com/zone", "operator": "In", "values": ["b"] }] }]);
    let affinity = json!({ "required": { "nodeSelectorTerms": terms } });
    let manifest = [
        volume(
            "disk",
            json!({ "local": { "path": directory }, "nodeAffinity": affinity }),
        ),
        claim("data", json!({ "volumeName": "disk" })),
        mounted(
            "writer",
            of_claim("data"),
            &["write", "/data/word", "here"],
            json!({}),
        ),
    ]
    .concat();
    let elsewhere = node.run_with(&["--node-labels", "example.com/zone=a"], &manifest);
    let said = elsewhere.line("MountVolume.NodeAffinity check failed for volume \"disk\"");
    let expected = "no matching NodeSelectorTerms: the volume wants example.com/zone in (b), and the node has example.com/zone=a";
    assert!(said.contains(expected), "{said}");
    elsewhere.interrupt();
    elsewhere.wait().expect_no_panic();
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    node.run_with(&["--node-labels", "example.com/zone=b"], &manifest)
        .wait()
        .expect_code(0);
    assert_eq!(fs::read_to_string(directory.join("word")).unwrap().trim(), "here");
    remove(&node, "data");
    node.finish();
}

#[test]
fn a_persistent_volume_is_where_it_says() {
    let node = Node::new();
    for name in ["local", "host"] {
        fs::create_dir(node.scratch().join(name)).unwrap();
    }
    let affinity = json!({ "required": { "nodeSelectorTerms": [{ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "Exists" }] }] } });
    let manifest = [
        volume(
            "disk",
            json!({ "local": { "path": node.scratch().join("local") }, "nodeAffinity": affinity }),
        ),
        volume(
            "share",
            json!({ "hostPath": { "path": node.scratch().join("host") }, "storageClassName": "manual" }),
        ),
        claim("one", json!({ "volumeName": "disk" })),
        claim("two", json!({ "storageClassName": "manual" })),
        pod(
            "both",
            json!({
                "restartPolicy": "Never",
                "volumes": [
                    { "name": "one", "persistentVolumeClaim": { "claimName": "one" } },
                    { "name": "two", "persistentVolumeClaim": { "claimName": "two" } },
                ],
                "containers": [container("main", &["run", "write", "/one/word", "1", ";", "write", "/two/word", "2"],
                    json!({ "volumeMounts": [
                        { "name": "one", "mountPath": "/one" }, { "name": "two", "mountPath": "/two" },
                    ] }))],
            }),
        ),
    ];
    node.run(&manifest.concat()).wait().expect_code(0);
    let word = |name: &str| fs::read_to_string(node.scratch().join(name).join("word")).unwrap();
    assert_eq!((word("local").trim(), word("host").trim()), ("1", "2"));
    remove(&node, "one");
    remove(&node, "two");
    // The claims are gone, and what they led to is not berth's.
    assert_eq!(word("local").trim(), "1");
    node.finish();
}

#[test]
fn a_claim_for_one_pod_has_one() {
    let node = Node::new();
    let one = json!({ "accessModes": ["ReadWriteOncePod"] });
    let sleeper = |name: &str| mounted(name, of_claim("single"), &["sleep", "600"], json!({}));
    let first = node.run(&format!("{}{}", claim("single", one), sleeper("first")));
    first.line("main started");
    let file = node.file("second.yaml", &sleeper("second"));
    let second = berth_tests::Running::start(
        {
            let mut command = node.berth(["run"]);
            command.arg(file);
            command
        },
        "",
    );
    second.line("is used by pod default/first, and may be used by one pod only");
    for running in [second, first] {
        running.interrupt();
        running.wait().expect_no_panic();
    }
    remove(&node, "single");
    node.finish();
}

#[test]
fn claims_are_applied_by_themselves() {
    let node = Node::new();
    let file = node.file("claim.yaml", &claim("alone", json!({})));
    let apply = |options: &[&str]| {
        let output = node.berth(["apply"]).args(options).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    assert_eq!(
        apply(&["--dry-run"]),
        "persistentvolumeclaim/alone created (dry run)\n"
    );
    assert_eq!(apply(&[]), "persistentvolumeclaim/alone created\n");
    assert_eq!(apply(&[]), "persistentvolumeclaim/alone unchanged\n");
    remove(&node, "alone");
    node.finish();
}

#[test]
fn nfs_without_its_helper_is_named() {
    let node = Node::new();
    let source = json!({ "nfs": { "server": "127.0.0.1", "path": "/nothing" } });
    let running = node.run(&mounted("share", source, &["true"], json!({})));
    // With the helper it says that nobody answers there.
    running.line("mount.nfs");
    running.interrupt();
    running.wait().expect_no_panic();
    node.finish();
}
