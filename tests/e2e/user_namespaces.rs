//! `hostUsers: false`: pods with users of their own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use berth_tests::{HELPER, Node, Process, berth, container, document, eventually, pod};
use serde_json::{Value, json};

const IDS: u32 = 65_536;

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.uid(), metadata.gid())
}

fn idle(name: &str) -> Value {
    container("main", &["run", "echo", name, ";", "sleep", "inf"], json!({}))
}

/// The processes of this command, and who they are on the host.
fn users(node: &Node, command: &str) -> Vec<(Process, u32)> {
    let all = node.processes().into_iter();
    all.filter(|process| process.command.contains(command))
        .map(|process| {
            let user = fs::metadata(format!("/proc/{}", process.pid)).unwrap().uid();
            (process, user)
        })
        .collect()
}

/// What `berth inspect` says of a pod's ids.
fn said(node: &Node, pod: &str) -> String {
    let path = "jsonpath={.status.conditions[?(@.type==\"berth.dev/OwnUsers\")].message}";
    berth(node, &["inspect", pod, "-o", path])
        .expect_code(0)
        .output
        .trim()
        .to_owned()
}

#[test]
fn each_pod_has_ids_of_its_own_and_keeps_them() {
    let node = Node::new();
    let spec = |name: &str| json!({ "hostUsers": false, "containers": [idle(name)] });
    let manifest: String = ["one", "two", "three"].map(|name| pod(name, spec(name))).concat();
    let first = node.run(&manifest);
    let look = || {
        let found = users(&node, "sleep inf");
        (found.len() == 3).then_some(found)
    };
    let before = eventually("all run", look);
    let ids: BTreeSet<u32> = before.iter().map(|(_, user)| *user).collect();
    assert_eq!(ids.len(), 3, "{before:#?}");
    assert!(
        ids.iter().all(|first| *first >= IDS && first % IDS == 0),
        "{ids:?}"
    );
    for pod in ["one", "two", "three"] {
        let text = eventually("its ids are in its status", || {
            Some(said(&node, pod)).filter(|text| !text.is_empty())
        });
        let known = |first: &u32| {
            text == format!(
                "ids 0 to 65535 of the pod are {first} to {} of the node",
                first + IDS - 1
            )
        };
        assert!(ids.iter().any(known), "{text}: {ids:?}");
    }
    first.kill();
    // Whoever comes next has them from the record, and nobody else gets them meanwhile.
    let again = node.run(&format!("{manifest}{}", pod("four", spec("four"))));
    let all = eventually("the fourth runs, too", || {
        let found = users(&node, "sleep inf");
        (found.len() == 4).then_some(found)
    });
    for (process, user) in &before {
        assert!(
            all.iter()
                .any(|(now, known)| now.pid == process.pid && user == known),
            "{process:?} of {user} is not in {all:#?}"
        );
    }
    assert_eq!(
        all.iter().map(|(_, user)| *user).collect::<BTreeSet<_>>().len(),
        4,
        "{all:#?}"
    );
    let claims = node.root().join("var/lib/berth/kubelet/user-ids");
    assert_eq!(fs::read_dir(&claims).unwrap().count(), 4);
    again.interrupt();
    again.wait().expect_code(0).expect_no_panic();
    // And what is left is nothing, the claims among it.
    node.finish();
}

