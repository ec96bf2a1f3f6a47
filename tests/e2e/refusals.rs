//! What can't be done is said in one message that tells what to do, and leaves nothing behind.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use berth_tests::{HELPER, Node, Running, container, once, pod, program};
use serde_json::json;

const SLEEPER: [&str; 5] = ["run", "echo", "up", ";", "sleep"];

fn sleeper(name: &str) -> serde_json::Value {
    let command: Vec<&str> = SLEEPER.iter().copied().chain(["inf"]).collect();
    container(name, &command, json!({}))
}

/// `berth run` fails, and its message has these words.
fn refused(node: Node, manifest: &str, words: &[&str]) {
    let ended = node.run(manifest).wait();
    assert_ne!(ended.code(), Some(0), "it was accepted:\n{}", ended.output);
    ended.expect_output(words);
    node.finish();
}

/// As Kubernetes has it, berth keeps trying; the message has these words.
fn complained(node: Node, pod: Running, words: &[&str]) {
    let matches = |line: &str| words.iter().all(|word| line.contains(word));
    pod.find(0, &format!("{words:?} in one line"), matches);
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn an_unknown_field_has_a_line_a_path_and_a_hint() {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: typo\nspec:\n  containers:\n  - name: main\n    image: {HELPER}\n    \
         imagePullPolicy: Never\n    comand: [\"true\"]\n"
    );
    refused(
        Node::new(),
        &manifest,
        &["pod.yaml", "10", "spec.containers[0].comand", "command"],
    );
}

#[test]
fn lenient_makes_it_a_warning() {
    let node = Node::new();
    let manifest = once("typo", &["echo", "ran"], json!({ "comand": ["false"] }));
    node.run_with(&["--lenient"], &manifest)
        .wait()
        .expect_code(0)
        .expect_output(&["comand"])
        .expect_log("main", "ran");
    node.finish();
}

#[test]
fn a_field_that_berth_can_t_do_is_refused_by_name() {
    let manifest = pod(
        "gpu",
        json!({
            "containers": [container("main", &["true"], json!({}))],
            "volumes": [{ "name": "data", "iscsi": { "targetPortal": "t", "iqn": "i", "lun": 0 } }],
        }),
    );
    refused(Node::new(), &manifest, &["iscsi"]);
}

#[test]
fn what_is_not_yaml_is_refused_with_its_line() {
    refused(
        Node::new(),
        "apiVersion: v1\nkind: Pod\n  name: x\n - y\n",
        &["pod.yaml", "3"],
    );
    refused(Node::new(), "", &["pod.yaml"]);
    refused(
        Node::new(),
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\nspec: {}\n",
        &["Deployment"],
    );
}

#[test]
fn a_missing_manifest_is_named() {
    let node = Node::new();
    let mut command = node.berth(["run"]);
    command.arg("/no/such/pod.yaml");
    let ended = Running::start(command, "").wait();
    assert_ne!(ended.code(), Some(0));
    ended.expect_output(&["/no/such/pod.yaml"]);
    node.finish();
}

#[test]
fn manifests_come_from_standard_input() {
    let node = Node::new();
    let ended = Running::start(
        node.berth(["run", "-"]),
        &once("stdin", &["echo", "read"], json!({})),
    )
    .wait();
    ended.expect_code(0).expect_log("main", "read");
    node.finish();
}

#[test]
fn several_pods_run_side_by_side() {
    let node = Node::new();
    let one = pod(
        "one",
        json!({ "restartPolicy": "Never", "containers": [container("a", &["echo", "first"], json!({}))] }),
    );
    let two = pod(
        "two",
        json!({ "restartPolicy": "Never", "containers": [container("b", &["echo", "second"], json!({}))] }),
    );
    let ended = node.run(&format!("{one}{two}")).wait().expect_code(0);
    ended.expect_log("a", "first").expect_log("b", "second");
    node.finish();
}

#[test]
fn an_image_that_is_not_there_is_named() {
    let node = Node::new();
    let manifest = pod(
        "never",
        json!({ "containers": [
        { "name": "main", "image": "example.test/none:1", "imagePullPolicy": "Never" },
    ] }),
    );
    let pod = node.run(&manifest);
    complained(node, pod, &["ErrImageNeverPull", "example.test/none:1"]);
}

#[test]
fn a_registry_that_does_not_answer_is_named() {
    let node = Node::new();
    let manifest = pod(
        "pull",
        json!({ "containers": [{ "name": "main", "image": "127.0.0.1:9/none:1" }] }),
    );
    let pod = node.run(&manifest);
    complained(node, pod, &["127.0.0.1:9/none:1", "ErrImagePull"]);
}

#[test]
fn a_name_that_is_no_image_is_refused() {
    let node = Node::new();
    let manifest = pod(
        "invalid",
        json!({ "containers": [{ "name": "main", "image": "UPPER case:!" }] }),
    );
    let pod = node.run(&manifest);
    complained(node, pod, &["UPPER case:!"]);
}

#[test]
fn a_missing_program_is_127() {
    let node = Node::new();
    node.run(&once("missing", &["/no/such/program"], json!({})))
        .wait()
        .expect_code(127)
        .expect_output(&["/no/such/program"]);
    node.finish();
}

#[test]
fn a_program_that_can_t_be_executed_is_126() {
    let node = Node::new();
    node.run(&once("data", &["/etc/hosts"], json!({})))
        .wait()
        .expect_code(126)
        .expect_output(&["/etc/hosts"]);
    node.finish();
}

/// Upstream's runtime fails likewise, as there is no null device to cover files with that the container must not see.
#[test]
fn a_volume_in_place_of_all_devices_is_named() {
    for (volume, words) in [
        (json!({ "emptyDir": {} }), ["/dev/null", "there is none"]),
        (
            json!({ "downwardAPI": { "items": [{ "path": "a", "fieldRef": { "fieldPath": "metadata.name" } }] } }),
            ["/dev/termination-log", "Read-only"],
        ),
    ] {
        let node = Node::new();
        let mut volume = volume;
        volume["name"] = json!("v");
        let manifest = pod(
            "devices",
            json!({
                "containers": [container("main", &["true"], json!({
                    "volumeMounts": [{ "name": "v", "mountPath": "/dev/" }],
                }))],
                "volumes": [volume],
            }),
        );
        let pod = node.run(&manifest);
        let named = [
            "CreateContainerError",
            "volumeMounts[0].mountPath",
            "\"v\" on /dev",
        ];
        complained(node, pod, &[&words[..], &named].concat());
    }
}

#[test]
fn a_memory_limit_that_nothing_starts_with_is_named() {
    let limited = |limit: &str| {
        container(
            "main",
            &["true"],
            json!({ "resources": { "limits": { "memory": limit } } }),
        )
    };
    for (limit, bytes) in [("1", "1 bytes"), ("4Ki", "4096 bytes")] {
        // That of the only container is the pod's, which its sandbox needs memory of, too.
        let node = Node::new();
        let tiny = node.run(&pod("tiny", json!({ "containers": [limited(limit)] })));
        complained(
            node,
            tiny,
            &["pod's memory limit", bytes, "too low", "resources.limits.memory"],
        );
        let node = Node::new();
        let tiny = node.run(&pod(
            "tiny",
            json!({ "containers": [limited(limit), sleeper("other")] }),
        ));
        complained(
            node,
            tiny,
            &["main: CreateContainerError", "OOM-killed", bytes, "too low"],
        );
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let node = Node::new();
    let taken = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let manifest = pod(
        "port",
        json!({ "containers": [container("main", &["httpd"], json!({
        "ports": [{ "containerPort": 8080, "hostPort": port }],
    }))] }),
    );
    let pod = node.run(&manifest);
    let word = port.to_string();
    pod.find(0, "the port and that it is in use", |line| {
        line.contains(&word) && ["in use", "uses"].iter().any(|word| line.contains(word))
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn another_pod_s_host_port_is_named() {
    let node = Node::new();
    let with_port = |name: &str| {
        pod(
            name,
            json!({ "containers": [container("main", &["httpd"], json!({
        "ports": [{ "containerPort": 8080, "hostPort": 8181 }],
    }))] }),
        )
    };
    let first = node.run(&with_port("first"));
    first.log("main", "serving");
    let second = node.run(&with_port("second"));
    second.wait().expect_code(1).expect_output(&[
        "NodePorts",
        "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: pod default/first has port 8181",
    ]);
    assert_eq!(
        berth_tests::http_get((first.address(), 8080), "/hostname").body,
        "first"
    );
    first.interrupt();
    first.wait().expect_code(0);
    // It was the first one's for no longer than that ran.
    let second = node.run(&with_port("second"));
    second.log("main", "serving");
    second.interrupt();
    second.wait().expect_code(0);
    node.finish();
}

#[test]
fn without_root_it_says_so() {
    let node = Node::new();
    // Where nobody can reach: the build's directory may be closed.
    let programs = node.scratch().join("programs");
    fs::create_dir(&programs).unwrap();
    fs::set_permissions(node.scratch(), fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["berth", "berth-oci"] {
        fs::copy(program(name), programs.join(name)).unwrap();
    }
    let manifest = node.file("pod.yaml", &once("root", &["true"], json!({})));
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(programs.join("berth"));
    command.arg("run").arg(manifest);
    let ended = Running::start(command, "").wait();
    assert_ne!(ended.code(), Some(0));
    ended.expect_output(&["root"]);
    node.finish();
}

#[test]
fn without_nft_it_says_what_to_install() {
    let node = Node::new();
    let programs = node.scratch().join("programs");
    fs::create_dir(&programs).unwrap();
    symlink("/bin/true", programs.join("true")).unwrap();
    let file = node.file(
        "pod.yaml",
        &pod(
            "nft",
            json!({ "containers": [container("main", &["httpd"], json!({
        "ports": [{ "containerPort": 8080, "hostPort": 8182 }],
    }))] }),
        ),
    );
    let mut command = node.berth(["run"]);
    command.arg(file).env("PATH", &programs);
    let pod = Running::start(command, "");
    pod.find(0, "that nft is missing", |line| {
        line.contains("nft") && line.contains("install")
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    node.finish();
}

#[test]
fn a_full_disk_is_named() {
    let node = Node::with_disk(256 << 10);
    let pod = node.run(&pod("full", json!({ "containers": [sleeper("main")] })));
    pod.find(0, "that the disk is full", |line| {
        line.to_lowercase().contains("no space left")
    });
    pod.interrupt();
    pod.wait().expect_no_panic();
    let leftovers: Vec<String> = node
        .leftovers()
        .into_iter()
        .filter(|line| !line.starts_with("+ file "))
        .collect();
    assert!(leftovers.is_empty(), "{leftovers:#?}");
    for entry in fs::read_dir(node.root()).unwrap().flatten() {
        let _ = fs::remove_dir_all(entry.path());
    }
    node.finish();
}

#[test]
fn the_same_pod_twice_is_one_pod() {
    let node = Node::new();
    let manifest = pod("same", json!({ "containers": [sleeper("main")] }));
    let first = node.run(&manifest);
    first.log("main", "up");
    let ended = node.run(&manifest).wait();
    assert_ne!(ended.code(), Some(0), "{}", ended.output);
    ended.expect_output(&["same"]);
    first.interrupt();
    first.wait().expect_code(0);
    node.finish();
}
