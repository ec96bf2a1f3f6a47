//! Fields of the pod as a whole, seen from its containers and from the kernel.

use berth_tests::{Controller, Node, Running, cgroup_directories, container, document, once, pod};
use serde_json::{Value, json};

fn end(node: Node, pod: Running) {
    pod.interrupt();
    pod.wait().expect_code(0).expect_no_panic();
    node.finish();
}

/// A manifest of one object, to be changed.
fn object(manifest: &str) -> Value {
    serde_json::from_str(manifest.trim_start_matches("---")).unwrap()
}

fn status(node: &Node, name: &str) -> Value {
    let shown = Running::start(node.berth(["status", name, "--output", "json"]), "").wait();
    serde_json::from_str(&shown.expect_code(0).output).unwrap()
}

fn condition<'a>(pod: &'a Value, kind: &str) -> &'a Value {
    let all = pod["status"]["conditions"].as_array().unwrap();
    all.iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

#[test]
fn the_pod_s_own_resources_limit_all_its_containers_together() {
    let node = Node::new();
    let pod = node.run(&pod(
        "whole",
        json!({
            "resources": { "limits": { "cpu": "500m", "memory": "64Mi" }, "requests": { "cpu": "250m" } },
            "overhead": { "memory": "1Mi" },
            "containers": [container("a", &["sleep", "inf"], json!({})), container("b", &["sleep", "inf"], json!({}))],
        }),
    ));
    pod.line("pod is ready");
    let (mount, v2) = Controller::Memory.mount();
    let groups = cgroup_directories(node.cgroup());
    let of = |limit: &str| -> Vec<String> {
        let mine = groups.iter().filter_map(|path| path.strip_prefix(&mount).ok());
        let path = mine.map(|path| std::path::Path::new("/").join(path));
        path.filter(|path| Controller::Memory.read(path, "memory.limit_in_bytes", "memory.max") == limit)
            .map(|path| path.display().to_string())
            .collect()
    };
    // The pod's group has the overhead on top; each container may use all that the pod may.
    let whole = of("68157440");
    assert_eq!(whole.len(), 1, "{groups:?}");
    assert_eq!(of("67108864").len(), 2, "{groups:?}");
    assert!(whole[0].contains("/burstable/"), "{whole:?}");
    let group = std::path::Path::new(&whole[0]);
    if v2 {
        assert_eq!(Controller::Cpu.read(group, "", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(Controller::Cpu.read(group, "cpu.shares", ""), "256");
        assert_eq!(Controller::Cpu.read(group, "cpu.cfs_quota_us", ""), "50000");
    }
    assert_eq!(status(&node, "whole")["status"]["qosClass"], "Burstable");
    end(node, pod);
}

#[test]
fn readiness_gates_hold_the_pod_back() {
    let node = Node::new();
    let gated = |name: &str, conditions: &str| {
        let mut pod = object(&pod(
            name,
            json!({
                "readinessGates": [{ "conditionType": "example.com/loaded" }],
                "containers": [container("main", &["sleep", "inf"], json!({}))],
            }),
        ));
        pod["metadata"]["annotations"] = json!({ "berth.dev/conditions": conditions });
        document(&pod)
    };
    let both = gated("open", "example.com/loaded=True") + &gated("shut", "example.com/loaded=False");
    let pods = node.run(&both);
    pods.line("open: pod is ready");
    pods.line("shut: main is ready");
    let shut = status(&node, "shut");
    assert_eq!(condition(&shut, "ContainersReady")["status"], "True", "{shut:#}");
    assert_eq!(condition(&shut, "Ready")["reason"], "ReadinessGatesNotReady");
    assert_eq!(condition(&shut, "example.com/loaded")["status"], "False");
    assert!(!pods.output().contains("shut: pod is ready"), "{}", pods.output());
    end(node, pods);
}

#[test]
fn the_host_s_name_is_what_the_pod_says() {
    for (name, fields, hostname) in [
        (
            "override",
            json!({ "hostnameOverride": "some.other.name", "hostname": "h" }),
            "some.other.name",
        ),
        ("short", json!({ "hostname": "h", "subdomain": "s" }), "h"),
        (
            "full",
            json!({ "hostname": "h", "subdomain": "s", "setHostnameAsFQDN": true }),
            "h.s.default.svc",
        ),
        ("plain", json!({ "setHostnameAsFQDN": true }), "plain"),
    ] {
        let node = Node::new();
        let check = format!("hostname={hostname}");
        let mut manifest = object(&once(
            name,
            &["run", "checks", &check, ";", "cat", "/etc/hosts"],
            json!({}),
        ));
        manifest["spec"]
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let ended = node.run(&document(&manifest)).wait().expect_code(0);
        let first = hostname.split('.').next().unwrap();
        let in_hosts = if name == "override" { hostname } else { first };
        assert!(ended.output.contains(in_hosts), "{}", ended.output);
        if name == "short" {
            assert!(ended.output.contains("h.s.default.svc"), "{}", ended.output);
        }
        node.finish();
    }
}

#[test]
fn the_stop_signal_is_the_container_s_own() {
    let node = Node::new();
    let trap = ["trap", "--count", "1", "USR1", "TERM"];
    let pod = node.run(&pod(
        "signal",
        json!({
            "os": { "name": "linux" },
            "containers": [container("main", &trap, json!({ "lifecycle": { "stopSignal": "SIGUSR1" } }))],
        }),
    ));
    pod.log("main", "trapping");
    pod.interrupt();
    pod.wait().expect_code(0).expect_log("main", "caught SIGUSR1");
    node.finish();
}

#[test]
fn a_runtime_class_names_a_handler() {
    let node = Node::new();
    let with = |class: &str| {
        let mut pod = object(&once(class, &["echo", "ran"], json!({})));
        pod["spec"]["runtimeClassName"] = json!(class);
        document(&pod)
    };
    node.run(&with("berth"))
        .wait()
        .expect_code(0)
        .expect_log("main", "ran");
    let unknown = node.run(&with("other"));
    unknown.line("There is no runtime handler \"other\"");
    end(node, unknown);
}

/// The namespace that a program is in: `pid:[4026531836]`.
fn namespace(output: &str, kind: &str) -> String {
    let line = output.lines().find(|line| line.contains(&format!("| {kind} ")));
    let line = line.unwrap_or_else(|| panic!("no {kind} in:\n{output}"));
    line.rsplit(' ').next().unwrap().to_owned()
}

#[test]
fn the_host_s_namespaces_are_the_pod_s_when_asked() {
    let node = Node::new();
    let berth = node.run(&pod(
        "idle",
        json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
    ));
    berth.line("pod is ready");
    let of = |pid: i32, kind: &str| {
        let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        link.display().to_string()
    };
    let host = (of(berth.pid(), "pid"), of(berth.pid(), "ipc"));
    for (name, fields, pid, ipc) in [
        ("hostpid", json!({ "hostPID": true }), true, false),
        ("hostipc", json!({ "hostIPC": true }), false, true),
        ("neither", json!({}), false, false),
    ] {
        let mut manifest = object(&once(name, &["namespaces"], json!({})));
        manifest["spec"]
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        let ended = node.run(&document(&manifest)).wait().expect_code(0);
        let found = (
            namespace(&ended.output, "pid") == host.0,
            namespace(&ended.output, "ipc") == host.1,
        );
        assert_eq!(found, (pid, ipc), "{name}: {}", ended.output);
    }
    end(node, berth);
}

#[test]
fn containers_share_a_process_namespace_when_asked() {
    let node = Node::new();
    for (name, shared) in [("shared", true), ("apart", false)] {
        let ended = node
            .run(&pod(
                name,
                json!({
                    "restartPolicy": "Never",
                    "shareProcessNamespace": shared,
                    "containers": [
                        container("a", &["namespaces"], json!({})),
                        container("b", &["namespaces"], json!({})),
                    ],
                }),
            ))
            .wait()
            .expect_code(0);
        let ids: std::collections::BTreeSet<&str> = ended
            .output
            .lines()
            .filter(|line| line.contains("| pid "))
            .map(|line| line.rsplit(' ').next().unwrap())
            .collect();
        assert_eq!(ids.len(), if shared { 1 } else { 2 }, "{}", ended.output);
    }
    node.finish();
}

#[test]
fn a_termination_message_is_where_the_container_says() {
    let node = Node::new();
    let manifest = pod(
        "message",
        json!({
            "restartPolicy": "Never",
            "containers": [container("main", &["run", "write", "/said", "the end", ";", "exit", "3"], json!({
                "terminationMessagePath": "/said",
            }))],
        }),
    );
    let ended = node
        .run_with(&["--output", "json"], &manifest)
        .wait()
        .expect_code(3);
    assert!(
        ended.output.contains("\"message\": \"the end"),
        "{}",
        ended.output
    );
    node.finish();
}

#[test]
fn a_projected_volume_has_all_its_sources() {
    let node = Node::new();
    let object = |kind: &str, field: &str, name: &str| {
        document(&json!({
            "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, field: { "key": format!("of {name}") },
        }))
    };
    let items = json!([{ "key": "key", "path": "deep/m", "mode": 0o400 }]);
    let manifest = object("ConfigMap", "data", "m")
        + &object("Secret", "stringData", "s")
        + &pod(
            "projected",
            json!({
                "restartPolicy": "Never",
                "volumes": [{ "name": "all", "projected": { "defaultMode": 0o444, "sources": [
                    { "configMap": { "name": "m", "items": items } },
                    { "secret": { "name": "s" } },
                    { "secret": { "name": "none", "optional": true } },
                    { "downwardAPI": { "items": [
                        { "path": "name", "fieldRef": { "fieldPath": "metadata.name" } },
                        { "path": "cpu", "resourceFieldRef":
                            { "containerName": "main", "resource": "limits.cpu", "divisor": "1m" } },
                    ] } },
                ] } }],
                "containers": [container("main",
                    &["checks", "file=/all/deep/m:of m", "file=/all/key:of s", "file=/all/name:projected", "file=/all/cpu:500"],
                    json!({
                        "volumeMounts": [{ "name": "all", "mountPath": "/all" }],
                        "resources": { "limits": { "cpu": "500m" } },
                    }))],
            }),
        );
    node.run(&manifest).wait().expect_code(0);
    node.finish();
}

#[test]
fn a_hook_may_be_a_request() {
    let node = Node::new();
    let request = |path: &str| json!({ "httpGet": { "port": 8080, "path": path } });
    let pod = node.run(&pod(
        "asked",
        json!({ "containers": [container("main", &["httpd", "--port", "8080"], json!({
            // Any answer will do: there is no such file.
            "lifecycle": { "preStop": request("/before-the-end") },
            "startupProbe": { "tcpSocket": { "port": 8080 } },
        }))] }),
    ));
    pod.line("pod is ready");
    pod.interrupt();
    pod.wait()
        .expect_code(0)
        .expect_log("main", "GET /before-the-end 404");
    node.finish();
}
