//! `update`: the limits of a running container.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

/// A control file of the container's, which has another name on each version.
fn read(bundle: &Bundle, v1: &str, v2: &str) -> String {
    succeeded(&bundle.exec(&format!(
        "cat /sys/fs/cgroup/{v1} 2>/dev/null || cat /sys/fs/cgroup/{v2}"
    )))
}

/// `update` with resources on its standard input.
fn update_from(bundle: &Bundle, resources: &Value) -> Output {
    let mut child = bundle
        .command(&["update", "-r", "-", bundle.id()])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(resources.to_string().as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

/// The resources that later updates build upon.
fn remembered(bundle: &Bundle) -> Value {
    let state = fs::read(bundle.state_directory().join("state.json")).unwrap();
    serde_json::from_slice::<Value>(&state).unwrap()["config"]["linux"]["resources"].take()
}

#[test]
fn every_limit_can_be_updated() {
    let mut bundle = Bundle::new("update", &["/bin/sleep", "1000"]);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20 });
    bundle.start();
    let update = |arguments: &[&str]| bundle.oci(&[&["update"], arguments, &[bundle.id()]].concat());
    for (arguments, v1, v2, expected) in [
        (
            &["--memory", "32m"][..],
            "memory/memory.limit_in_bytes",
            "memory.max",
            &["33554432"][..],
        ),
        (
            &["--memory-reservation=16MiB"],
            "memory/memory.soft_limit_in_bytes",
            "memory.low",
            &["16777216"],
        ),
        (
            &["--cpu-share", "512"],
            "cpu/cpu.shares",
            "cpu.weight",
            &["512", "20", "59", "50"],
        ),
        (
            &["--cpu-shares=1024"],
            "cpu/cpu.shares",
            "cpu.weight",
            &["1024", "39", "100"],
        ),
        (
            &["--cpu-period", "50000", "--cpu-quota", "25000"],
            "cpu/cpu.cfs_quota_us",
            "cpu.max",
            &["25000", "25000 50000"],
        ),
        (
            &["--cpu-quota", "30000"],
            "cpu/cpu.cfs_quota_us",
            "cpu.max",
            &["30000", "30000 50000"],
        ),
        (
            &["--cpu-burst", "1000"],
            "cpu/cpu.cfs_burst_us",
            "cpu.max.burst",
            &["1000"],
        ),
        (
            &["--cpu-quota=-1"],
            "cpu/cpu.cfs_quota_us",
            "cpu.max",
            &["-1", "max 50000"],
        ),
        (&["--cpu-idle", "1"], "cpu/cpu.idle", "cpu.idle", &["1"]),
        (&["--cpu-idle", "0"], "cpu/cpu.idle", "cpu.idle", &["0"]),
        (
            &["--cpuset-cpus", "0", "--cpuset-mems", "0"],
            "cpuset/cpuset.cpus",
            "cpuset.cpus",
            &["0"],
        ),
        (&["--pids-limit", "77"], "pids/pids.max", "pids.max", &["77"]),
        (&["--pids-limit=-1"], "pids/pids.max", "pids.max", &["max"]),
        (
            &["--memory", "0", "--cpu-share", "0"],
            "memory/memory.limit_in_bytes",
            "memory.max",
            &["33554432"],
        ),
        (
            &["--memory=-1"],
            "memory/memory.limit_in_bytes",
            "memory.max",
            &["9223372036854771712", "max"],
        ),
    ] {
        succeeded(&update(arguments));
        let found = read(&bundle, v1, v2);
        assert!(expected.contains(&found.as_str()), "{arguments:?}: {found}");
    }
    for (arguments, expected) in [
        (&["--memory", "much"][..], "much"),
        (&["--cpu-period=x"], "--cpu-period"),
        (&["--l3-cache-schema", "L3:0=f"], "linux.intelRdt"),
        (&["-r", "/nosuch"], "/nosuch"),
        (&["-r", "/dev/null"], "not valid"),
    ] {
        assert!(failed(&update(arguments)).contains(expected), "{arguments:?}");
    }
    let kernel = update(&["--kernel-memory", "5m"]);
    assert!(
        succeeded(&kernel).is_empty() && String::from_utf8_lossy(&kernel.stderr).contains("ernel memory")
    );
    let mut child = bundle
        .command(&["update", "-r", "-", "--pids-limit", "5", bundle.id()])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let text = json!({ "pids": { "limit": 66 }, "memory": { "limit": 0 }, "cpu": null, "devices": [{ "allow": false, "access": "rwm" }] });
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.to_string().as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    // The file counts, the flags beside it do not.
    assert_eq!(read(&bundle, "pids/pids.max", "pids.max"), "66");
}

