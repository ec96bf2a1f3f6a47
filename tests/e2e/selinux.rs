//! Pods where SELinux is on: in the virtual machine of `hack/vm/selinux`, which enforces Debian's policy. Elsewhere these
//! tests are nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_tests::{Ended, HELPER, Layout, Node, Running, berth, container, document, eventually, pod};
use rustix::fs::lgetxattr;
use serde_json::{Value, json};

/// A container's processes and files as the policy has them, without their level.
const PROCESS: &str = "system_u:system_r:container_t:";
const FILE: &str = "system_u:object_r:container_file_t:";
/// Processes that nothing is kept from.
const UNCONFINED: &str = "system_u:system_r:spc_t:s0";

fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// A file's label, as the kernel has it.
#[track_caller]
fn label_of(path: &Path) -> String {
    let mut label = [0; 256];
    let length = lgetxattr(path, "security.selinux", &mut label[..])
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text(&label[..length])
}

/// Labels end with a zero byte.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .trim_matches(['\0', '\n'])
        .to_owned()
}

/// The processes of the node with a word in their command lines, and their labels.
fn labelled(node: &Node, word: &str) -> Vec<(i32, String)> {
    let all = node.processes().into_iter();
    all.filter(|process| process.command.contains(word) && !process.command.contains("berth"))
        .filter_map(|process| {
            let label = fs::read(format!("/proc/{}/attr/current", process.pid)).ok()?;
            Some((process.pid, text(&label)))
        })
        .collect()
}

/// The one process with that word.
#[track_caller]
fn only(node: &Node, word: &str) -> (i32, String) {
    eventually(&format!("one process with {word}"), || {
        let found = labelled(node, word);
        (found.len() == 1).then(|| found[0].clone())
    })
}

fn inside(pid: i32, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/root{path}"))
}

/// A container that sleeps, with a word in its command line.
fn idle(name: &str, word: &str, more: Value) -> Value {
    container(name, &["run", "true", word, ";", "sleep", "inf"], more)
}

fn end(pod: Running) {
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
}

/// The directory of a pod's emptyDir on the host.
fn volume_on_host(node: &Node, name: &str) -> PathBuf {
    let found = Command::new("find")
        .arg(node.root())
        .args(["-type", "d", "-path", &format!("*/volumes/*/{name}")])
        .output()
        .unwrap();
    PathBuf::from(text(&found.stdout))
}

/// What a pod of one container finds in two directories of the host, at `/other` and `/host`.
fn looks_at(node: &Node, name: &str, paths: [&Path; 2], security: Value) -> Ended {
    let command =
        "run proc attr/current ; echo ; open /other/secret r ; open /other/new c ; open /host/secret r";
    let command: Vec<&str> = command.split(' ').collect();
    let volume = |name: &str, path: &Path| json!({ "name": name, "hostPath": { "path": path } });
    let more = json!({ "volumeMounts": [
        { "name": "other", "mountPath": "/other" },
        { "name": "host", "mountPath": "/host" },
    ] });
    let spec = json!({
        "restartPolicy": "Never",
        "securityContext": security,
        "volumes": [volume("other", paths[0]), volume("host", paths[1])],
        "containers": [container("main", &command, more)],
    });
    let ended = node.run(&pod(name, spec)).wait().expect_code(0);
    // The policy lets no container have what is the host's, whatever its level.
    ended.expect_log("main", "open /host/secret r: EACCES")
}

