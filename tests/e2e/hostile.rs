//! Containers that mean harm.

use std::fs;

use berth_tests::{Node, container, http_get, once, pod};
use serde_json::json;

#[test]
fn a_memory_bomb_is_killed_and_said_so() {
    let node = Node::new();
    let manifest = once(
        "memory",
        &["allocate", "268435456"],
        json!({ "resources": { "limits": { "memory": "16Mi" } } }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(137)
        .expect_output(&["OOMKilled"]);
    node.finish();
}

#[test]
fn a_child_s_memory_bomb_is_seen_too() {
    let node = Node::new();
    let manifest = pod(
        "child",
        json!({ "restartPolicy": "Never", "containers": [
        container("main", &["forkbomb", "--most", "3"], json!({ "resources": { "limits": { "memory": "16Mi" } } })),
        container("bomb", &["allocate", "268435456"], json!({ "resources": { "limits": { "memory": "16Mi" } } })),
    ] }),
    );
    let pod = node.run(&manifest);
    pod.line("OOMKilled");
    pod.log("main", "3 children");
    pod.interrupt();
    pod.wait();
    node.finish();
}

#[test]
fn many_processes_end_with_their_pod() {
    let node = Node::new();
    let manifest = pod(
        "forks",
        json!({ "containers": [container("main", &["forkbomb", "--most", "500"], json!({}))] }),
    );
    let pod = node.run(&manifest);
    pod.log("main", "500 children");
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn a_log_flood_is_whole_and_does_not_stop_the_others() {
    let node = Node::new();
    let manifest = pod(
        "flood",
        json!({ "restartPolicy": "Never", "containers": [
        container("flood", &["lines", "200000", "120"], json!({})),
        container("web", &["run", "wait-file", "/done", "--timeout", "2", ";", "true"], json!({})),
    ] }),
    );
    let ended = node.run(&manifest).wait();
    let lines: Vec<&str> = ended
        .output
        .lines()
        .filter(|line| line.contains("| ") && line.ends_with("xxx"))
        .collect();
    assert_eq!(lines.len(), 200_000, "lines were lost or doubled");
    for (number, line) in lines.iter().enumerate() {
        assert!(
            line.contains(&format!("| {number:08} ")),
            "{line} is not the {number}th"
        );
    }
    node.finish();
}

#[test]
fn long_lines_and_bytes_that_are_not_text_come_through() {
    let node = Node::new();
    let ended = node
        .run(&once("long", &["lines", "3", "100000"], json!({})))
        .wait()
        .expect_code(0);
    let bytes: usize = ended
        .output
        .lines()
        .filter(|line| line.contains("xxx"))
        .map(|line| line.matches('x').count())
        .sum();
    assert_eq!(bytes, 3 * (100_000 - 18));
    node.finish();
}

#[test]
fn the_runtime_s_program_can_t_be_overwritten() {
    let node = Node::new();
    let before = fs::read(berth_tests::program("berth-oci")).unwrap();
    // Executes itself through /proc/self/exe of whoever starts it, and meanwhile its exec probe brings the runtime in.
    let manifest = pod(
        "overwrite",
        json!({ "restartPolicy": "Never", "containers": [
        container("main", &["self-exe", "--seconds", "8"], json!({
            "securityContext": { "privileged": true },
            "readinessProbe": { "exec": { "command": ["/proc/self/exe", "true"] }, "periodSeconds": 1 },
        })),
    ] }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "nothing was overwritten");
    assert!(
        fs::read(berth_tests::program("berth-oci")).unwrap() == before,
        "the program has changed"
    );
    node.finish();
}

#[test]
fn an_entrypoint_that_is_the_runtime_gets_nothing_by_it() {
    let node = Node::new();
    let before = fs::read(berth_tests::program("berth-oci")).unwrap();
    // Its arguments are those of berth-oci, which in a container has nothing to work on.
    let manifest = once(
        "entry",
        &["/proc/self/exe", "--root", "/state", "delete", "--force", "x"],
        json!({}),
    );
    node.run(&manifest).wait().expect_no_panic();
    assert!(
        fs::read(berth_tests::program("berth-oci")).unwrap() == before,
        "the program has changed"
    );
    node.finish();
}

#[test]
fn a_working_directory_outside_the_root_is_refused() {
    for directory in ["/proc/self/fd/7", "/proc/self/fd/7/../../..", "/proc/1/root/.."] {
        let node = Node::new();
        let pod = node.run(&once("cwd", &["ls", "."], json!({ "workingDir": directory })));
        pod.find(0, "that it is refused, or that it ran inside", |line| {
            line.contains("working directory") || line.contains("main ended")
        });
        pod.interrupt();
        let ended = pod.wait().expect_no_panic();
        assert!(
            !ended.output.contains("berth-node"),
            "{directory} is the host's:\n{}",
            ended.output
        );
        node.finish();
    }
}

#[test]
fn a_symlink_race_in_a_shared_volume_stays_inside() {
    let node = Node::new();
    let secret = node.scratch().join("secret");
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("key"), "the host's").unwrap();
    let manifest = pod(
        "race",
        json!({
            "volumes": [{ "name": "shared", "emptyDir": {} }],
            "initContainers": [container("racer", &["symlink-race", "/shared", "target", &secret.display().to_string()], json!({
                "restartPolicy": "Always",
                "volumeMounts": [{ "name": "shared", "mountPath": "/shared" }],
            }))],
            "restartPolicy": "OnFailure",
            "containers": [container("victim", &["checks", "absent=/inside/key"], json!({
                "volumeMounts": [{ "name": "shared", "mountPath": "/inside", "subPath": "target" }],
            }))],
        }),
    );
    let pod = node.run(&manifest);
    pod.log("racer", "racing");
    let ended = pod.wait();
    assert!(!ended.output.contains("FAIL"), "{}", ended.output);
    node.finish();
}

#[test]
fn sysctls_can_t_be_smuggled() {
    for (name, value) in [
        ("kernel.core_pattern", "|/bin/true"),
        ("net.ipv4.ip_forward+kernel.core_pattern", "1"),
        ("net.ipv4.tcp_syncookies", "1\nx"),
    ] {
        let node = Node::new();
        let before = fs::read("/proc/sys/kernel/core_pattern").unwrap();
        let manifest = pod(
            "sysctl",
            json!({
                "securityContext": { "sysctls": [{ "name": name, "value": value }] },
                "restartPolicy": "Never",
                "containers": [container("main", &["true"], json!({}))],
            }),
        );
        let ended = node.run(&manifest).wait();
        assert_ne!(
            ended.code(),
            Some(0),
            "{name}={value} was accepted:\n{}",
            ended.output
        );
        assert_eq!(fs::read("/proc/sys/kernel/core_pattern").unwrap(), before);
        node.finish();
    }
}

#[test]
fn a_hundred_thousand_bytes_of_environment_arrive() {
    let node = Node::new();
    let long = "v".repeat(100_000);
    let manifest = once(
        "environment",
        &["run", "env", "SHORT", ";", "true"],
        json!({
            "env": [{ "name": "LONG", "value": long }, { "name": "SHORT", "value": "here" }],
        }),
    );
    node.run(&manifest)
        .wait()
        .expect_code(0)
        .expect_log("main", "SHORT=here");
    node.finish();
}

#[test]
fn one_pod_s_harm_is_not_another_s() {
    let node = Node::new();
    let quiet = node.run(&pod(
        "quiet",
        json!({ "containers": [container("web", &["httpd"], json!({}))] }),
    ));
    quiet.log("web", "serving");
    let file = node.file(
        "bomb.yaml",
        &once(
            "bomb",
            &["allocate", "268435456"],
            json!({
                "resources": { "limits": { "memory": "16Mi" } },
            }),
        ),
    );
    let mut command = node.berth(["run"]);
    command.arg(file);
    berth_tests::Running::start(command, "").wait().expect_code(137);
    assert_eq!(http_get((quiet.address(), 8080), "/healthz").status, 200);
    quiet.interrupt();
    quiet.wait().expect_code(0);
    node.finish();
}
