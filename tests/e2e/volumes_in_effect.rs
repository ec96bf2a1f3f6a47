//! Volumes' fields in effect: whose their files are, with which modes, and what containers see of them.

use std::fs;
use std::process::Command;

use berth_tests::{Ended, Node, berth, container, document, once_with, pod};
use serde_json::{Value, json};

/// The line of `ls` for a path, without the size.
fn listed<'a>(ended: &'a Ended, path: &str) -> &'a str {
    let line = ended.output.lines().find(|line| line.ends_with(path));
    let line = line.unwrap_or_else(|| panic!("no {path} in\n{}", ended.output));
    line.split_once("| ").map_or(line, |(_, line)| line)
}

fn object(kind: &str, field: &str, name: &str) -> String {
    document(&json!({
        "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, field: { "KEY": format!("of {name}") },
    }))
}

#[test]
fn names_and_resources_are_in_the_environment_and_in_files() {
    let node = Node::new();
    let resource = |container: &str, resource: &str, divisor: &str| json!({ "resourceFieldRef": { "containerName": container, "resource": resource, "divisor": divisor } });
    let env = json!([
        { "name": "OTHERS", "valueFrom": resource("side", "requests.memory", "1Mi") },
        { "name": "OWN", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu", "divisor": "1m" } } },
        { "name": "UID_OF_POD", "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": "metadata.uid" } } },
    ]);
    let from = json!([
        { "prefix": "S_", "secretRef": { "name": "s" } },
        { "secretRef": { "name": "none", "optional": true } },
    ]);
    let what = [
        "run",
        "checks",
        "env=OTHERS:32",
        "env=OWN:500",
        "env=UID_OF_POD:u-1",
        "env=S_KEY:of s",
        "file=/down/name:fields",
        "file=/down/memory:64",
        "file=/down/label:shop",
        ";",
        "ls",
        "/down/..data/",
    ];
    let main = container(
        "main",
        &what,
        json!({
            "env": env, "envFrom": from,
            "volumeMounts": [{ "name": "down", "mountPath": "/down" }, { "name": "none", "mountPath": "/none" }],
            "resources": { "limits": { "cpu": "500m", "memory": "64Mi" } },
        }),
    );
    let side = container(
        "side",
        &["true"],
        json!({ "resources": { "requests": { "memory": "32Mi" } } }),
    );
    let mut manifest: Value = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": "fields", "namespace": "shop", "uid": "u-1", "labels": { "app": "shop" } },
    });
    manifest["spec"] = json!({
        "restartPolicy": "Never",
        "containers": [main, side],
        "volumes": [
            { "name": "down", "downwardAPI": { "defaultMode": 0o440, "items": [
                { "path": "name", "fieldRef": { "fieldPath": "metadata.name" }, "mode": 0o400 },
                { "path": "label", "fieldRef": { "fieldPath": "metadata.labels['app']" } },
                { "path": "memory", "resourceFieldRef":
                    { "containerName": "main", "resource": "limits.memory", "divisor": "1Mi" } },
            ] } },
            { "name": "none", "secret": { "secretName": "none", "optional": true } },
        ],
    });
    let secret = object("Secret", "stringData", "s")
        .replace("\"name\": \"s\"", "\"name\": \"s\", \"namespace\": \"shop\"");
    let ended = node.succeeds(&format!("{secret}{}", document(&manifest)));
    assert!(listed(&ended, "/down/..data/name").starts_with("- 0400 0 0 "));
    assert!(listed(&ended, "/down/..data/memory").starts_with("- 0440 0 0 "));
    node.finish();
}

#[test]
fn projected_files_have_the_modes_that_they_are_given() {
    let node = Node::new();
    let volumes = json!([{ "name": "all", "projected": { "defaultMode": 0o444, "sources": [
        { "configMap": { "name": "m", "items": [{ "key": "KEY", "path": "deep/m", "mode": 0o400 }] } },
        { "secret": { "name": "s", "items": [{ "key": "KEY", "path": "renamed" }] } },
    ] } }]);
    let manifest = object("ConfigMap", "data", "m")
        + &object("Secret", "stringData", "s")
        + &once_with(
            "modes",
            &[
                "run",
                "checks",
                "file=/all/deep/m:of m",
                "file=/all/renamed:of s",
                "absent=/all/KEY",
                ";",
                "ls",
                "/all/..data/",
                "/all/..data/deep",
            ],
            json!({ "volumeMounts": [{ "name": "all", "mountPath": "/all" }] }),
            json!({ "volumes": volumes }),
        );
    let ended = node.succeeds(&manifest);
    assert!(listed(&ended, "/all/..data/renamed").starts_with("- 0444 "));
    assert!(listed(&ended, "/all/..data/deep/m").starts_with("- 0400 "));
    node.finish();
}

