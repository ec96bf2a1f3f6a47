//! The cgroup driver systemd, where systemd runs on cgroup v2: in the virtual machine of `hack/vm/test systemd`. Elsewhere
//! there is nothing to test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "support/busybox.rs"]
mod busybox;
#[allow(dead_code, reason = "its other half is for plain cgroups")]
#[path = "support/node.rs"]
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use berth_cri::{
    CgroupDriver, ContainerConfig, ContainerId, ContainerState, Engine, EngineConfig, EngineEventKind,
    EventStream, LinuxContainerResources, LocalEngine, PodSandboxConfig, SandboxId,
};
use berth_images::build::File;
use berth_tests::{Node, eventually};
use node::{add_image, engine_config, open, started};
use tokio::runtime::Runtime;

const IMAGE: &str = "test.local/busybox:latest";
const PATIENCE: Duration = Duration::from_secs(60);
const LIMIT: i64 = 64 << 20;

fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir() && Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// A node whose pods are in slices below one that is the test's alone.
struct Bench {
    node: Node,
    running: Option<(Runtime, LocalEngine)>,
    stem: String,
}

impl Bench {
    fn new() -> Self {
        let node = Node::new();
        node.show_systemd();
        let mut files = busybox::files(&["sh", "cat", "sleep", "dd", "true"]);
        files.push(File::directory("etc", 0o755));
        files.push(File::directory("dev", 0o755));
        add_image(&node, IMAGE, &files, None);
        let running = Some(start(&node, CgroupDriver::Systemd));
        Self {
            node,
            running,
            stem: format!("berthtest{}", std::process::id()),
        }
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&LocalEngine) -> T) -> T {
        let (runtime, engine) = self.running.as_ref().unwrap();
        runtime
            .block_on(async { tokio::time::timeout(PATIENCE, work(engine)).await })
            .expect("the test takes too long")
    }

    /// Ends the engine without a word to anybody, as a kill would, and starts another one with another configuration.
    fn restart(&mut self, driver: CgroupDriver) {
        self.end();
        self.running = Some(start(&self.node, driver));
    }

    fn end(&mut self) {
        if let Some((runtime, engine)) = self.running.take() {
            drop(engine);
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// The name of a slice.
    fn slice(&self, pod: &str) -> String {
        format!("{}-{pod}.slice", self.stem)
    }

    /// The directory of a pod's slice.
    fn directory(&self, pod: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup")
            .join(format!("{}.slice", self.stem))
            .join(self.slice(pod))
    }

    fn pod(&self, name: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            name: name.into(),
            namespace: "default".into(),
            uid: name.into(),
            hostname: name.into(),
            log_directory: self.node.root().join("logs"),
            cgroup_parent: self.slice(name).into(),
            privileged: true,
            ..Default::default()
        }
    }

    /// Nothing is left of the slices that came with the sandboxes, in the kernel or in systemd.
    fn finish(mut self) {
        self.end();
        let stem = self.stem.clone();
        assert!(!Path::new("/sys/fs/cgroup").join(format!("{stem}.slice")).exists());
        eventually("systemd forgets the slices", || {
            units(&format!("{stem}*")).is_empty().then_some(())
        });
        node::finish(self.node, &[]);
    }
}

fn start(node: &Node, cgroup_driver: CgroupDriver) -> (Runtime, LocalEngine) {
    let config = EngineConfig {
        cgroup_driver,
        ..engine_config(node.root())
    };
    open(config, node.root())
}

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap().trim().to_owned()
}

/// The units that systemd knows, failed ones too.
fn units(pattern: &str) -> String {
    systemctl(&["list-units", "--all", "--plain", "--no-legend", pattern])
}

fn property(unit: &str, name: &str) -> String {
    systemctl(&["show", "--value", "-p", name, unit])
}

fn scope(id: &str) -> String {
    format!("berth-{id}.scope")
}

fn idle() -> ContainerConfig {
    ContainerConfig {
        name: "main".into(),
        image: IMAGE.into(),
        command: ["sleep", "1000"].map(str::to_owned).to_vec(),
        log_path: "main/0.log".into(),
        resources: LinuxContainerResources {
            cpu_quota: Some(50_000),
            cpu_period: Some(100_000),
            memory_limit: Some(LIMIT),
            ..Default::default()
        },
        ..Default::default()
    }
}