#[test]
fn an_update_that_is_refused_changes_nothing() {
    let mut bundle = Bundle::new("refused", &["/bin/sleep", "1000"]);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 128 << 20 });
    bundle.config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    bundle.start();
    let limits = || {
        [
            ("memory/memory.limit_in_bytes", "memory.max"),
            ("memory/memory.memsw.limit_in_bytes", "memory.swap.max"),
            ("cpu/cpu.shares", "cpu.weight"),
            ("cpu/cpu.cfs_quota_us", "cpu.max"),
            ("cpuset/cpuset.cpus", "cpuset.cpus.effective"),
            ("pids/pids.max", "pids.max"),
        ]
        .map(|(v1, v2)| read(&bundle, v1, v2))
    };
    let (before, known) = (limits(), remembered(&bundle));
    for memory in [
        json!({ "limit": 32 << 20, "swap": 32 << 20 }),
        json!({ "limit": 256 << 20, "swap": 512 << 20 }),
    ] {
        let resources = json!({
            "memory": memory,
            "cpu": { "shares": 512, "quota": 20000, "cpus": "0" },
            "pids": { "limit": 60 },
            "unified": { "berth.nosuch": "1" }
        });
        let said = failed(&update_from(&bundle, &resources));
        assert!(said.contains("berth.nosuch"), "{said}");
        assert_eq!(limits(), before);
        assert_eq!(remembered(&bundle), known);
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn an_update_builds_upon_the_ones_before() {
    let mut bundle = Bundle::new("builds", &["/bin/sleep", "1000"]);
    bundle.config["linux"]["resources"]["memory"] = json!({ "limit": 64 << 20, "swap": 128 << 20 });
    bundle.start();
    let swap = || read(&bundle, "memory/memory.memsw.limit_in_bytes", "memory.swap.max");
    let v2 = fs::metadata("/sys/fs/cgroup/cgroup.controllers").is_ok();
    // Memory and swap together stay what they were; v2 shows swap alone.
    for (arguments, total, alone) in [
        (["--memory", "96m"], 128_u64 << 20, 32_u64 << 20),
        (["--memory-swap", "160m"], 160 << 20, 64 << 20),
        (["--memory", "100m"], 160 << 20, 60 << 20),
    ] {
        succeeded(&bundle.oci(&[&["update"], &arguments[..], &[bundle.id()]].concat()));
        let expected = if v2 { alone } else { total };
        assert_eq!(swap(), expected.to_string(), "{arguments:?}");
    }
    let known = remembered(&bundle);
    assert_eq!(known["memory"], json!({ "limit": 100 << 20, "swap": 160 << 20 }));
    // Others that update at the same time are not forgotten.
    std::thread::scope(|scope| {
        for arguments in [
            ["--pids-limit", "70"],
            ["--cpu-shares", "300"],
            ["--cpu-burst", "0"],
            ["--blkio-weight", "0"],
        ] {
            let bundle = &bundle;
            let update = [&["update"], &arguments[..], &[bundle.id()]].concat();
            scope.spawn(move || succeeded(&bundle.command_as_written(&update).output().unwrap()));
        }
    });
    let known = remembered(&bundle);
    assert_eq!(known["pids"]["limit"], 70);
    assert_eq!(
        (&known["cpu"]["shares"], &known["cpu"]["burst"]),
        (&json!(300), &json!(0))
    );
    assert_eq!(known["memory"]["limit"], 100 << 20);
}