#[test]
fn a_volume_belongs_to_the_pod_s_group() {
    let node = Node::new();
    let claim = document(&json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "files" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Mi" } } },
    }));
    let volumes = json!([
        { "name": "disk", "emptyDir": {} },
        { "name": "claim", "persistentVolumeClaim": { "claimName": "files" } },
    ]);
    let mounts =
        json!([{ "name": "disk", "mountPath": "/disk" }, { "name": "claim", "mountPath": "/claim" }]);
    let manifest = |name: &str, command: &[&str], security: Value| {
        claim.clone()
            + &once_with(
                name,
                command,
                json!({ "volumeMounts": mounts }),
                json!({ "volumes": volumes, "securityContext": security }),
            )
    };
    // Files of another group than that of the volume's root: they are as they were where the root is right already.
    node.succeeds(&manifest("first", &["write", "/claim/old", "x"], json!({})));
    let group =
        |policy: &str, gid: u32| json!({ "fsGroup": gid, "fsGroupChangePolicy": policy, "runAsUser": 1000 });
    let look = [
        "run",
        "ls",
        "/disk/..",
        "/claim/",
        ";",
        "write",
        "/claim/new",
        "y",
        ";",
        "id",
    ];
    let ended = node.succeeds(&manifest("always", &look, group("Always", 3000)));
    assert!(
        listed(&ended, " /disk/../disk").starts_with("d 2777 0 3000 "),
        "{}",
        ended.output
    );
    assert!(
        listed(&ended, "/claim/old").starts_with("- 0664 0 3000 "),
        "{}",
        ended.output
    );
    assert!(ended.output.contains("groups=0,3000"), "{}", ended.output);
    let place = node
        .root()
        .join("var/lib/berth/kubelet/claims/default/files/data");
    std::os::unix::fs::chown(place.join("old"), None, Some(7)).unwrap();
    let ended = node.succeeds(&manifest("mismatch", &look[..4], group("OnRootMismatch", 3000)));
    assert!(
        listed(&ended, "/claim/old").starts_with("- 0664 0 7 "),
        "{}",
        ended.output
    );
    let ended = node.succeeds(&manifest("other", &look[..4], group("OnRootMismatch", 4000)));
    assert!(
        listed(&ended, "/claim/old").starts_with("- 0664 0 4000 "),
        "{}",
        ended.output
    );
    berth(&node, &["volume", "rm", "files"]).expect_code(0);
    node.finish();
}

#[test]
fn a_mount_is_read_only_and_a_part_that_a_variable_names() {
    let node = Node::new();
    let shared = node.scratch().join("shared");
    fs::create_dir_all(shared.join("parts/fields")).unwrap();
    fs::write(shared.join("parts/fields/word"), "of this pod").unwrap();
    let mount = |path: &str, more: Value| {
        let mut mount = json!({ "name": "shared", "mountPath": path });
        mount
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        mount
    };
    let mounts = json!([
        mount("/open", json!({})),
        mount("/shut", json!({ "readOnly": true })),
        mount("/part", json!({ "subPathExpr": "parts/$(NAME)" })),
    ]);
    let manifest = once_with(
        "fields",
        &[
            "checks",
            "writable=/open",
            "readonly=/shut",
            "mount=/shut:ro",
            "file=/part/word:of this pod",
            "writable=/part",
        ],
        json!({
            "volumeMounts": mounts,
            "env": [{ "name": "NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }],
        }),
        json!({ "volumes": [{ "name": "shared", "hostPath": { "path": shared } }] }),
    );
    node.succeeds(&manifest);
    node.finish();
}

#[test]
fn what_the_host_mounts_later_is_seen_where_it_is_asked_for() {
    let node = Node::new();
    let shared = node.scratch().join("shared");
    fs::create_dir_all(shared.join("later")).unwrap();
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).status();
        assert!(done.unwrap().success(), "mount {arguments:?}");
    };
    let path = shared.to_str().unwrap();
    mount(&["--bind", path, path]);
    mount(&["--make-shared", path]);
    let volume = |propagation: &str| json!({ "volumeMounts": [{ "name": "shared", "mountPath": "/v", "mountPropagation": propagation }] });
    let manifest = pod(
        "late",
        json!({
            "volumes": [{ "name": "shared", "hostPath": { "path": shared } }],
            "containers": [
                container("sees", &["sleep", "inf"], volume("HostToContainer")),
                container("private", &["sleep", "inf"], volume("None")),
            ],
        }),
    );
    let running = node.run(&manifest);
    running.line("pod is ready");
    let later = shared.join("later");
    mount(&["-t", "tmpfs", "none", later.to_str().unwrap()]);
    fs::write(later.join("word"), "x").unwrap();
    let exec = |container: &str, check: &str| {
        berth(&node, &["exec", "late", "-c", container, "--", "checks", check]).expect_code(0)
    };
    exec("sees", "exists=/v/later/word");
    exec("private", "absent=/v/later/word");
    running.interrupt();
    running.wait().expect_code(0);
    for place in [&later, &shared] {
        assert!(Command::new("umount").arg(place).status().unwrap().success());
    }
    node.finish();
}
