//! Groups on the real kernel, whichever hierarchies it has. Each test makes groups of its own and looks, at its end,
//! whether any is left.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod devices;
mod resources;
mod statistics;
mod tree;

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_runtime::cgroups::{Cgroup, CgroupError, Controller, Hierarchies, allow_default_devices};
use berth_runtime::oci::{LinuxDeviceCgroup, LinuxResources};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollTimeout, poll};
use nix::unistd::Pid;

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A group that is gone, with its processes, at the end of a test, even of one that failed.
struct Group(Cgroup);

impl Group {
    fn new(name: &str) -> Self {
        let path = format!(
            "berth-test-{}-{name}/burstable/pod1/container",
            std::process::id()
        );
        Self(Cgroup::create(&path).unwrap())
    }

    fn apply(&self, json: &str) -> Result<(), CgroupError> {
        self.0.apply(&resources(json))
    }

    /// Where the group's files are, for whoever looks from outside. Empty for what the host lacks.
    fn directory(&self, controller: &str) -> PathBuf {
        let v1 = PathBuf::from(format!("/sys/fs/cgroup/{controller}"));
        let root = if unified() {
            PathBuf::from("/sys/fs/cgroup")
        } else {
            v1
        };
        root.join(self.0.path().as_str())
    }

    fn read(&self, controller: &str, file: &str) -> String {
        let path = self.directory(controller).join(file);
        std::fs::read_to_string(&path)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            .trim()
            .to_owned()
    }

