//! Other OCI runtimes as runtime handlers, on the real kernel: Debian's runc, and scripts that hang, fail or are not there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/node.rs"]
mod node;

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cri::{
    ContainerConfig, ContainerId, ContainerState, Engine, EngineConfig, EngineError, HandlerConfig,
    LinuxContainerResources, LocalEngine, Mount, PodSandboxConfig, RuntimeHandler, SandboxId, StreamOptions,
    UserNamespace,
};
use berth_images::build::File;
use berth_tests::Node;
use node::{add_image, engine_config, open, started};
use serde_json::Value;
use tokio::runtime::Runtime;

const IMAGE: &str = "test.local/helper:latest";
const PATIENCE: Duration = Duration::from_secs(20);

struct Bench {
    node: Node,
    handlers: BTreeMap<String, HandlerConfig>,
    running: Option<(Runtime, LocalEngine)>,
}

impl Bench {
    fn new(handlers: impl FnOnce(&Path) -> Vec<(&'static str, HandlerConfig)>) -> Self {
        let node = Node::new();
        let helper = std::fs::read(berth_tests::program("berth-helper")).unwrap();
        let files = [
            File::regular("bin/helper", 0o755, helper),
            File::directory("tmp", 0o1777),
        ];
        add_image(&node, IMAGE, &files, Some("/bin/helper"));
        let handlers = handlers(node.root());
        let handlers = handlers
            .into_iter()
            .map(|(name, config)| (name.to_owned(), config));
        let mut bench = Self {
            node,
            handlers: handlers.collect(),
            running: None,
        };
        bench.start();
        bench
    }

    fn runc() -> Self {
        Self::new(|_| vec![("runc", HandlerConfig::new("runc".into()))])
    }

    fn start(&mut self) {
        let root = self.node.root();
        let config = EngineConfig {
            handlers: self.handlers.clone(),
            ..engine_config(root)
        };
        self.running = Some(open(config, root));
    }

    /// Ends the engine without a word to anybody, as a kill would.
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

    fn pod(&self, uid: &str, handler: &str) -> PodSandboxConfig {
        PodSandboxConfig {
            runtime_handler: handler.into(),
            ..node::pod(&self.node, uid)
        }
    }

    /// The shim's directory of a sandbox.
    fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.node.root().join("run/sandboxes").join(&id.0)
    }

    /// The configuration that the handler's program was given for a container.
    fn spec(&self, sandbox: &SandboxId, container: &ContainerId) -> Value {
        let bundle = self.sandbox(sandbox).join("containers").join(&container.0);
        serde_json::from_slice(&std::fs::read(bundle.join("oci/config.json")).unwrap()).unwrap()
    }

