//! The engine on the real kernel: sandboxes and containers made, killed, lost and taken over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/node.rs"]
mod node;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{
    ContainerConfig, ContainerState, Engine, EngineConfig, EngineError, EngineEventKind, EventStream,
    LocalEngine, PodSandboxConfig,
};
use berth_images::build::File;
use berth_tests::Node;
use node::{add_image, engine_config, open, started};
use tokio::runtime::Runtime;

const IMAGE: &str = "test.local/helper:latest";
const PATIENCE: Duration = Duration::from_secs(20);

/// A node with an engine on it.
struct Bench {
    node: Node,
    running: Option<(Runtime, LocalEngine)>,
}

impl Bench {
    fn new() -> Self {
        let node = Node::new();
        let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
        let files = [
            File::regular("bin/helper", 0o755, helper),
            File::directory("tmp", 0o1777),
        ];
        add_image(&node, IMAGE, &files, Some("/bin/helper"));
        let running = Some(start(node.root()));
        Self { node, running }
    }

    /// Ends the engine without a word to anybody, as a kill would, and starts another one.
    fn restart(&mut self) {
        self.kill();
        self.running = Some(start(self.node.root()));
    }

    fn kill(&mut self) {
        if let Some((runtime, engine)) = self.running.take() {
            drop(engine);
            runtime.shutdown_timeout(PATIENCE);
        }
    }

    fn run<T>(&self, work: impl AsyncFnOnce(&LocalEngine) -> T) -> T {
        let (runtime, engine) = self.running.as_ref().unwrap();
        runtime.block_on(work(engine))
    }

    /// A pod's sandbox, and the cgroup that a kubelet would have made for it.
    fn sandbox(&self, uid: &str) -> PodSandboxConfig {
        node::pod(&self.node, uid)
    }

    /// Removes what a kubelet would, and looks for leftovers.
    fn finish(mut self) {
        self.kill();
        node::finish(self.node, &[]);
    }
}

fn start(root: &Path) -> (Runtime, LocalEngine) {
    let config = EngineConfig {
        log_max_size: 1 << 20,
        log_max_files: 3,
        ..engine_config(root)
    };
    open(config, root)
}

fn container(name: &str, args: &[&str]) -> ContainerConfig {
    ContainerConfig {
        name: name.into(),
        image: IMAGE.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        log_path: format!("{name}/0.log").into(),
        ..Default::default()
    }
}