async fn sh(engine: &LocalEngine, id: &ContainerId, script: &str) -> String {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    let output = engine.exec_sync(id, command, PATIENCE, 1 << 20).await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

async fn pid(engine: &LocalEngine, id: &ContainerId) -> i32 {
    engine.container_status(id).await.unwrap().pid
}

/// The group of a process, as the kernel has it.
fn group_of(pid: i32) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    text.trim().trim_start_matches("0::").to_owned()
}

async fn info(engine: &LocalEngine, sandbox: &SandboxId) -> serde_json::Value {
    let info = engine.sandbox_info(sandbox).await.unwrap();
    serde_json::from_str(&info["info"]).unwrap()
}

async fn ended(events: &mut EventStream, wanted: &EngineEventKind) {
    while events.recv().await.expect("the engine ended").kind != *wanted {}
}

#[test]
fn a_pod_is_scopes_in_its_slice() {
    if !booted() {
        return;
    }
    let bench = Bench::new();
    let (config, directory, slice) = (bench.pod("life"), bench.directory("life"), bench.slice("life"));
    let path = format!("/{}.slice/{slice}", bench.stem);
    bench.run(async |engine| {
        assert_eq!(engine.cgroup_driver().await.unwrap(), CgroupDriver::Systemd);
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = started(engine, &sandbox, idle()).await;
        let (of_pod, of_container) = (scope(&sandbox.0), scope(&id.0));
        for unit in [&of_pod, &of_container] {
            let found = ["ActiveState", "Slice", "Delegate"].map(|name| property(unit, name));
            assert_eq!(
                found,
                ["active".to_owned(), slice.clone(), "yes".to_owned()],
                "{unit}"
            );
        }
        // Limits are those of the scope and of its group's files.
        assert_eq!(property(&of_container, "MemoryMax"), LIMIT.to_string());
        let limits = |file: &str| fs::read_to_string(directory.join(&of_container).join(file)).unwrap();
        assert_eq!(limits("memory.max").trim(), LIMIT.to_string());
        assert_eq!(limits("cpu.max").trim(), "50000 100000");

        let info = info(engine, &sandbox).await;
        let pause = i32::try_from(info["pid"].as_i64().unwrap()).unwrap();
        assert_eq!(info["cgroupsPath"], format!("{slice}:berth:{}", sandbox.0));
        assert_eq!(group_of(pause), format!("{path}/{of_pod}"));
        let container = group_of(pid(engine, &id).await);
        assert_eq!(container, format!("{path}/{of_container}"));
        let verbose = engine.container_info(&id).await.unwrap();
        assert!(
            verbose["info"].contains(&format!("\"{slice}:berth:{}\"", id.0)),
            "{verbose:?}"
        );
        // A command has a group of its own below the container's.
        let seen = sh(engine, &id, "cat /proc/1/cgroup /proc/self/cgroup").await;
        assert!(seen.starts_with("0::/\n0::/exec-"), "{seen}");

        let more = LinuxContainerResources {
            memory_limit: Some(2 * LIMIT),
            ..Default::default()
        };
        engine.update_container_resources(&id, more).await.unwrap();
        assert_eq!(property(&of_container, "MemoryMax"), (2 * LIMIT).to_string());
        assert_eq!(limits("memory.max").trim(), (2 * LIMIT).to_string());
        // systemd reads its units again, and nothing is undone.
        systemctl(&["daemon-reload"]);
        assert_eq!(limits("memory.max").trim(), (2 * LIMIT).to_string());
        assert_eq!(limits("cpu.max").trim(), "50000 100000");

        let stats = engine.container_stats(std::slice::from_ref(&id)).await.unwrap();
        assert!(stats[0].memory.as_ref().unwrap().usage_bytes.unwrap().value > 0);
        let stats = engine
            .pod_sandbox_stats(std::slice::from_ref(&sandbox))
            .await
            .unwrap();
        let linux = stats[0].linux.as_ref().unwrap();
        // Pause, shim and the container's program.
        assert_eq!(linux.process.as_ref().unwrap().process_count.unwrap().value, 3);

        engine.remove_container(&id).await.unwrap();
        assert_eq!(units(&of_container), "");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        assert_eq!(units(&of_pod), "");
        assert!(!directory.exists());
    });
    bench.finish();
}