/// A pod with volumes of many kinds and two containers, `main` and `other`.
fn with_volumes() -> String {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "map" }, "data": { "key": "old" } });
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": { "name": "claim" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } },
    });
    let own_label = json!({ "path": "name", "fieldRef": { "fieldPath": "metadata.name" } });
    let mounts: Vec<Value> = ["data", "memory", "map", "whole", "claim", "image"]
        .iter()
        .map(|name| json!({ "name": name, "mountPath": format!("/{name}") }))
        .chain([json!({ "name": "map", "mountPath": "/part", "subPath": "key" })])
        .collect();
    // Ready only when a probe has the container's rights. The first one is started in another way than the next.
    let probe = json!({ "exec": { "command": ["checks", "writable=/data"] }, "periodSeconds": 1, "successThreshold": 3 });
    let spec = json!({
        "volumes": [
            { "name": "data", "emptyDir": {} },
            { "name": "memory", "emptyDir": { "medium": "Memory" } },
            { "name": "map", "configMap": { "name": "map" } },
            { "name": "whole", "projected": { "sources": [{ "downwardAPI": { "items": [own_label] } }] } },
            { "name": "claim", "persistentVolumeClaim": { "claimName": "claim" } },
            { "name": "image", "image": { "reference": HELPER, "pullPolicy": "Never" } },
        ],
        "containers": [
            container(
                "main",
                &["run", "write", "/data/secret", "mine", ";", "touch", "/memory/file", ";", "touch", "/claim/file",
                  ";", "touch", "/dev/shm/file", ";", "cat", "/map/key", ";", "cat", "/whole/name", ";", "cat", "/part",
                  ";", "write", "/dev/termination-log", "bye", ";", "sleep", "inf"],
                json!({ "volumeMounts": mounts, "readinessProbe": probe }),
            ),
            idle("other", "of-one", json!({})),
        ],
    });
    [document(&map), document(&claim), pod("one", spec)].concat()
}

#[test]
fn pods_are_kept_apart() {
    if !is_enabled() {
        return;
    }
    let node = Node::new();
    let one = node.run(&with_volumes());
    one.line("pod is ready");
    let (main, process) = only(&node, "/data/secret");
    let (_, other) = only(&node, "of-one");
    assert_eq!(process, other, "a pod's containers have one label");
    let level = process.strip_prefix(PROCESS).expect(&process).to_owned();
    let (low, high) = level
        .strip_prefix("s0:c")
        .expect(&level)
        .split_once(",c")
        .expect(&level);
    assert!(
        low.parse::<u32>().unwrap() < high.parse::<u32>().unwrap(),
        "{level}"
    );

    let file = format!("{FILE}{level}");
    for path in [
        "/",
        "/bin/sleep",
        "/data",
        "/data/secret",
        "/memory",
        "/memory/file",
        "/map",
        "/map/key",
        "/map/..data/key",
        "/part",
        "/whole/name",
        "/claim",
        "/claim/file",
        "/image",
        "/image/bin",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/dev",
        "/dev/null",
        "/dev/pts",
        "/dev/shm",
        "/dev/shm/file",
        "/dev/mqueue",
        "/dev/termination-log",
    ] {
        assert_eq!(label_of(&inside(main, path)), file, "{path}");
    }
    // What is executed in a container is one of its processes, also at a terminal.
    let shown = berth(
        &node,
        &["exec", "one", "-c", "main", "--", "proc", "attr/current"],
    )
    .expect_code(0);
    assert_eq!(text(shown.output.as_bytes()), process);
    let shown = berth(
        &node,
        &["exec", "one", "-c", "other", "--", "proc", "attr/keycreate"],
    )
    .expect_code(0);
    assert_eq!(text(shown.output.as_bytes()), "", "it was for the keyring only");
    assert_eq!(keyrings(&process), 2, "each container has its own keyring");

    // The pod's files when they change while it runs.
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "map" }, "data": { "key": "new" } });
    let changed = node.file("map.yaml", &document(&map)).display().to_string();
    berth(&node, &["apply", &changed]).expect_code(0);
    eventually("the new file", || {
        let read = berth(
            &node,
            &["exec", "one", "-c", "main", "--", "checks", "file=/map/key:new"],
        );
        (read.code() == Some(0)).then_some(())
    });

    // Another pod has other categories, also with another program that runs it, and is kept from the first one's files.
    let data = volume_on_host(&node, "data");
    let host = node.scratch().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "x").unwrap();
    let before = label_of(&host);
    let thief = looks_at(&node, "two", [&data, &host], json!({}))
        .expect_log("main", "open /other/secret r: EACCES")
        .expect_log("main", "open /other/new c: EACCES");
    let of_thief = thief
        .output
        .lines()
        .find(|line| line.contains(PROCESS))
        .expect("its label")
        .to_owned();
    assert!(!of_thief.contains(&level), "{of_thief}");
    // Not so if it asks for the same.
    let same = json!({ "seLinuxOptions": { "level": level } });
    looks_at(&node, "three", [&data, &host], same)
        .expect_log("main", "open /other/secret r: ok")
        .expect_log("main", "open /other/new c: ok");
    assert_eq!(
        (label_of(&data), label_of(&host)),
        (file, before),
        "a host path keeps its label"
    );
    end(one);
    berth(&node, &["volume", "rm", "claim"]).expect_code(0);
    node.finish();
}