    fn finish(mut self) {
        self.kill();
        node::finish(self.node, &[]);
    }
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

fn command(args: &[&str]) -> Vec<String> {
    let words = ["/bin/helper"].iter().chain(args);
    words.map(|word| (*word).to_owned()).collect()
}

async fn exited(engine: &LocalEngine, id: &ContainerId) -> i32 {
    let ended = async {
        loop {
            let status = engine.container_status(id).await.unwrap();
            if status.state == ContainerState::Exited {
                return status.exit_code;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.unwrap()
}

/// A program of its own: a shell script.
fn script(root: &Path, name: &str, text: &str) -> PathBuf {
    let directory = root.join("cni");
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

#[test]
fn a_container_of_runc_lives_as_any_other() {
    let bench = Bench::runc();
    let pod = bench.pod("life", "runc");
    let logs = pod.log_directory.clone();
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let status = engine.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!(status.config.runtime_handler, "runc");
        let info = engine.sandbox_info(&sandbox).await.unwrap();
        assert!(info["info"].contains("/runc\""), "{info:?}");

        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        let output = engine
            .exec_sync(&id, command(&["hostname"]), PATIENCE, 100)
            .await
            .unwrap();
        assert_eq!(
            (output.exit_code, output.stdout.as_slice()),
            (0, b"test\n".as_slice())
        );
        let failing = engine
            .exec_sync(&id, command(&["exit", "3"]), PATIENCE, 100)
            .await;
        assert_eq!(failing.unwrap().exit_code, 3);
        let slow = command(&["sleep", "1000"]);
        let error = engine
            .exec_sync(&id, slow, Duration::from_millis(700), 100)
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

        let stats = engine.container_stats(std::slice::from_ref(&id)).await.unwrap();
        assert!(stats[0].memory.as_ref().unwrap().working_set_bytes.is_some());
        engine.stop_container(&id, Duration::from_secs(10)).await.unwrap();
        assert_eq!(exited(engine, &id).await, 143);

        let printing = started(engine, &sandbox, container("two", &["echo", "hello"])).await;
        assert_eq!(exited(engine, &printing).await, 0);
        let log = std::fs::read_to_string(logs.join("two/0.log")).unwrap();
        assert!(log.ends_with(" stdout F hello\n"), "{log}");
        let failing = started(engine, &sandbox, container("three", &["exit", "7"])).await;
        assert_eq!(exited(engine, &failing).await, 7);
        engine.remove_container(&failing).await.unwrap();
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_terminal_of_runc_is_talked_to() {
    use std::io::{Read, Write};
    let bench = Bench::runc();
    let pod = bench.pod("terminal", "runc");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let config = ContainerConfig {
            tty: true,
            stdin: true,
            ..container("one", &["stdin-echo"])
        };
        let id = started(engine, &sandbox, config).await;
        let options = StreamOptions {
            stdin: true,
            stdout: true,
            stderr: false,
            tty: true,
            size: None,
        };
        for attached in [false, true] {
            let session = if attached {
                engine.attach(&id, options).await.unwrap()
            } else {
                engine.exec(&id, command(&["stdin-echo"]), options).await.unwrap()
            };
            let mut input = std::fs::File::from(session.stdin.unwrap());
            let mut output = std::fs::File::from(session.stdout.unwrap());
            let talk = tokio::task::spawn_blocking(move || {
                input.write_all(b"typed\n").unwrap();
                let mut seen = Vec::new();
                // The terminal's echo, and the program's answer.
                while String::from_utf8_lossy(&seen).matches("typed").count() < 2 {
                    let mut piece = [0; 256];
                    match output.read(&mut piece) {
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                            std::thread::yield_now()
                        }
                        other => {
                            let count = other.unwrap();
                            assert!(count > 0, "{seen:?}");
                            seen.extend_from_slice(&piece[..count]);
                        }
                    }
                }
            });
            tokio::time::timeout(PATIENCE, talk).await.unwrap().unwrap();
        }
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_restarted_engine_goes_on_with_runcs_containers() {
    let mut bench = Bench::runc();
    let pod = bench.pod("adopt", "runc");
    let (sandbox, id) = bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        (sandbox, id)
    });
    bench.kill();
    // The configuration may be another one by then: a pod keeps what it began with.
    bench.handlers.clear();
    bench.start();
    bench.run(async |engine| {
        let found = engine.list_containers(None).await.unwrap();
        assert_eq!((&found[0].id, found[0].state), (&id, ContainerState::Running));
        let output = engine
            .exec_sync(&id, command(&["echo", "still"]), PATIENCE, 100)
            .await
            .unwrap();
        assert_eq!(output.stdout, b"still\n");
        let other = started(engine, &sandbox, container("two", &["exit", "4"])).await;
        assert_eq!(exited(engine, &other).await, 4);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_killed_shim_takes_its_pod_alone_and_leaves_nothing_of_runc() {
    let bench = Bench::runc();
    let (pod, other) = (bench.pod("killed", "runc"), bench.pod("other", "runc"));
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        let created = engine
            .create_container(&sandbox, container("two", &["sleep", "1000"]))
            .await
            .unwrap();
        let untouched = engine.run_pod_sandbox(other).await.unwrap();
        let lives = started(engine, &untouched, container("one", &["sleep", "1000"])).await;

        let state = bench.sandbox(&sandbox).join("runtime");
        assert!(state.join(&id.0).exists() && state.join(&created.0).exists());
        let record = std::fs::read(bench.sandbox(&sandbox).join("shim.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        let shim = i32::try_from(record["pid"].as_i64().unwrap()).unwrap();
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(shim).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        let gone = async {
            while engine.pod_sandbox_status(&sandbox).await.unwrap().ready || state.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap();
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(
            (status.exit_code, &*status.reason),
            (137, "ContainerStatusUnknown")
        );
        let status = engine.container_status(&lives).await.unwrap();
        assert_eq!(status.state, ContainerState::Running);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        engine.remove_pod_sandbox(&untouched).await.unwrap();
    });
    bench.finish();
}

#[test]
fn annotations_devices_and_namespaces_reach_the_program() {
    let bench = Bench::new(|_| {
        let runc = HandlerConfig {
            pod_annotations: vec!["pod.*".into()],
            container_annotations: vec!["*.example.com/*".into()],
            privileged_without_host_devices: true,
            ..HandlerConfig::new("runc".into())
        };
        vec![("runc", runc)]
    });
    let pair = |name: &str| (name.to_owned(), "v".to_owned());
    let pod = PodSandboxConfig {
        annotations: [pair("pod.a"), pair("other")].into(),
        privileged: true,
        ..bench.pod("annotated", "runc")
    };
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let mut config = container("one", &["sleep", "1000"]);
        config.annotations = [pair("x.example.com/y"), pair("plain")].into();
        config.security.privileged = true;
        let id = started(engine, &sandbox, config).await;
        let spec = bench.spec(&sandbox, &id);
        assert_eq!(
            spec["annotations"],
            serde_json::json!({ "pod.a": "v", "x.example.com/y": "v" })
        );
        assert_eq!(spec["linux"]["devices"], serde_json::json!([]));
        assert_eq!(spec["linux"]["resources"]["devices"][0]["allow"], false);
        let namespaces = spec["linux"]["namespaces"].as_array().unwrap();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network");
        let path = network.unwrap()["path"].as_str().unwrap();
        assert!(path.starts_with("/proc/") && path.ends_with("/ns/net"), "{path}");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn limits_of_a_container_of_runc_change_and_hold() {
    let bench = Bench::runc();
    let pod = bench.pod("limits", "runc");
    bench.run(async |engine| {
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let mut config = container("one", &["sleep", "1000"]);
        config.resources.memory_limit = Some(64 << 20);
        let id = started(engine, &sandbox, config).await;
        let changed = LinuxContainerResources {
            memory_limit: Some(48 << 20),
            cpu_shares: Some(512),
            ..Default::default()
        };
        engine.update_container_resources(&id, changed).await.unwrap();
        let mut files = std::process::Command::new("find");
        files
            .args([
                "/sys/fs/cgroup",
                "-path",
                &format!("*/{id}/memory*"),
                "-name",
                "memory.*",
            ])
            .arg("(")
            .args(["-name", "memory.limit_in_bytes", "-o", "-name", "memory.max", ")"]);
        let found = String::from_utf8(files.output().unwrap().stdout).unwrap();
        let limit = std::fs::read_to_string(found.lines().next().unwrap()).unwrap();
        assert_eq!(limit.trim(), (48 << 20).to_string());

        let mut hungry = container("two", &["allocate", "209715200"]);
        hungry.resources.memory_limit = Some(32 << 20);
        let id = started(engine, &sandbox, hungry).await;
        exited(engine, &id).await;
        let status = engine.container_status(&id).await.unwrap();
        assert_eq!(&*status.reason, "OOMKilled", "{status:?}");
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn what_a_runtime_is_not_known_to_do_is_refused_by_name() {
    let bench = Bench::new(|root| {
        // It can do what runc does, and says nothing of it.
        let silent = script(
            root,
            "silent",
            "case $1 in features|exec) exit 1;; esac; exec runc \"$@\"",
        );
        vec![("silent", HandlerConfig::new(silent))]
    });
    let map = vec![berth_cri::IdMapping {
        container: 0,
        host: 1 << 20,
        size: 65536,
    }];
    let mut mapped = bench.pod("mapped", "silent");
    mapped.user_namespace = Some(UserNamespace {
        uids: map.clone(),
        gids: map,
    });
    let pod = bench.pod("plain", "silent");
    bench.run(async |engine| {
        let error = engine.run_pod_sandbox(mapped).await.unwrap_err().to_string();
        assert!(
            error.contains("user namespace") && error.contains("silent"),
            "{error}"
        );
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let mut config = container("one", &["sleep", "1000"]);
        config.mounts.push(Mount {
            container_path: "/m".into(),
            host_path: "/tmp".into(),
            readonly: true,
            recursive_read_only: true,
            ..Default::default()
        });
        let error = engine
            .create_container(&sandbox, config)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("recursive_read_only") && error.contains("silent"),
            "{error}"
        );
        let handlers = engine.status(false).await.unwrap().handlers;
        let plain = RuntimeHandler {
            name: "silent".into(),
            ..Default::default()
        };
        assert!(handlers.contains(&plain), "{handlers:?}");
        assert_eq!(
            handlers
                .iter()
                .filter(|handler| matches!(handler.name.as_str(), "" | "berth"))
                .count(),
            2
        );
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_missing_program_is_said_and_others_go_on() {
    let bench = Bench::new(|_| {
        vec![
            ("gone", HandlerConfig::new("/no/such/runtime".into())),
            ("runc", HandlerConfig::new("runc".into())),
        ]
    });
    let (gone, unknown, pod) = (
        bench.pod("gone", "gone"),
        bench.pod("unknown", "unheard-of"),
        bench.pod("pod", "runc"),
    );
    bench.run(async |engine| {
        let advice = engine.handler_advice();
        assert!(
            advice.len() == 1 && advice[0].contains("/no/such/runtime"),
            "{advice:?}"
        );
        let error = engine.run_pod_sandbox(gone).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::FailedPrecondition(why) if why.contains("/no/such/runtime")),
            "{error:?}"
        );
        let error = engine.run_pod_sandbox(unknown).await.unwrap_err();
        assert!(
            matches!(&error, EngineError::InvalidArgument(why) if why.contains("berth, gone, runc")),
            "{error:?}"
        );
        let handlers = engine.status(false).await.unwrap().handlers;
        let names: Vec<&str> = handlers.iter().map(|handler| handler.name.as_str()).collect();
        assert_eq!(names, ["", "berth", "runc"]);
        let sandbox = engine.run_pod_sandbox(pod).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["exit", "2"])).await;
        assert_eq!(exited(engine, &id).await, 2);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}

#[test]
fn a_hung_program_is_killed_with_what_it_started_and_named() {
    let bench = Bench::new(|root| {
        let hangs = |verb: &str| {
            format!(
                "for word; do case $word in {verb})\n\
                 echo 'about to hang' >&2; setsid sleep 1000 & sleep 1000;; esac; done; exec runc \"$@\""
            )
        };
        let short = |program| HandlerConfig {
            timeout: Duration::from_millis(1500),
            ..HandlerConfig::new(program)
        };
        vec![
            ("create", short(script(root, "hangs-at-create", &hangs("create")))),
            ("start", short(script(root, "hangs-at-start", &hangs("start")))),
            ("delete", short(script(root, "hangs-at-delete", &hangs("delete")))),
        ]
    });
    let pods = ["create", "start", "delete"].map(|name| bench.pod(name, name));
    bench.run(async |engine| {
        let [create, start, delete] = pods;
        let sandbox = engine.run_pod_sandbox(create).await.unwrap();
        let made = engine
            .create_container(&sandbox, container("one", &["sleep", "1000"]))
            .await;
        let error = made.unwrap_err().to_string();
        assert!(
            error.contains("create")
                && error.contains("longer than 1500 ms")
                && error.contains("about to hang"),
            "{error}"
        );
        assert!(engine.list_containers(None).await.unwrap().is_empty());
        engine.remove_pod_sandbox(&sandbox).await.unwrap();

        let sandbox = engine.run_pod_sandbox(start).await.unwrap();
        let id = engine
            .create_container(&sandbox, container("one", &["sleep", "1000"]))
            .await
            .unwrap();
        // The shim goes on with everything else meanwhile.
        let (begun, listed) = tokio::join!(engine.start_container(&id), async {
            tokio::time::timeout(Duration::from_secs(1), engine.reopen_container_log(&id)).await
        });
        assert!(listed.is_ok(), "the shim stood still");
        assert!(begun.unwrap_err().to_string().contains("longer than 1500 ms"));
        assert_eq!(exited(engine, &id).await, 137);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();

        let sandbox = engine.run_pod_sandbox(delete).await.unwrap();
        let id = started(engine, &sandbox, container("one", &["sleep", "1000"])).await;
        let running = started(engine, &sandbox, container("two", &["sleep", "1000"])).await;
        // What is to go goes, whatever the program does.
        engine.remove_container(&id).await.unwrap();
        let state = bench.sandbox(&sandbox).join("runtime");
        assert!(!state.join(&id.0).exists() && state.join(&running.0).exists());
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
    });
    bench.finish();
}