#[test]
fn running_out_of_memory_leaves_no_failed_scope() {
    if !booted() {
        return;
    }
    let bench = Bench::new();
    let config = bench.pod("oom");
    bench.run(async |engine| {
        let mut events = engine.events();
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let glutton = ContainerConfig {
            command: ["dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1"]
                .map(str::to_owned)
                .to_vec(),
            ..idle()
        };
        let id = started(engine, &sandbox, glutton).await;
        ended(&mut events, &EngineEventKind::ContainerExited(id.clone())).await;
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!((status.exit_code, &*status.reason), (137, "OOMKilled"));
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        assert_eq!(units(&scope(&id.0)), "");
    });
    bench.finish();
}

#[test]
fn pods_stay_with_the_driver_that_made_them() {
    if !booted() {
        return;
    }
    let mut bench = Bench::new();
    let config = bench.pod("kept");
    let (sandbox, id, first) = bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = started(engine, &sandbox, idle()).await;
        let first = pid(engine, &id).await;
        (sandbox, id, first)
    });
    bench.restart(CgroupDriver::Cgroupfs);
    bench.run(async |engine| {
        engine.list_pod_sandboxes(None).await.unwrap();
        assert_eq!(pid(engine, &id).await, first);
        let next = started(
            engine,
            &sandbox,
            ContainerConfig {
                name: "next".into(),
                ..idle()
            },
        )
        .await;
        assert_eq!(property(&scope(&next.0), "ActiveState"), "active");
        let seen = sh(engine, &next, "cat /proc/1/cgroup /proc/self/cgroup").await;
        assert!(seen.starts_with("0::/\n0::/exec-"), "{seen}");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        for gone in [&sandbox.0, &id.0, &next.0] {
            assert_eq!(units(&scope(gone)), "");
        }
    });
    bench.finish();
}

#[test]
fn a_killed_shims_scopes_go() {
    if !booted() {
        return;
    }
    let bench = Bench::new();
    let (config, run) = (bench.pod("shim"), bench.node.root().join("run/sandboxes"));
    bench.run(async |engine| {
        let mut events = engine.events();
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = started(engine, &sandbox, idle()).await;
        let record = fs::read(run.join(&sandbox.0).join("shim.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let shim = nix::unistd::Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap());
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
        ended(&mut events, &EngineEventKind::SandboxLost).await;
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!((status.state, status.exit_code), (ContainerState::Unknown, 137));
        for gone in [&sandbox.0, &id.0] {
            assert_eq!(units(&scope(gone)), "");
        }
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_slice_that_was_there_stays() {
    if !booted() {
        return;
    }
    let bench = Bench::new();
    let (slice, whole) = (bench.slice("own"), format!("{}.slice", bench.stem));
    assert_eq!(systemctl(&["start", &slice]), "");
    // As a kubelet names it.
    let config = PodSandboxConfig {
        cgroup_parent: Path::new(&whole).join(&slice),
        ..bench.pod("own")
    };
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        started(engine, &sandbox, idle()).await;
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    assert_eq!(property(&slice, "ActiveState"), "active");
    assert_eq!(systemctl(&["stop", &slice, &whole]), "");
    bench.finish();
}

#[test]
fn a_pod_without_a_parent_is_in_the_systems_slice_and_a_path_is_refused() {
    if !booted() {
        return;
    }
    let bench = Bench::new();
    let (none, path) = (
        PodSandboxConfig {
            cgroup_parent: PathBuf::new(),
            ..bench.pod("none")
        },
        PodSandboxConfig {
            cgroup_parent: "kubepods/podx".into(),
            ..bench.pod("path")
        },
    );
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(none).await.unwrap();
        assert_eq!(property(&scope(&sandbox.0), "Slice"), "system.slice");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        let refused = engine.run_pod_sandbox(path).await.unwrap_err().to_string();
        assert!(
            refused.contains("kubepods/podx") && refused.contains("cgroupfs"),
            "{refused}"
        );
        assert!(engine.list_pod_sandboxes(None).await.unwrap().is_empty());
    });
    bench.finish();
}

#[test]
fn the_hosts_driver_is_systemd() {
    if booted() {
        assert_eq!(CgroupDriver::of_host(), CgroupDriver::Systemd);
    }
}