#[test]
fn volumes_belong_to_the_ids_that_the_pod_sees() {
    let node = Node::new();
    let shared = node.scratch().join("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("of-1000"), "its own\n").unwrap();
    chown(shared.join("of-1000"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(shared.join("of-1000"), fs::Permissions::from_mode(0o600)).unwrap();
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "map" }, "data": { "word": "map" } }),
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "secret" }, "stringData": { "word": "secret" } }),
    ];
    let volumes = json!([
        { "name": "map", "configMap": { "name": "map" } },
        { "name": "secret", "secret": { "secretName": "secret", "defaultMode": 0o440 } },
        { "name": "down", "downwardAPI": { "items": [{ "path": "word", "fieldRef": { "fieldPath": "metadata.name" } }] } },
        { "name": "all", "projected": { "sources": [{ "secret": { "name": "secret" } }] } },
        { "name": "disk", "emptyDir": {} },
        { "name": "memory", "emptyDir": { "medium": "Memory" } },
        { "name": "host", "hostPath": { "path": shared, "type": "Directory" } },
        { "name": "image", "image": { "reference": HELPER, "pullPolicy": "Never" } },
    ]);
    let mounts = json!([
        { "name": "map", "mountPath": "/map" }, { "name": "secret", "mountPath": "/secret" },
        { "name": "down", "mountPath": "/down" }, { "name": "all", "mountPath": "/all" },
        { "name": "disk", "mountPath": "/disk" }, { "name": "memory", "mountPath": "/memory" },
        { "name": "host", "mountPath": "/host" }, { "name": "disk", "mountPath": "/part", "subPath": "a/b" },
        { "name": "image", "mountPath": "/image" },
    ]);
    let root = container(
        "init",
        &[
            "run",
            "checks",
            "uid=0",
            "groups=0,4000",
            "file=/map/word:map",
            "file=/secret/word:secret",
            "file=/down/word:users",
            "file=/all/word:secret",
            "writable=/disk",
            "writable=/memory",
            "writable=/host",
            "writable=/part",
            "writable=/etc/hosts",
            "writable=/tmp",
            ";",
            "write",
            "/disk/root",
            "x",
            ";",
            "write",
            "/memory/root",
            "x",
            ";",
            "write",
            "/host/root",
            "x",
            ";",
            "write",
            "/part/root",
            "x",
            ";",
            "ls",
            "/image",
            "/etc/hosts",
            "/map/word",
            ";",
            "write",
            "/dev/termination-log",
            "done",
        ],
        json!({ "volumeMounts": mounts }),
    );
    let user = container(
        "user",
        &[
            "run",
            "checks",
            "uid=1000",
            "groups=1000,4000",
            "file=/secret/word:secret",
            "file=/host/of-1000:its own",
            "writable=/disk",
            ";",
            "write",
            "/disk/user",
            "x",
            ";",
            "write",
            "/memory/user",
            "x",
            ";",
            "sleep",
            "inf",
        ],
        json!({ "volumeMounts": mounts, "securityContext": { "runAsUser": 1000, "runAsGroup": 1000 } }),
    );
    let spec = json!({
        "hostUsers": false, "securityContext": { "fsGroup": 4000 },
        "initContainers": [root], "containers": [user], "volumes": volumes,
    });
    let manifest: String = objects.iter().map(document).chain([pod("users", spec)]).collect();
    let pod = node.run(&manifest);
    pod.line("pod is ready");
    for line in ["d 0755 0 0 4096 /image/bin", "- 0644 0 0 "] {
        pod.log("init", line);
    }
    let uid = berth(&node, &["inspect", "users", "-o", "jsonpath={.metadata.uid}"]).output;
    let volumes = node
        .root()
        .join("var/lib/berth/kubelet/pods")
        .join(uid.trim())
        .join("volumes/kubernetes.io~empty-dir");
    eventually("the user's files", || {
        volumes.join("memory/user").exists().then_some(())
    });
    // On the disk all is as if the pod had the host's users.
    for (file, expected) in [
        ("disk/root", (0, 4000)),
        ("disk/user", (1000, 4000)),
        ("memory/root", (0, 4000)),
        ("memory/user", (1000, 4000)),
        ("disk/a/b/root", (0, 4000)),
    ] {
        assert_eq!(owner(&volumes.join(file)), expected, "{file}");
    }
    assert_eq!(owner(&shared.join("root")), (0, 0));
    let message = "jsonpath={.status.initContainerStatuses[0].state.terminated.message}";
    berth(&node, &["inspect", "users", "-o", message]).expect_output(&["done"]);
    // The program itself is nobody whom the host knows.
    let all = users(&node, "sleep inf");
    assert!(
        all.iter().all(|(_, user)| user % IDS == 1000 && *user > IDS),
        "{all:#?}"
    );
    // What is copied in belongs to the container's user, also where the host's root can't be an owner.
    let brought = node.scratch().join("brought");
    fs::create_dir(&brought).unwrap();
    fs::write(brought.join("file"), "x").unwrap();
    for place in ["/disk", "/host"] {
        let to = format!("users:{place}");
        berth(&node, &["cp", &brought.display().to_string(), &to]).expect_code(0);
        let file = format!("{place}/brought/file");
        berth(&node, &["exec", "users", "--", "ls", &file])
            .expect_code(0)
            .expect_output(&[" 1000 1000 1 "]);
    }
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

#[test]
fn what_needs_the_host_s_users_is_refused() {
    let node = Node::new();
    let spec = json!({ "hostUsers": false, "hostNetwork": true, "containers": [idle("x")] });
    node.run(&pod("refused", spec))
        .wait()
        .expect_code(1)
        .expect_output(&["spec.hostNetwork: Forbidden: when `hostUsers` is false"]);
    node.finish();
}