/// The session keyrings of the node's containers with this label.
fn keyrings(label: &str) -> usize {
    // keyctl(2) KEYCTL_GET_SECURITY of each session keyring that the runtime made.
    let script = "
import ctypes, re
libc = ctypes.CDLL(None)
for line in open('/proc/keys'):
    fields = line.split()
    if '_ses.' not in line: continue
    label = ctypes.create_string_buffer(256)
    libc.syscall(250, 17, ctypes.c_int32(int(fields[0], 16)), label, 256)
    print(label.value.decode())
";
    let found = Command::new("python3").args(["-c", script]).output().unwrap();
    text(&found.stdout)
        .lines()
        .filter(|found| *found == label)
        .count()
}

#[test]
fn labels_are_what_is_asked_for() {
    if !is_enabled() {
        return;
    }
    let node = Node::new();
    let selinux = |options: Value| json!({ "securityContext": { "seLinuxOptions": options } });
    // A probe and a hook see what their container is.
    let asked = "checks file=/proc/self/attr/current:system_u:system_r:container_t:s0:c5,c7";
    let asked: Vec<&str> = asked.split(' ').collect();
    let own = json!({
        "readinessProbe": { "exec": { "command": asked }, "periodSeconds": 1, "successThreshold": 3 },
        "lifecycle": { "postStart": { "exec": { "command": asked } } },
    });
    let mut of_pod = json!({
        "containers": [
            idle("main", "of-asked", own),
            idle("level", "of-level", selinux(json!({ "level": "s0:c1.c3" }))),
            idle("type", "of-type", selinux(json!({ "user": "system_u", "role": "system_r", "type": "spc_t" }))),
        ],
    });
    of_pod["securityContext"] =
        json!({ "seLinuxOptions": { "level": "s0:c5,c7" }, "seLinuxChangePolicy": "MountOption" });
    let one = |word: &str, more: Value, spec: Value| {
        let mut whole = json!({ "containers": [idle("main", word, more)] });
        whole
            .as_object_mut()
            .unwrap()
            .extend(spec.as_object().unwrap().clone());
        pod(word, whole)
    };
    let manifest = [
        pod("asked", of_pod),
        one(
            "privileged",
            json!({ "securityContext": { "privileged": true } }),
            json!({}),
        ),
        one("host-pid", json!({}), json!({ "hostPID": true })),
        one("host-ipc", json!({}), json!({ "hostIPC": true })),
        one(
            "host-pid-asked",
            selinux(json!({ "level": "s0:c9" })),
            json!({ "hostPID": true }),
        ),
        one("own-users", json!({}), json!({ "hostUsers": false })),
        one(
            "no-new",
            json!({ "securityContext": { "allowPrivilegeEscalation": false } }),
            json!({}),
        ),
    ]
    .concat();
    let pods = node.run(&manifest);
    pods.line("asked: pod is ready");
    let mut levels = BTreeSet::new();
    for (word, process, file) in [
        (
            "true of-asked",
            "system_u:system_r:container_t:s0:c5,c7",
            "s0:c5,c7",
        ),
        (
            "true of-level",
            "system_u:system_r:container_t:s0:c1.c3",
            "s0:c1.c3",
        ),
        ("true of-type", "system_u:system_r:spc_t:s0:c5,c7", "s0:c5,c7"),
        ("true privileged", UNCONFINED, ""),
        ("true host-pid ", UNCONFINED, ""),
        ("true host-ipc", UNCONFINED, ""),
        (
            "true host-pid-asked",
            "system_u:system_r:container_t:s0:c9",
            "s0:c9",
        ),
        ("true own-users", PROCESS, ""),
        ("true no-new", PROCESS, ""),
    ] {
        let (pid, label) = only(&node, word);
        assert!(
            label == process || label.starts_with(process) && file.is_empty(),
            "{word}: {label}"
        );
        let root = label_of(&inside(pid, "/"));
        let level = root.strip_prefix(FILE).expect(&root).to_owned();
        match file {
            "" => assert!(
                levels.insert(level),
                "{word} has the level of another pod: {root}"
            ),
            file => assert_eq!(level, file, "{word}"),
        }
        if word != "true host-ipc" {
            assert_eq!(
                label_of(&inside(pid, "/dev/shm")).split(':').nth(2),
                Some("container_file_t"),
                "{word}"
            );
            assert_eq!(
                label_of(&inside(pid, "/dev/mqueue")).split(':').nth(2),
                Some("container_file_t"),
                "{word}"
            );
        }
    }
    // The host's message queues keep theirs.
    assert!(!label_of(Path::new("/dev/mqueue")).contains("container_file_t"));
    end(pods);
    node.finish();
}