    /// A shell that enters the group by itself, as a container does, and then runs a script.
    fn shell(&self, script: &str) -> Child {
        let files = self.0.entry_files().unwrap();
        let mut enter = String::new();
        for file in &files {
            fcntl(file, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
            enter.push_str(&format!(
                "printf 0 > /proc/self/fd/{} || exit 99; ",
                file.as_fd().as_raw_fd()
            ));
        }
        let mut command = Command::new("/bin/sh");
        command
            .arg("-c")
            .arg(format!("{enter}{script}"))
            .stdout(Stdio::piped())
            .stdin(Stdio::null());
        command.spawn().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let mut path = Some(self.0.path().clone());
        self.0.kill_all().unwrap();
        while let Some(current) = path {
            if let Some(group) = Cgroup::open(current.as_str()).unwrap() {
                group.delete().unwrap();
            }
            assert!(
                Cgroup::open(current.as_str()).unwrap().is_none(),
                "{current} is left"
            );
            path = current.parent();
        }
    }
}

fn unified() -> bool {
    Hierarchies::get().unwrap().is_unified()
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

fn output(mut child: Child) -> String {
    let mut text = String::new();
    child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    child.wait().unwrap();
    text
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn limits_arrive_in_the_kernel() {
    let group = Group::new("limits");
    let json = r#"{
        "memory": {"limit": 67108864, "reservation": 33554432, "swap": 100663296},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000},
        "pids": {"limit": 50}
    }"#;
    group.apply(json).unwrap();
    assert_eq!(group.read("pids", "pids.max"), "50");
    if unified() {
        assert_eq!(group.read("memory", "memory.max"), "67108864");
        assert_eq!(group.read("memory", "memory.low"), "33554432");
        assert_eq!(group.read("memory", "memory.swap.max"), "33554432");
        assert_eq!(group.read("cpu", "cpu.weight"), "59");
        assert_eq!(group.read("cpu", "cpu.max"), "50000 100000");
    } else {
        assert_eq!(group.read("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(group.read("memory", "memory.soft_limit_in_bytes"), "33554432");
        assert_eq!(group.read("memory", "memory.memsw.limit_in_bytes"), "100663296");
        assert_eq!(group.read("cpu", "cpu.shares"), "512");
        assert_eq!(group.read("cpu", "cpu.cfs_quota_us"), "50000");
        assert_eq!(group.read("cpu", "cpu.cfs_period_us"), "100000");
        assert_eq!(
            group.read("cpuset", "cpuset.cpus"),
            std::fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus")
                .unwrap()
                .trim()
        );
    }
}

#[test]
fn limits_can_be_changed_in_both_directions() {
    let group = Group::new("updates");
    for mib in [64_i64, 512, 32] {
        let bytes = mib << 20;
        group
            .apply(&format!(r#"{{"memory": {{"limit": {bytes}, "swap": {bytes}}}}}"#))
            .unwrap();
        assert_eq!(
            group.0.stats().unwrap().memory.unwrap().limit,
            Some(bytes.unsigned_abs())
        );
    }
    group.apply(r#"{"memory": {"limit": -1}}"#).unwrap();
    assert_eq!(group.0.stats().unwrap().memory.unwrap().limit, None);
    for (quota, period, burst) in [
        (50_000, 100_000, 10_000),
        (5_000, 10_000, 5_000),
        (200_000, 100_000, 200_000),
    ] {
        group
            .apply(&format!(
                r#"{{"cpu": {{"quota": {quota}, "period": {period}, "burst": {burst}}}}}"#
            ))
            .unwrap();
    }
    group.apply(r#"{"cpu": {"quota": -1, "idle": 1}}"#).unwrap();
    group.apply(r#"{"cpu": {"idle": 0, "shares": 2}}"#).unwrap();
    group
        .apply(r#"{"cpu": {"cpus": "0", "mems": "0"}, "pids": {"limit": -1}}"#)
        .unwrap();
    assert_eq!(group.read("pids", "pids.max"), "max");
    assert_eq!(group.read("cpuset", "cpuset.cpus"), "0");
}

#[test]
fn what_cannot_be_set_is_refused_by_name() {
    let group = Group::new("refusals");
    let refused = |json: &str, word: &str| {
        let message = group.apply(json).unwrap_err().to_string();
        assert!(
            message.contains(word) && message.ends_with('.'),
            "{json}: {message}"
        );
    };
    refused(r#"{"memory": {"kernel": 1048576}}"#, "memory.kernel");
    refused(r#"{"memory": {"useHierarchy": false}}"#, "useHierarchy");
    refused(r#"{"cpu": {"idle": 7}}"#, "cpu.idle");
    refused(r#"{"cpu": {"cpus": "4000"}}"#, "cpuset.cpus");
    refused(
        r#"{"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}"#,
        "hugepageLimits",
    );
    refused(
        r#"{"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}"#,
        "hugepageLimits",
    );
    refused(r#"{"network": {"classID": 1}}"#, "network.classID");
    refused(r#"{"blockIO": {"leafWeight": 100}}"#, "leafWeight");
    refused(r#"{"blockIO": {"weight": 1001}}"#, "blockIO.weight");
    refused(r#"{"unified": {"../cgroup.procs": "0"}}"#, "unified");
    refused(r#"{"unified": {"cgroup.procs": "0"}}"#, "unified");
    refused(r#"{"unified": {"memory.nonsense": "1"}}"#, "unified");
    refused(
        r#"{"devices": [{"allow": true, "type": "c", "access": "x"}]}"#,
        "devices.access",
    );
    if unified() {
        refused(r#"{"memory": {"disableOOMKiller": true}}"#, "disableOOMKiller");
        refused(r#"{"memory": {"swappiness": 10}}"#, "swappiness");
        refused(r#"{"memory": {"swap": 10}}"#, "memory.swap");
        refused(r#"{"cpu": {"realtimeRuntime": 1000}}"#, "realtimeRuntime");
    } else {
        refused(r#"{"cpu": {"shares": 1}}"#, "cpu.shares");
        refused(r#"{"memory": {"swappiness": 101}}"#, "swappiness");
    }
}

#[test]
fn a_limit_below_usage_is_refused_when_asked() {
    let group = Group::new("check");
    let child = group.shell("head -c 8000000 /dev/zero | tail -c 8000000 | (sleep 1000; cat)");
    wait_until("memory is used", || {
        group.0.stats().unwrap().memory.unwrap().usage > 2 << 20
    });
    let error = group
        .apply(r#"{"memory": {"limit": 4096, "checkBeforeUpdate": true}}"#)
        .unwrap_err();
    assert!(matches!(error, CgroupError::BelowUsage { .. }), "{error}");
    group.0.kill_all().unwrap();
    output(child);
}

#[test]
fn a_process_enters_every_hierarchy_by_itself() {
    let group = Group::new("enter");
    let lines = output(group.shell("cat /proc/self/cgroup"));
    let ours: Vec<&str> = lines
        .lines()
        .filter(|line| line.ends_with(group.0.path().as_str()))
        .collect();
    if unified() {
        assert_eq!(ours.len(), 1, "{lines}");
    } else {
        for controller in [
            "cpu", "cpuacct", "cpuset", "memory", "blkio", "devices", "freezer", "pids",
        ] {
            assert!(
                ours.iter().any(|line| line.contains(controller)),
                "{controller}: {lines}"
            );
        }
    }
    // Where a unified hierarchy is mounted, it has the process too.
    assert!(
        ours.iter().any(|line| line.starts_with("0::")) || !lines.contains("0::/berth"),
        "{lines}"
    );
}

#[test]
fn a_process_can_be_moved_in() {
    let group = Group::new("move");
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    group.0.add_process(pid).unwrap();
    assert_eq!(group.0.pids().unwrap(), [pid]);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
    assert!(group.0.pids().unwrap().is_empty());
    let error = group.0.add_process(pid).unwrap_err();
    assert!(error.to_string().contains("ESRCH"), "{error}");
}

#[test]
fn an_out_of_memory_kill_is_heard_and_counted() {
    let group = Group::new("oom");
    group
        .apply(r#"{"memory": {"limit": 16777216, "swap": 16777216}}"#)
        .unwrap();
    let watch = group.0.oom_watch().unwrap();
    assert_eq!(group.0.oom_kill_count().unwrap(), 0);
    let child = group.shell("head -c 200000000 /dev/zero | tail -c 200000000 | wc -c");
    let mut fds = [PollFd::new(watch.as_fd(), watch.interest())];
    let patience = PollTimeout::try_from(PATIENCE).unwrap();
    assert_eq!(poll(&mut fds, patience), Ok(1), "no event came");
    // On v1 the event is sent first.
    wait_until("the kill is counted", || group.0.oom_kill_count().unwrap() > 0);
    output(child);
    // Nothing is left to hear.
    watch.acknowledge();
    let mut fds = [PollFd::new(watch.as_fd(), watch.interest())];
    assert_eq!(poll(&mut fds, PollTimeout::ZERO).unwrap(), 0);
}

#[test]
fn processes_stop_at_the_limit() {
    let group = Group::new("pids");
    group.apply(r#"{"pids": {"limit": 5}}"#).unwrap();
    let script = "trap '' TERM; n=0; while [ $n -lt 20 ]; do sleep 1000 & n=$((n+1)); done 2>/dev/null; wait";
    let mut child = group.shell(script);
    wait_until("the group is full", || {
        group.0.stats().unwrap().pids == Some(5) || child_ended(&group)
    });
    assert!(group.0.pids().unwrap().len() <= 5);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

/// A shell that can't fork gives up; what it started is left.
fn child_ended(group: &Group) -> bool {
    group.0.stats().unwrap().pids == Some(4)
}

#[test]
fn a_frozen_group_stands_still_and_can_be_killed() {
    let group = Group::new("freeze");
    let mut child = group.shell("while :; do :; done");
    wait_until("the shell runs", || group.0.pids().unwrap().len() == 1);
    group.0.freeze().unwrap();
    assert!(group.0.is_frozen().unwrap());
    let used = || group.0.stats().unwrap().cpu.unwrap().usage_ns;
    let before = used();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(used(), before, "a frozen process used time");
    group.0.thaw().unwrap();
    assert!(!group.0.is_frozen().unwrap());
    wait_until("it runs again", || used() > before);
    group.0.freeze().unwrap();
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn freezing_does_not_wait_for_what_somebody_else_thawed() {
    let group = Group::new("thawed");
    let mut child = group.shell("while :; do (:); done");
    wait_until("the shell runs", || !group.0.pids().unwrap().is_empty());
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                group.0.thaw().unwrap();
            }
        });
        for round in 0..100 {
            let began = Instant::now();
            let frozen = group.0.freeze();
            assert!(
                matches!(frozen, Ok(()) | Err(CgroupError::Thawed { .. })),
                "{round}: {frozen:?} after {:?}",
                began.elapsed()
            );
        }
        done.store(true, Ordering::Relaxed);
    });
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_fork_storm_is_killed_and_its_group_removed() {
    let group = Group::new("storm");
    group.apply(r#"{"pids": {"limit": 60}}"#).unwrap();
    let mut child = group.shell("f() { sleep 1000 & f2; }; f2() { (f) 2>/dev/null & sleep 0.01; f2; }; f2");
    wait_until("it grows", || group.0.pids().unwrap().len() > 10);
    group.0.kill_all().unwrap();
    child.wait().unwrap();
    group.0.delete().unwrap();
    assert!(Cgroup::open(group.0.path().as_str()).unwrap().is_none());
    // Again is no error.
    group.0.delete().unwrap();
}

#[test]
fn groups_below_go_too_with_their_processes() {
    let group = Group::new("nested");
    let inner = Cgroup::create(&format!("{}/a/b", group.0.path())).unwrap();
    let other = Cgroup::create(&format!("{}/c", group.0.path())).unwrap();
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    inner.add_process(pid).unwrap();
    assert_eq!(group.0.pids().unwrap(), [pid]);
    assert!(other.pids().unwrap().is_empty());
    group.0.kill_all().unwrap();
    child.wait().unwrap();
    group.0.delete().unwrap();
    assert!(Cgroup::open(inner.path().as_str()).unwrap().is_none());
}

#[test]
fn devices_are_allowed_by_the_rules() {
    let group = Group::new("devices");
    let mut spec = LinuxResources::default();
    let mut rules = vec![LinuxDeviceCgroup::default()];
    allow_default_devices(&mut rules);
    // Without /dev/zero.
    rules.retain(|rule| rule.minor != Some(5));
    spec.devices = rules;
    group.0.apply(&spec).unwrap();
    let script = "for d in null zero full; do head -c 0 < /dev/$d 2>/dev/null && echo $d; done; true";
    assert_eq!(output(group.shell(script)), "null\nfull\n");
    // The rules are replaced, not added to: all devices, then only reading one.
    group
        .apply(r#"{"devices": [{"allow": true, "access": "rwm"}]}"#)
        .unwrap();
    assert_eq!(output(group.shell(script)), "null\nzero\nfull\n");
    let read_only = r#"{"devices": [{"allow": false, "access": "rwm"},
        {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        {"allow": true, "type": "c", "major": 1, "minor": 7, "access": "r"}]}"#;
    group.apply(read_only).unwrap();
    let script = "head -c 0 < /dev/full && echo read; (: > /dev/full) 2>/dev/null || echo refused";
    assert_eq!(output(group.shell(script)), "read\nrefused\n");
}

#[test]
fn usage_is_counted() {
    let group = Group::new("stats");
    let mut child = group.shell("head -c 20000000 /dev/urandom | tail -c 20000000 | (sleep 1000; cat)");
    wait_until("it uses memory and time", || {
        let stats = group.0.stats().unwrap();
        let memory = stats.memory.unwrap();
        memory.usage > 16 << 20 && memory.rss > 8 << 20 && stats.cpu.unwrap().usage_ns > 0
    });
    let stats = group.0.stats().unwrap();
    let memory = stats.memory.unwrap();
    assert!(
        memory.working_set <= memory.usage && memory.page_faults > 0,
        "{stats:?}"
    );
    assert!(stats.pids.unwrap() >= 2, "{stats:?}");
    // Whether there are numbers is the kernel's configuration; that they can be asked for is not.
    group.0.pressures().unwrap();
    let bounds = group.0.bounds().unwrap();
    assert_eq!(
        (bounds.memory, bounds.cpu_quota, bounds.pids),
        (None, None, None),
        "{bounds:?}"
    );
    group.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn only_what_exists_is_opened() {
    assert!(Cgroup::open("berth-test-no-such-group").unwrap().is_none());
    for bad in ["", "/", "../escape", "a/../../b", "a//b"] {
        assert!(
            matches!(Cgroup::create(bad), Err(CgroupError::Path { .. })),
            "{bad:?}"
        );
    }
    let group = Group::new("open");
    let again = Cgroup::open(group.0.path().as_str()).unwrap().unwrap();
    assert_eq!(again.path(), group.0.path());
    // Making a group that exists takes it as it is.
    Cgroup::create(group.0.path().as_str()).unwrap();
    assert_eq!(group.0.entry_fd().is_some(), unified());
}

/// As a pod has it: the shim in one group, each container in another, limits on the group above.
#[test]
fn managers_and_containers_share_a_pod() {
    let pod = Group::new("pod");
    let sandbox = Cgroup::create(&format!("{}/sandbox", pod.0.path())).unwrap();
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    sandbox.add_process(pid).unwrap();
    let limits = resources(r#"{"memory": {"limit": 67108864}, "pids": {"limit": 10}}"#);
    pod.0.apply(&limits).unwrap();
    let container = Cgroup::create(&format!("{}/container", pod.0.path())).unwrap();
    container.apply(&limits).unwrap();
    assert_eq!(pod.0.pids().unwrap(), [pid]);
    pod.0.kill_all().unwrap();
    child.wait().unwrap();
}

#[test]
fn huge_pages_are_limited_where_the_controller_is() {
    let group = Group::new("hugetlb");
    if !Hierarchies::get().unwrap().supports(Controller::HugeTlb) {
        let error = group
            .apply(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#)
            .unwrap_err();
        assert!(error.to_string().contains("hugetlb"), "{error}");
        return;
    }
    group
        .apply(r#"{"hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}]}"#)
        .unwrap();
    group
        .apply(r#"{"unified": {"hugetlb.2MB.max": "2097152"}}"#)
        .unwrap();
}

/// All of the above once more where v1 is all that there is, on a host that has both.
#[test]
fn v1_alone_is_enough() {
    const INSIDE: &str = "BERTH_TEST_V1_ONLY";
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    if !hybrid || std::env::var_os(INSIDE).is_some() {
        return;
    }
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("umount /sys/fs/cgroup/unified && exec \"$0\" --test-threads 2");
    let output = command
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}
