//! Fields that mean something special, or that engines send without meaning anything.

use super::*;

/// What docker and podman send when nobody asked for a limit.
#[test]
fn nothing_asked_for_is_nothing_set() {
    let group = Group::new("defaults");
    let docker = r#"{"memory": {"disableOOMKiller": false, "kernel": 0, "kernelTCP": 0, "swappiness": 18446744073709551615},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0, "realtimePeriod": 0, "cpus": "", "mems": ""},
        "pids": {"limit": -1}, "blockIO": {"weight": 0}, "network": {"classID": 0, "priorities": []}, "hugepageLimits": [],
        "rdma": {}, "unified": {}}"#;
    let wanted: serde_json::Value = serde_json::from_str(docker).unwrap();
    let mut wanted = wanted;
    if unified() {
        // The only ones of these that v2 has no word for.
        wanted["memory"]
            .as_object_mut()
            .unwrap()
            .remove("disableOOMKiller");
    }
    group.apply(&wanted.to_string()).unwrap();
    group
        .apply(r#"{"memory": {"useHierarchy": true, "kernel": -1, "kernelTCP": -1, "limit": -1}}"#)
        .unwrap();
    group.apply("{}").unwrap();
}

#[test]
fn a_limit_of_no_processes_is_one_process() {
    let group = Group::new("pids-zero");
    group.apply(r#"{"pids": {}}"#).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "max");
    group.apply(r#"{"pids": {"limit": 0}}"#).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "1");
}

#[test]
fn the_oom_killer_is_switched_off_and_on() {
    let group = Group::new("oom-killer");
    let off = r#"{"memory": {"limit": 33554432, "disableOOMKiller": true}}"#;
    if unified() {
        let error = group.apply(off).unwrap_err().to_string();
        assert!(error.contains("disableOOMKiller"), "{error}");
        return;
    }
    group.apply(off).unwrap();
    assert!(
        group
            .read("memory", "memory.oom_control")
            .contains("oom_kill_disable 1")
    );
    group.apply(r#"{"memory": {"disableOOMKiller": false}}"#).unwrap();
    assert!(
        group
            .read("memory", "memory.oom_control")
            .contains("oom_kill_disable 0")
    );
    group.apply(r#"{"memory": {"swappiness": 10}}"#).unwrap();
    assert_eq!(group.read("memory", "memory.swappiness"), "10");
}

#[test]
fn a_period_alone_keeps_the_quota() {
    let group = Group::new("period");
    group
        .apply(r#"{"cpu": {"quota": 20000, "period": 100000}}"#)
        .unwrap();
    group.apply(r#"{"cpu": {"period": 50000}}"#).unwrap();
    if unified() {
        assert_eq!(group.read("cpu", "cpu.max"), "20000 50000");
        group.apply(r#"{"cpu": {"quota": -1}}"#).unwrap();
        assert_eq!(group.read("cpu", "cpu.max"), "max 50000");
        // The idle class has no weight; leaving it gives the old one back.
        group.apply(r#"{"cpu": {"shares": 2048}}"#).unwrap();
        group.apply(r#"{"cpu": {"idle": 1}}"#).unwrap();
        assert_eq!(group.read("cpu", "cpu.idle"), "1");
        group.apply(r#"{"cpu": {"idle": 0, "shares": 1024}}"#).unwrap();
        assert_eq!(group.read("cpu", "cpu.weight"), "100");
    } else {
        assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), "20000");
        assert_eq!(group.read("cpu", "cpu.cfs_period_us"), "50000");
    }
}

#[test]
fn files_of_v2_are_set_by_their_names() {
    if !unified() {
        return;
    }
    let group = Group::new("unified");
    group
        .apply(r#"{"unified": {"memory.high": "16777216", "cpu.weight": "7", "pids.max": "11", "memory.oom.group": "1"}}"#)
        .unwrap();
    assert_eq!(group.read("", "memory.high"), "16777216");
    assert_eq!(
        (
            group.read("", "cpu.weight").as_str(),
            group.read("", "pids.max").as_str()
        ),
        ("7", "11")
    );
    assert_eq!(group.read("", "memory.oom.group"), "1");
    // After the other parts, and over them.
    group
        .apply(r#"{"pids": {"limit": 5}, "unified": {"pids.max": "6"}}"#)
        .unwrap();
    assert_eq!(group.read("", "pids.max"), "6");
}
