//! Shims that do not answer: stopped ones stand in for all that hang. Other pods do not notice, and the shim's own pod can be
//! asked about, and ended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/node.rs"]
mod node;

use std::path::Path;
use std::time::{Duration, Instant};

use berth_cri::{
    ContainerConfig, ContainerId, ContainerState, Engine, EngineEventKind, EventStream, LocalEngine,
    PodSandboxConfig, SandboxId,
};
use berth_images::build::File;
use berth_tests::Node;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node::{add_image, engine_config, open, started};
use tokio::runtime::Runtime;

const IMAGE: &str = "test.local/helper:latest";
/// Longer than anything may take, and shorter than forever.
const PATIENCE: Duration = Duration::from_secs(60);

struct Bench {
    node: Node,
    running: Option<(Runtime, LocalEngine)>,
}

impl Bench {
    fn new() -> Self {
        let node = Node::new();
        let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
        add_image(
            &node,
            IMAGE,
            &[File::regular("bin/helper", 0o755, helper)],
            Some("/bin/helper"),
        );
        let running = Some(open(engine_config(node.root()), node.root()));
        Self { node, running }
    }

    fn restart(&mut self) {
        self.kill();
        self.running = Some(open(engine_config(self.node.root()), self.node.root()));
    }

    fn kill(&mut self) {
        if let Some((runtime, engine)) = self.running.take() {
            drop(engine);
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    /// Does work that has to end in time, whatever hangs.
    fn run<T>(&self, work: impl AsyncFnOnce(&LocalEngine) -> T) -> T {
        let (runtime, engine) = self.running.as_ref().unwrap();
        runtime.block_on(async {
            let done = tokio::time::timeout(PATIENCE, work(engine)).await;
            done.unwrap_or_else(|_| panic!("a shim that does not answer holds up the engine"))
        })
    }

    /// A pod with one container that sleeps.
    fn pod(&self, uid: &str) -> Pod {
        let config = node::pod(&self.node, uid);
        self.run(async |engine| {
            let sandbox = engine.run_pod_sandbox(config.clone()).await.unwrap();
            let container = started(engine, &sandbox, sleeping("one")).await;
            let process = engine.container_status(&container).await.unwrap().pid;
            Pod {
                shim: shim(self.node.root(), &sandbox),
                config,
                sandbox,
                container,
                process,
            }
        })
    }

    fn finish(mut self) {
        self.kill();
        node::finish(self.node, &[]);
    }
}

struct Pod {
    config: PodSandboxConfig,
    sandbox: SandboxId,
    container: ContainerId,
    /// The container's first process.
    process: i32,
    shim: Pid,
}

impl Pod {
    fn lives(&self) -> bool {
        Path::new(&format!("/proc/{}/cwd", self.process)).exists()
    }
}

fn sleeping(name: &str) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: IMAGE.into(),
        args: vec!["sleep".into(), "1000".into()],
        log_path: format!("{name}/0.log").into(),
        ..Default::default()
    }
}