async fn wait_for(events: &mut EventStream, wanted: &EngineEventKind) {
    let found = async {
        while let Some(event) = events.recv().await {
            if event.kind == *wanted {
                return;
            }
        }
        panic!("the engine ended before {wanted:?}");
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .unwrap_or_else(|_| panic!("{wanted:?} did not come"));
}

#[test]
fn a_container_lives_and_ends() {
    let bench = Bench::new();
    let config = bench.sandbox("life");
    bench.run(async |engine| {
        let mut events = engine.events();
        let sandbox = engine.run_pod_sandbox(config.clone()).await.unwrap();
        let status = engine.pod_sandbox_status(&sandbox).await.unwrap();
        assert!(status.ready && status.ips.len() == 1, "{status:?}");
        assert_eq!(
            engine.run_pod_sandbox(config).await.unwrap(),
            sandbox,
            "a second call joins the first"
        );

        let id = engine
            .create_container(&sandbox, container("one", &["exit", "7"]))
            .await
            .unwrap();
        assert_eq!(
            engine.container_status(&id).await.unwrap().state,
            ContainerState::Created
        );
        engine.start_container(&id).await.unwrap();
        wait_for(&mut events, &EngineEventKind::ContainerExited(id.clone())).await;
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(
            (status.state, status.exit_code, &*status.reason),
            (ContainerState::Exited, 7, "Error")
        );
        assert!(
            status.finished_at >= status.started_at && status.started_at >= status.created_at,
            "{status:?}"
        );

        engine.remove_container(&id).await.unwrap();
        engine.remove_container(&id).await.unwrap();
        assert!(matches!(
            engine.container_status(&id).await,
            Err(EngineError::NotFound(_))
        ));
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        engine.stop_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_missing_program_is_told_from_a_failing_one() {
    let bench = Bench::new();
    let config = bench.sandbox("missing");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let missing = ContainerConfig {
            command: vec!["/no/such/program".into()],
            ..container("one", &[])
        };
        let id = engine.create_container(&sandbox, missing).await.unwrap();
        let error = engine.start_container(&id).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::CannotRun { message, .. } if message.contains("/no/such/program")),
            "{error:?}"
        );
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(
            (status.exit_code, &*status.reason),
            (127, "ContainerCannotRun"),
            "{status:?}"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_command_in_a_container_tells_what_it_prints_and_ends_in_time() {
    let bench = Bench::new();
    let config = bench.sandbox("exec");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        let exec = async |args: &[&str], timeout, max| {
            let command = ["/bin/helper"]
                .iter()
                .chain(args)
                .map(|arg| (*arg).to_owned())
                .collect();
            engine.exec_sync(&id, command, timeout, max).await
        };
        let output = exec(&["echo", "hello"], PATIENCE, 100).await.unwrap();
        assert_eq!(
            (output.exit_code, output.stdout.as_slice()),
            (0, b"hello\n".as_slice())
        );
        assert_eq!(exec(&["exit", "3"], PATIENCE, 100).await.unwrap().exit_code, 3);
        assert_eq!(
            exec(&["echo", "0123456789"], PATIENCE, 4).await.unwrap().stdout,
            b"0123"
        );
        let error = exec(&["sleep", "1000"], Duration::from_millis(200), 100)
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::DeadlineExceeded(_)), "{error:?}");
        let missing = engine
            .exec_sync(&id, vec!["/no/such/program".into()], PATIENCE, 100)
            .await;
        assert!(
            matches!(missing, Err(EngineError::CannotRun { .. })),
            "{missing:?}"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_container_that_was_started_can_be_used_at_once() {
    let bench = Bench::new();
    let config = bench.sandbox("at-once");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        for attempt in 0..20 {
            let name = format!("one-{attempt}");
            let id = started(engine, &sandbox, container(&name, &["sleep", "1000"])).await;
            let state = engine.container_status(&id).await.unwrap().state;
            assert_eq!(state, ContainerState::Running, "of {name}");
            let command = ["/bin/helper", "echo", "hello"].map(str::to_owned).to_vec();
            let output = engine.exec_sync(&id, command, PATIENCE, 100).await.unwrap();
            assert_eq!(output.stdout, b"hello\n");
            engine.remove_container(&id).await.unwrap();
        }
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn an_image_that_several_remove_is_removed() {
    let bench = Bench::new();
    bench.run(async |engine| {
        let id = engine.image_status(IMAGE).await.unwrap().unwrap().id.0;
        let removals = (0..8).map(|_| {
            let (engine, id) = (engine.clone(), id.clone());
            tokio::spawn(async move { engine.remove_image(&id).await })
        });
        for removal in removals.collect::<Vec<_>>() {
            removal.await.unwrap().unwrap();
        }
        assert_eq!(engine.image_status(IMAGE).await.unwrap(), None);
    });
    bench.finish();
}

#[test]
fn a_restarted_engine_finds_everything_as_it_was() {
    let mut bench = Bench::new();
    let config = bench.sandbox("adopt");
    let (sandbox, running, ended, pid) = bench.run(async |engine| {
        let mut events = engine.events();
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let running = started(engine, &sandbox, container("running", &["sleep", "1000"])).await;
        let ended = started(engine, &sandbox, container("ended", &["exit", "5"])).await;
        wait_for(&mut events, &EngineEventKind::ContainerExited(ended.clone())).await;
        let pid = engine.container_status(&running).await.unwrap().pid;
        (sandbox, running, ended, pid)
    });
    bench.restart();
    bench.run(async |engine| {
        assert!(engine.list_pod_sandboxes(Some("other")).await.unwrap().is_empty());
        let sandboxes = engine.list_pod_sandboxes(Some("adopt")).await.unwrap();
        assert!(
            sandboxes.len() == 1 && sandboxes[0].ready && sandboxes[0].ips.len() == 1,
            "{sandboxes:?}"
        );
        let status = engine.container_status(&running).await.unwrap();
        assert_eq!((status.state, status.pid), (ContainerState::Running, pid));
        assert_eq!(engine.container_status(&ended).await.unwrap().exit_code, 5);
        let mut events = engine.events();
        engine.stop_container(&running, Duration::ZERO).await.unwrap();
        wait_for(&mut events, &EngineEventKind::ContainerExited(running.clone())).await;
        assert_eq!(engine.container_status(&running).await.unwrap().exit_code, 137);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn two_engines_do_not_own_one_sandbox() {
    let bench = Bench::new();
    let config = bench.sandbox("owner");
    let sandbox = bench.run(async |engine| engine.run_pod_sandbox(config).await.unwrap());
    let (runtime, other) = start(bench.node.root());
    let seen = runtime.block_on(async { other.list_pod_sandboxes(None).await.unwrap() });
    assert!(seen.is_empty(), "the first engine has it: {seen:?}");
    drop((other, runtime));
    bench.run(async |engine| engine.remove_pod_sandbox(&sandbox).await.unwrap());
    bench.finish();
}

/// An engine that is asked for one pod never says that there is nothing of it while another one, which may just be ending,
/// still has its sandbox: the pod would be made a second time.
#[test]
fn a_pod_of_an_engine_that_is_ending_is_waited_for() {
    let mut bench = Bench::new();
    let config = bench.sandbox("ending");
    let sandbox = bench.run(async |engine| engine.run_pod_sandbox(config).await.unwrap());
    let (runtime, other) = start(bench.node.root());
    let seen = runtime.block_on(other.list_pod_sandboxes(Some("ending")));
    let error = seen.unwrap_err().to_string();
    assert!(error.contains("belongs to another process"), "{error}");
    bench.kill();
    runtime.block_on(async {
        let seen = other.list_pod_sandboxes(Some("ending")).await.unwrap();
        assert_eq!(seen.len(), 1, "{seen:?}");
        other.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.running = Some((runtime, other));
    bench.finish();
}

#[test]
fn a_killed_shim_takes_its_containers_along() {
    let bench = Bench::new();
    let config = bench.sandbox("shim");
    let run = bench.node.root().join("run/sandboxes");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        let pid = engine.container_status(&id).await.unwrap().pid;
        let mut events = engine.events();
        let record = std::fs::read(run.join(&sandbox.0).join("shim.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let shim = nix::unistd::Pid::from_raw(i32::try_from(record["pid"].as_i64().unwrap()).unwrap());
        nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for(&mut events, &EngineEventKind::SandboxLost).await;
        assert!(!engine.pod_sandbox_status(&sandbox).await.unwrap().ready);
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(
            (status.state, status.exit_code),
            (ContainerState::Unknown, 137),
            "{status:?}"
        );
        assert!(
            !PathBuf::from(format!("/proc/{pid}/cwd")).exists(),
            "the container still runs"
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn what_a_kill_left_half_made_is_undone_and_can_be_made_again() {
    let mut bench = Bench::new();
    let config = bench.sandbox("half");
    let again = config.clone();
    let sandbox = bench.run(async |engine| engine.run_pod_sandbox(config).await.unwrap());
    bench.kill();
    let sandboxes = bench.node.root().join("lib/sandboxes");
    let record = sandboxes.join(&sandbox.0).join("record.json");
    let text = std::fs::read_to_string(&record)
        .unwrap()
        .replace("\"Ready\"", "\"Creating\"");
    std::fs::write(&record, text).unwrap();
    std::fs::create_dir(sandboxes.join("without-a-record")).unwrap();
    bench.restart();
    bench.run(async |engine| {
        // Nobody was told of it.
        assert_eq!(engine.list_pod_sandboxes(None).await.unwrap(), []);
        let other = engine.run_pod_sandbox(again).await.unwrap();
        assert_ne!(other, sandbox);
        assert!(!sandboxes.join(&sandbox.0).exists());
        let listed = engine.list_pod_sandboxes(None).await.unwrap();
        assert!(listed.len() == 1 && listed[0].ready, "{listed:?}");
        engine.remove_pod_sandbox(&other).await.unwrap();
    });
    bench.finish();
}

/// Many callers at once, on several threads, as those of a socket are.
#[test]
fn calls_for_the_same_sandbox_at_once_make_one() {
    const CALLS: usize = 8;
    const TIMES: usize = 10;
    let bench = Bench::new();
    let (_, engine) = bench.running.as_ref().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CALLS)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        for time in 0..TIMES {
            let config = bench.sandbox(&format!("once{time}"));
            let together = Arc::new(tokio::sync::Barrier::new(CALLS));
            let calls: Vec<_> = (0..CALLS)
                .map(|_| {
                    let (engine, config) = (engine.clone(), config.clone());
                    let together = Arc::clone(&together);
                    tokio::spawn(async move {
                        together.wait().await;
                        engine.run_pod_sandbox(config).await
                    })
                })
                .collect();
            let mut made = std::collections::BTreeSet::new();
            for call in calls {
                made.insert(call.await.unwrap().unwrap());
            }
            assert_eq!(made.len(), 1, "{made:?}");
            let listed = engine.list_pod_sandboxes(Some(&config.uid)).await.unwrap();
            assert_eq!(listed.len(), 1, "{listed:?}");
            // Who asks again later joins too.
            let again = engine.run_pod_sandbox(config).await.unwrap();
            assert!(made.contains(&again));
            engine.remove_pod_sandbox(&again).await.unwrap();
        }
    });
    drop(runtime);
    bench.finish();
}

#[test]
fn a_damaged_record_is_no_reason_to_leave_the_others_alone() {
    let mut bench = Bench::new();
    let config = bench.sandbox("whole");
    let sandbox = bench.run(async |engine| engine.run_pod_sandbox(config).await.unwrap());
    bench.kill();
    let damaged = bench.node.root().join("lib/sandboxes/damaged");
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("record.json"), "").unwrap();
    bench.restart();
    bench.run(async |engine| {
        let found = engine.list_pod_sandboxes(None).await.unwrap();
        assert!(found.len() == 1 && found[0].ready, "{found:?}");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    std::fs::remove_dir_all(&damaged).unwrap();
    bench.finish();
}

#[test]
fn a_sandbox_that_cannot_be_made_leaves_nothing() {
    let bench = Bench::new();
    let mut config = bench.sandbox("bad");
    config.sysctls.insert("kernel.panic".into(), "1".into());
    bench.run(async |engine| {
        let error = engine.run_pod_sandbox(config).await.unwrap_err();
        assert!(error.to_string().contains("kernel.panic"), "{error}");
        assert!(engine.list_pod_sandboxes(None).await.unwrap().is_empty());
    });
    bench.finish();
}

#[test]
fn a_follower_sees_the_log_grow_and_end() {
    let bench = Bench::new();
    let config = bench.sandbox("log");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(config).await.unwrap();
        let id = engine
            .create_container(&sandbox, container("one", &["echo", "a line"]))
            .await
            .unwrap();
        let mut growths = engine.watch_log(&id).await.unwrap();
        growths.borrow_and_update();
        engine.start_container(&id).await.unwrap();
        tokio::time::timeout(PATIENCE, async { while growths.changed().await.is_ok() {} })
            .await
            .unwrap();
        let path = engine.container_status(&id).await.unwrap().log_path;
        let log = std::fs::read_to_string(path).unwrap();
        assert!(log.ends_with(" stdout F a line\n"), "{log:?}");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn an_image_is_found_by_name_and_by_id() {
    let bench = Bench::new();
    bench.run(async |engine| {
        let image = engine.image_status(IMAGE).await.unwrap().unwrap();
        assert_eq!(engine.image_status(&image.id.0).await.unwrap().unwrap(), image);
        assert!(engine.image_status("test.local/none").await.unwrap().is_none());
        let error = engine
            .pull_image("UPPER CASE", None, Arc::new(|_| ()))
            .await
            .unwrap_err();
        assert!(matches!(error, EngineError::InvalidImageName(_)), "{error:?}");
    });
    bench.finish();
}
