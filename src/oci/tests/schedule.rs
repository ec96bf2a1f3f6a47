//! How a container's processes are scheduled, and from where their memory comes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;

use serde_json::{Value, json};
use support::{Bundle, failed, succeeded};

/// A container that sleeps; its first process as `/proc` names it.
fn sleeping(name: &str, field: &str, value: &Value) -> (Bundle, String) {
    let mut bundle = Bundle::new(name, &["/bin/sleep", "1000"]);
    *bundle
        .config
        .pointer_mut(field.rsplit_once('/').unwrap().0)
        .unwrap() = {
        let (parent, key) = field.rsplit_once('/').unwrap();
        let mut object = bundle.config.pointer(parent).unwrap().clone();
        object[key] = value.clone();
        object
    };
    if needs_real_time(value) && shares_real_time() {
        bundle.config["linux"]["resources"]["cpu"] = json!({ "realtimeRuntime": 1000 });
    }
    bundle.start();
    let pid = bundle.state()["pid"].to_string();
    (bundle, pid)
}

fn needs_real_time(scheduler: &Value) -> bool {
    matches!(scheduler["policy"].as_str(), Some("SCHED_FIFO" | "SCHED_RR"))
}

/// Where the kernel shares real time out by cgroups, a new one has none.
fn shares_real_time() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
}

/// Groups of others on the machine may have taken all that there is to share.
fn real_time_is_left() -> bool {
    if !shares_real_time() {
        return true;
    }
    let group = format!("/sys/fs/cgroup/cpu/berth-oci-real-time-{}", std::process::id());
    fs::create_dir(&group).unwrap();
    let left = fs::write(format!("{group}/cpu.rt_runtime_us"), "1000").is_ok();
    fs::remove_dir(group).unwrap();
    left
}

/// Policy, real-time priority and nice value of a process.
fn scheduling(pid: &str) -> (u32, u32, i32) {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    // Fields 41, 40 and 19 of proc_pid_stat(5), counted from the third.
    (
        fields[38].parse().unwrap(),
        fields[37].parse().unwrap(),
        fields[16].parse().unwrap(),
    )
}

#[test]
fn every_policy_that_the_kernel_has() {
    for (scheduler, expected) in [
        (json!({ "policy": "SCHED_OTHER", "nice": 7 }), (0, 0, 7)),
        (json!({ "policy": "SCHED_OTHER", "nice": -7 }), (0, 0, -7)),
        (json!({ "policy": "SCHED_FIFO", "priority": 5 }), (1, 5, 0)),
        (json!({ "policy": "SCHED_RR", "priority": 6 }), (2, 6, 0)),
        (json!({ "policy": "SCHED_BATCH", "nice": 3 }), (3, 0, 3)),
        (json!({ "policy": "SCHED_IDLE" }), (5, 0, 0)),
    ] {
        if needs_real_time(&scheduler) && !real_time_is_left() {
            continue;
        }
        let (bundle, pid) = sleeping("policy", "/process/scheduler", &scheduler);
        assert_eq!(scheduling(&pid), expected, "{scheduler}");
        // A process that is added is scheduled as its own description says, which here is the container's.
        let nice = succeeded(&bundle.exec("cut -d' ' -f41 /proc/self/stat"));
        assert_eq!(nice, expected.0.to_string(), "{scheduler}");
    }
}

#[test]
fn a_deadline_and_children_without_it() {
    let scheduler = json!({
        "policy": "SCHED_DEADLINE", "runtime": 1_000_000, "deadline": 20_000_000, "period": 20_000_000,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"]
    });
    let (_bundle, pid) = sleeping("deadline", "/process/scheduler", &scheduler);
    assert_eq!(scheduling(&pid).0, 6);
}

#[test]
fn schedules_that_make_no_sense_are_refused_by_name() {
    for (scheduler, name) in [
        (json!({ "policy": "SCHED_ISO" }), "process.scheduler"),
        (
            json!({ "policy": "SCHED_OTHER", "nice": 100 }),
            "process.scheduler.nice",
        ),
        (
            json!({ "policy": "SCHED_OTHER", "priority": 1 }),
            "process.scheduler.priority",
        ),
        (
            json!({ "policy": "SCHED_DEADLINE", "runtime": 3, "deadline": 2, "period": 1 }),
            "process.scheduler",
        ),
        (json!({}), "process.scheduler.policy"),
        (json!({ "policy": "SCHED_LATER" }), "SCHED_LATER"),
    ] {
        let mut bundle = Bundle::new("no-policy", &["/bin/true"]);
        bundle.config["process"]["scheduler"] = scheduler;
        let said = failed(&bundle.run());
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn input_and_output_have_a_priority() {
    for (class, number) in [
        ("IOPRIO_CLASS_RT", 1),
        ("IOPRIO_CLASS_BE", 2),
        ("IOPRIO_CLASS_IDLE", 3),
    ] {
        let value = json!({ "class": class, "priority": 3 });
        let (_bundle, pid) = sleeping("io", "/process/ioPriority", &value);
        let printed = std::process::Command::new("ionice")
            .args(["-p", &pid])
            .output()
            .unwrap();
        let expected = match number {
            1 => "realtime: prio 3",
            2 => "best-effort: prio 3",
            _ => "idle",
        };
        assert_eq!(String::from_utf8(printed.stdout).unwrap().trim(), expected);
    }
    let mut bundle = Bundle::new("no-io", &["/bin/true"]);
    bundle.config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 8 });
    assert!(failed(&bundle.run()).contains("process.ioPriority.priority"));
}