fn shim(root: &Path, sandbox: &SandboxId) -> Pid {
    let record = std::fs::read(root.join("run/sandboxes").join(&sandbox.0).join("shim.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap())
}

async fn wait_for(events: &mut EventStream, wanted: &EngineEventKind) {
    while let Some(event) = events.recv().await {
        if event.kind == *wanted {
            return;
        }
    }
    panic!("the engine ended before {wanted:?}");
}

async fn states(engine: &LocalEngine, pod: &Pod) -> (bool, ContainerState) {
    let sandboxes = engine.list_pod_sandboxes(None).await.unwrap();
    let sandbox = sandboxes.iter().find(|sandbox| sandbox.id == pod.sandbox);
    let containers = engine.list_containers(None).await.unwrap();
    let container = containers.iter().find(|container| container.id == pod.container);
    (sandbox.unwrap().ready, container.unwrap().state)
}

#[test]
fn other_pods_are_taken_over_and_the_silent_one_when_it_answers() {
    let mut bench = Bench::new();
    let (silent, other) = (bench.pod("silent"), bench.pod("other"));
    kill(silent.shim, Signal::SIGSTOP).unwrap();
    bench.restart();
    bench.run(async |engine| {
        let mut events = engine.events();
        assert_eq!(states(engine, &silent).await, (false, ContainerState::Unknown));
        assert_eq!(states(engine, &other).await, (true, ContainerState::Running));
        let began = Instant::now();
        states(engine, &other).await;
        assert!(began.elapsed() < Duration::from_secs(2), "each list waits again");
        let command = vec!["/bin/helper".into(), "echo".into(), "here".into()];
        let output = engine
            .exec_sync(&other.container, command, Duration::from_secs(20), 1000)
            .await
            .unwrap();
        assert_eq!(output.stdout, b"here\n");
        let error = engine
            .create_container(&silent.sandbox, sleeping("two"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("not ready"), "{error}");

        kill(silent.shim, Signal::SIGCONT).unwrap();
        wait_for(&mut events, &EngineEventKind::SandboxStarted).await;
        assert_eq!(states(engine, &silent).await, (true, ContainerState::Running));
        let same = engine.run_pod_sandbox(silent.config.clone()).await.unwrap();
        assert_eq!(same, silent.sandbox);
        assert!(silent.lives(), "it was restarted");
        for pod in [&silent, &other] {
            engine.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        }
    });
    bench.finish();
}

#[test]
fn a_pod_that_was_never_heard_can_be_ended() {
    let mut bench = Bench::new();
    let (whole, by_container) = (bench.pod("whole"), bench.pod("by-container"));
    kill(whole.shim, Signal::SIGSTOP).unwrap();
    kill(by_container.shim, Signal::SIGSTOP).unwrap();
    bench.restart();
    bench.run(async |engine| {
        assert_eq!(states(engine, &whole).await, (false, ContainerState::Unknown));
        engine.stop_pod_sandbox(&whole.sandbox).await.unwrap();
        assert!(!whole.lives(), "its process runs on");
        let status = engine.container_status(&whole.container).await.unwrap();
        assert_eq!(
            (status.exit_code, &*status.reason),
            (137, "ContainerStatusUnknown")
        );

        engine
            .stop_container(&by_container.container, Duration::ZERO)
            .await
            .unwrap();
        assert!(!by_container.lives(), "its process runs on");
        engine.remove_container(&by_container.container).await.unwrap();
        for pod in [&whole, &by_container] {
            engine.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        }
    });
    bench.finish();
}

#[test]
fn what_a_kill_left_half_made_with_a_silent_shim_is_undone() {
    let mut bench = Bench::new();
    let pod = bench.pod("half");
    bench.kill();
    let record = bench.node.root().join("lib/sandboxes").join(&pod.sandbox.0);
    let record = record.join("record.json");
    let text = std::fs::read_to_string(&record).unwrap();
    std::fs::write(&record, text.replace("\"Ready\"", "\"Creating\"")).unwrap();
    kill(pod.shim, Signal::SIGSTOP).unwrap();
    bench.restart();
    bench.run(async |engine| {
        assert_eq!(engine.list_pod_sandboxes(None).await.unwrap(), []);
        let other = engine.run_pod_sandbox(pod.config.clone()).await.unwrap();
        assert_ne!(other, pod.sandbox);
        assert!(!pod.lives(), "its process runs on");
        engine.remove_pod_sandbox(&other).await.unwrap();
    });
    bench.finish();
}

#[test]
fn calls_end_while_a_shim_is_silent() {
    let bench = Bench::new();
    let (silent, other) = (bench.pod("silent"), bench.pod("other"));
    kill(silent.shim, Signal::SIGSTOP).unwrap();
    bench.run(async |engine| {
        let mut events = engine.events();
        assert_eq!(states(engine, &silent).await, (true, ContainerState::Running));
        let both = [silent.container.clone(), other.container.clone()];
        assert_eq!(engine.container_stats(&both).await.unwrap().len(), 2);
        let command = vec!["/bin/helper".to_owned(), "echo".into()];
        let error = engine
            .exec_sync(&silent.container, command, Duration::from_secs(1), 1000)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");

        // It goes on, and nothing is lost: it only was not waited for.
        kill(silent.shim, Signal::SIGCONT).unwrap();
        let command = vec!["/bin/helper".to_owned(), "echo".into(), "again".into()];
        let output = engine
            .exec_sync(&silent.container, command, Duration::from_secs(20), 1000)
            .await
            .unwrap();
        assert_eq!(output.stdout, b"again\n");

        kill(silent.shim, Signal::SIGSTOP).unwrap();
        engine
            .stop_container(&silent.container, Duration::from_secs(1))
            .await
            .unwrap();
        assert!(!silent.lives(), "its process runs on");
        wait_for(&mut events, &EngineEventKind::SandboxLost).await;
        assert_eq!(states(engine, &silent).await, (false, ContainerState::Unknown));
        assert_eq!(states(engine, &other).await, (true, ContainerState::Running));
        for pod in [&silent, &other] {
            engine.remove_pod_sandbox(&pod.sandbox).await.unwrap();
        }
    });
    bench.finish();
}