/// The kernel looks at the label of the layer's own file when a container maps a library.
#[test]
fn libraries_of_an_image_can_be_loaded() {
    if !is_enabled() {
        return;
    }
    let node = Node::new();
    let (loader, name) = ("ld-linux-x86-64.so.2", "berth.local/dynamic:latest");
    let programs = [
        (format!("bin/{loader}"), PathBuf::from("/lib64").join(loader)),
        (
            "bin/libc.so.6".to_owned(),
            "/lib/x86_64-linux-gnu/libc.so.6".into(),
        ),
        ("bin/cat".to_owned(), "/bin/cat".into()),
    ];
    let programs: Vec<(&str, &Path)> = programs
        .iter()
        .map(|(inside, host)| (inside.as_str(), host.as_path()))
        .collect();
    let files = [("/etc/greeting", "from the image")];
    let layout = Layout::with_programs(
        &node.scratch().join("dynamic"),
        name,
        json!({}),
        &files,
        &programs,
        &[],
    );
    berth(&node, &["image", "import", layout.directory.to_str().unwrap()]).expect_code(0);
    let loader = format!("/bin/{loader}");
    let command = [&loader, "--library-path", "/bin", "/bin/cat", "/etc/greeting"];
    let more = json!({ "image": name, "imagePullPolicy": "Never" });
    let spec = json!({ "restartPolicy": "Never", "containers": [container("main", &command, more)] });
    node.run(&pod("dynamic", spec))
        .wait()
        .expect_code(0)
        .expect_log("main", "from the image");
    let store = node.root().join("var/lib/berth/images/snapshots");
    let layers = fs::read_dir(store).unwrap().flatten();
    let kinds: BTreeSet<String> = layers
        .map(|layer| label_of(&layer.path().join("fs/bin")))
        .collect();
    let expected = "system_u:object_r:container_ro_file_t:s0".to_owned();
    assert_eq!(kinds, BTreeSet::from([expected]));
    node.finish();
}

#[test]
fn labels_that_no_policy_has_are_named() {
    if !is_enabled() {
        return;
    }
    let node = Node::new();
    for (of_pod, own, label) in [
        (
            json!({ "type": "no_such_t" }),
            json!({}),
            "system_u:system_r:no_such_t:s0:c",
        ),
        (
            json!({}),
            json!({ "level": "s0,c4,c5" }),
            "system_u:system_r:container_t:s0,c4,c5",
        ),
    ] {
        let context = |options: Value| json!({ "seLinuxOptions": options });
        let spec = json!({
            "securityContext": context(of_pod),
            "containers": [container("main", &["true"], json!({ "securityContext": context(own) }))],
        });
        let pod = node.run(&pod("wrong", spec));
        let said = pod.line("is not one of this node's policy");
        assert!(said.contains(label), "{said}");
        pod.interrupt();
        pod.wait().expect_no_panic();
    }
    node.finish();
}