#[test]
fn an_added_process_has_processors_of_its_own() {
    let mut bundle = Bundle::new("affinity", &["/bin/sleep", "1000"]);
    bundle.config["process"]["execCPUAffinity"] = json!({ "initial": "0", "final": "1" });
    bundle.start();
    let allowed = "grep Cpus_allowed_list /proc/self/status | cut -f2";
    assert_eq!(succeeded(&bundle.exec(allowed)), "1");
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"))
        .unwrap();
    let first = fs::read_to_string(format!("/proc/{}/status", bundle.state()["pid"])).unwrap();
    assert!(
        first.contains(&format!("Cpus_allowed_list:\t{own}\n")),
        "the first process is left alone"
    );
    let mut bundle = Bundle::new("affinity-begin", &["/bin/sleep", "1000"]);
    bundle.config["process"]["execCPUAffinity"] = json!({ "initial": "1" });
    bundle.start();
    // Older kernels give a process that enters a cgroup all the processors of that.
    let after = succeeded(&bundle.exec(allowed));
    assert!(after == "1" || after == own, "{after}");
    let mut bundle = Bundle::new("no-affinity", &["/bin/true"]);
    bundle.config["process"]["execCPUAffinity"] = json!({ "final": "1-0" });
    assert!(failed(&bundle.run()).contains("process.execCPUAffinity.final"));
}

#[test]
fn the_processors_of_the_caller_are_not_those_of_the_container() {
    let bundle = Bundle::script("pinned", "grep Cpus_allowed_list /proc/self/status | cut -f2");
    let inner = bundle.command(&["run", "--bundle", bundle.path().to_str().unwrap(), bundle.id()]);
    let output = std::process::Command::new("taskset")
        .args(["--cpu-list", "0"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .output()
        .unwrap();
    let own = fs::read_to_string("/proc/self/status").unwrap();
    let own = own
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:\t"))
        .unwrap();
    assert_eq!(succeeded(&output), own);
}

#[test]
fn memory_comes_from_the_nodes_of_the_policy() {
    let script = "cut -d' ' -f2 /proc/self/numa_maps | head -n1";
    for (policy, expected) in [
        (json!({ "mode": "MPOL_BIND", "nodes": "0" }), "bind:0"),
        (
            json!({ "mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"] }),
            "interleave=static:0",
        ),
        (
            json!({ "mode": "MPOL_PREFERRED", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"] }),
            "prefer=relative:0",
        ),
        (json!({ "mode": "MPOL_LOCAL" }), "local"),
        (json!({ "mode": "MPOL_DEFAULT" }), "default"),
    ] {
        let mut bundle = Bundle::script("numa", script);
        bundle.config["linux"]["memoryPolicy"] = policy;
        assert_eq!(bundle.output(), expected);
    }
    for (policy, name) in [
        (
            json!({ "mode": "MPOL_BIND", "nodes": "x" }),
            "linux.memoryPolicy.nodes",
        ),
        (json!({ "mode": "MPOL_BIND" }), "linux.memoryPolicy"),
        (
            json!({ "mode": "MPOL_BIND", "nodes": "4095" }),
            "linux.memoryPolicy",
        ),
        (json!({ "mode": "MPOL_ELSEWHERE" }), "MPOL_ELSEWHERE"),
    ] {
        let mut bundle = Bundle::new("no-numa", &["/bin/true"]);
        bundle.config["linux"]["memoryPolicy"] = policy;
        let said = failed(&bundle.run());
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn a_program_may_believe_in_a_32_bit_machine() {
    let mut bundle = Bundle::script("personality", "uname -m");
    std::os::unix::fs::symlink("busybox", bundle.root().join("bin/uname")).unwrap();
    bundle.config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    let machine = bundle.output();
    assert!(matches!(machine.as_str(), "i686" | "armv8l"), "{machine}");
}
