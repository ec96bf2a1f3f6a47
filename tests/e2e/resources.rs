//! Requests and limits become cgroup files with Kubernetes' numbers.

use std::path::{Path, PathBuf};

use berth_tests::{Controller, Node, Running, cgroup_directories, container, eventually, pod};
use serde_json::json;

/// The cgroups (relative, with the node's) whose memory limit is this.
fn with_memory_limit(node: &Node, limit: &str) -> Vec<PathBuf> {
    let (mount, _) = Controller::Memory.mount();
    let all = cgroup_directories(node.cgroup()).into_iter();
    let mine = all.filter_map(|path| Some(Path::new("/").join(path.strip_prefix(&mount).ok()?)));
    mine.filter(|cgroup| Controller::Memory.read(cgroup, "memory.limit_in_bytes", "memory.max") == limit)
        .collect()
}

fn end(node: Node, pod: Running) {
    pod.interrupt();
    pod.wait().expect_code(0);
    node.finish();
}

#[test]
fn burstable_numbers_are_upstream_s() {
    let node = Node::new();
    let pod = node.run(&pod(
        "burstable",
        json!({ "containers": [
        container("main", &["run", "echo", "up", ";", "proc", "oom_score_adj", ";", "sleep", "inf"], json!({
            "resources": {
                "requests": { "cpu": "250m", "memory": "32Mi" },
                "limits": { "cpu": "500m", "memory": "64Mi" },
            },
        })),
    ] }),
    ));
    pod.log("main", "up");
    let found = eventually("cgroups with the limit", || {
        Some(with_memory_limit(&node, "67108864")).filter(|found| !found.is_empty())
    });
    let tier = node.cgroup().join("kubepods/burstable");
    for cgroup in &found {
        assert!(cgroup.starts_with(&tier), "{}", cgroup.display());
        let (mount, v2) = Controller::Cpu.mount();
        assert!(mount.join(cgroup.strip_prefix("/").unwrap()).exists());
        if v2 {
            assert_eq!(Controller::Cpu.read(cgroup, "", "cpu.max"), "50000 100000");
        } else {
            assert_eq!(Controller::Cpu.read(cgroup, "cpu.shares", ""), "256");
            assert_eq!(Controller::Cpu.read(cgroup, "cpu.cfs_quota_us", ""), "50000");
            assert_eq!(Controller::Cpu.read(cgroup, "cpu.cfs_period_us", ""), "100000");
        }
    }
    // The pod's own and the container's below it.
    assert_eq!(found.len(), 2, "{found:?}");
    end(node, pod);
}

#[test]
fn burstable_pods_together_weigh_what_they_request() {
    let node = Node::new();
    let requesting = |name, cpu| {
        let resources = json!({ "resources": { "requests": { "cpu": cpu } } });
        pod(
            name,
            json!({ "containers": [container("main", &["sleep", "inf"], resources)] }),
        )
    };
    let stays = requesting("stays", "250m");
    let also = requesting("also", "100m");
    let pods = node.run(&format!("{stays}{also}"));
    pods.line("stays: pod is ready");
    pods.line("also: pod is ready");
    let tier = node.cgroup().join("kubepods/burstable");
    let (_, v2) = Controller::Cpu.mount();
    // 350 thousandths of a CPU are 358 shares, and these a weight of 45.
    let expected = if v2 { "45" } else { "358" };
    assert_eq!(Controller::Cpu.read(&tier, "cpu.shares", "cpu.weight"), expected);
    end(node, pods);
}

#[test]
fn guaranteed_and_best_effort_have_their_places() {
    let node = Node::new();
    let both = json!({ "cpu": "100m", "memory": "48Mi" });
    let guaranteed = pod(
        "guaranteed",
        json!({ "containers": [
        container("main", &["run", "echo", "up", ";", "sleep", "inf"], json!({ "resources": { "limits": both } })),
    ] }),
    );
    let best_effort = pod(
        "best-effort",
        json!({ "containers": [
        container("other", &["run", "proc", "oom_score_adj", ";", "echo", "up", ";", "sleep", "inf"], json!({})),
    ] }),
    );
    let pods = node.run(&format!("{guaranteed}{best_effort}"));
    pods.log("main", "up");
    pods.log("other", "up");
    pods.log("other", "1000");
    let limited = with_memory_limit(&node, "50331648");
    assert_eq!(limited.len(), 2, "{limited:?}");
    let kubepods = node.cgroup().join("kubepods");
    for cgroup in &limited {
        let below = cgroup.strip_prefix(&kubepods).unwrap();
        assert!(below.to_string_lossy().starts_with("pod"), "{}", cgroup.display());
    }
    let all = cgroup_directories(node.cgroup());
    assert!(
        all.iter()
            .any(|path| path.to_string_lossy().contains("kubepods/besteffort/pod")),
        "{all:?}"
    );
    end(node, pods);
}

#[test]
fn who_asks_for_no_huge_pages_and_no_memory_gets_none_and_no_swap() {
    let node = Node::new();
    let pod = node.run(&pod(
        "plain",
        json!({ "containers": [container("main", &["sleep", "inf"], json!({}))] }),
    ));
    pod.line("pod is ready");
    let (mount, v2) = Controller::Memory.mount();
    let groups = cgroup_directories(node.cgroup());
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok();
    // Only containers are killed as a whole.
    let container = groups
        .iter()
        .find(|group| read(group.join("memory.oom.group")).is_some_and(|text| text.trim() == "1"));
    assert_eq!(container.is_some(), v2, "{} {groups:?}", mount.display());
    if let Some(group) = container {
        let limit = |file: &str| read(group.join(file)).map(|text| text.trim().to_owned());
        for file in ["memory.swap.max", "hugetlb.2MB.max", "hugetlb.1GB.max"] {
            assert!(
                matches!(limit(file).as_deref(), None | Some("0")),
                "{file}: {:?}",
                limit(file)
            );
        }
    }
    end(node, pod);
}
