//! The same tests on containerd, where it is installed; and what is different there.

use std::sync::Arc;

use berth_cri::{ContainerConfig, Engine, EngineError, EngineEventKind, RemoteEngine};
use berth_tests::{Containerd, Layout, Node};
use serde_json::json;

use crate::bench::{APPLETS, IMAGE, PATIENCE, Place, container, until};
use crate::{life, logs, sessions};

fn on_containerd(test: impl AsyncFnOnce(Place<'_>)) {
    let node = Node::new();
    let Some(containerd) = Containerd::start(&node) else {
        return node.finish();
    };
    let links: Vec<_> = APPLETS.iter().map(|applet| format!("bin/{applet}")).collect();
    let links: Vec<_> = links.iter().map(|link| (link.as_str(), "busybox")).collect();
    let helper = berth_tests::program("berth-helper");
    let programs = [
        ("bin/busybox", std::path::Path::new("/bin/busybox")),
        ("bin/helper", helper.as_path()),
    ];
    let directory = node.scratch().join("busybox");
    let config = json!({ "Env": ["PATH=/bin"] });
    let files = [("tmp/.keep", "")];
    containerd.import(&Layout::with_programs(
        &directory, IMAGE, config, &files, &programs, &links,
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = format!("unix://{}", containerd.socket().display());
        let engine = Arc::new(RemoteEngine::connect(&endpoint).await.unwrap());
        let place = Place {
            node: &node,
            engine: engine.clone(),
        };
        tokio::time::timeout(PATIENCE, test(place))
            .await
            .expect("the test takes too long");
        for sandbox in engine.list_pod_sandboxes(None).await.unwrap() {
            engine.remove_pod_sandbox(&sandbox.id).await.unwrap();
        }
    });
    runtime.shutdown_timeout(PATIENCE);
    drop(containerd);
    for group in [
        "a", "b", "exec", "large", "tty", "attach", "leave", "ports", "log", "one", "oom", "new",
    ] {
        let group = node.cgroup().join(format!("pod{group}"));
        for directory in berth_tests::cgroup_directories(&group) {
            let _ = std::fs::remove_dir(directory);
        }
    }
    for directory in berth_tests::cgroup_directories(node.cgroup()) {
        let _ = std::fs::remove_dir(directory);
    }
    let _ = std::fs::remove_dir_all(node.root().join("logs"));
    node.finish();
}

macro_rules! on_containerd {
    ($($module:ident :: $name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            on_containerd($module::$name);
        })*
    };
}

on_containerd!(
    life::pods_are_found_by_their_uid,
    life::commands_are_run_in_time,
    life::calls_at_the_same_time_make_one_pod,
    logs::every_line_is_announced_across_rotations,
    sessions::a_command_has_streams_an_end_of_input_and_an_exit_code,
    sessions::large_transfers_lose_no_byte,
    sessions::a_terminal_has_a_size_and_one_output,
    sessions::attached_to_a_container_until_its_end,
    sessions::ports_of_a_pod_are_reached,
);

#[test]
fn what_happens_is_told_in_order_and_what_was_asked_for_as_it_was() {
    on_containerd(async |place| {
        let engine = &place.engine;
        let mut events = engine.events();
        let config = place.pod("new");
        let sandbox = engine.run_pod_sandbox(config.clone()).await.unwrap();
        let status = engine.pod_sandbox_status(&sandbox).await.unwrap();
        assert_eq!(status.config, config);
        assert!(status.ready && status.ips.len() == 1, "{status:?}");
        let asked = ContainerConfig {
            annotations: [("restarts".to_owned(), "3".to_owned())].into(),
            envs: vec![("GREETING".to_owned(), "hello".to_owned())],
            ..container("main", &["sh", "-c", "echo $GREETING; sleep 1.2; exit 4"])
        };
        let id = place.started(&sandbox, asked.clone()).await;
        let told = engine.container_status(&id).await.unwrap();
        let image = engine.image_status(IMAGE).await.unwrap().unwrap();
        assert_eq!(told.image_id, image.id);
        assert_eq!(
            told.config,
            ContainerConfig {
                envs: Vec::new(),
                ..asked
            }
        );
        assert_eq!((&told.sandbox, &*told.pod_uid), (&sandbox, "new"));
        let before = until(&mut events, &EngineEventKind::ContainerExited(id.clone())).await;
        let order: Vec<_> = before
            .iter()
            .filter(|kind| !matches!(kind, EngineEventKind::ContainerOom(_)))
            .collect();
        let started = EngineEventKind::ContainerStarted(id.clone());
        assert_eq!(
            order,
            [
                &EngineEventKind::SandboxStarted,
                &EngineEventKind::ContainerCreated(id.clone()),
                &started
            ]
        );
        let log = std::fs::read_to_string(config.log_directory.join("main/0.log")).unwrap();
        assert!(log.contains("stdout F hello"), "{log}");
        assert_eq!(engine.container_status(&id).await.unwrap().exit_code, 4);
        engine.remove_pod_sandbox(&sandbox).await.unwrap();
        until(&mut events, &EngineEventKind::SandboxRemoved).await;
    });
}

/// Debian's containerd knows none of these fields, and would drop them without a word.
#[test]
fn a_field_that_the_runtime_does_not_know_is_refused_by_name() {
    on_containerd(async |place| {
        let version = place.engine.version().await.unwrap().version;
        if !version.trim_start_matches('v').starts_with("1.6") {
            return;
        }
        let sandbox = place.sandbox("new").await;
        let signal = ContainerConfig {
            stop_signal: Some("SIGUSR1".into()),
            ..container("main", &["sleep", "1000"])
        };
        let refused = place.engine.create_container(&sandbox, signal).await.unwrap_err();
        assert!(refused.to_string().contains("stop_signal"), "{refused}");
        assert_eq!(place.engine.list_containers(None).await.unwrap().len(), 0);
        let refused = place.engine.cgroup_driver().await.unwrap_err();
        assert!(matches!(refused, EngineError::Unimplemented(_)), "{refused}");
        assert!(refused.to_string().contains("containerd"), "{refused}");
    });
}
