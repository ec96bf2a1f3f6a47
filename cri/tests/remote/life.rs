//! Sandboxes, containers and images.

use std::time::Duration;

use berth_cri::{CgroupDriver, ContainerState, EngineError, EngineEventKind, LinuxContainerResources, Mount};

use crate::bench::{IMAGE, Place, container, on_both_engines, until, words};

async fn a_pod_lives_and_ends(place: Place<'_>) {
    let engine = &place.engine;
    let mut events = engine.events();
    let mut config = place.pod("life");
    config.labels.insert("app".into(), "web".into());
    config
        .annotations
        .insert("note".into(), "\"kept\" as it is".into());
    let sandbox = engine.run_pod_sandbox(config.clone()).await.unwrap();
    assert_eq!(
        engine.run_pod_sandbox(config.clone()).await.unwrap(),
        sandbox,
        "a second call joins the first"
    );
    let status = engine.pod_sandbox_status(&sandbox).await.unwrap();
    assert!(status.ready && status.ips.len() == 1, "{status:?}");
    assert_eq!(status.config, config, "a status tells what was asked for");

    let mut asked = container("one", &["sh", "-c", "exit 7"]);
    asked.labels.insert("tier".into(), "back".into());
    asked.annotations.insert("restarts".into(), "3".into());
    asked.stop_signal = Some("SIGUSR1".into());
    let id = engine.create_container(&sandbox, asked.clone()).await.unwrap();
    assert_eq!(
        engine.create_container(&sandbox, asked.clone()).await.unwrap(),
        id
    );
    let status = engine.container_status(&id).await.unwrap();
    assert_eq!((status.state, status.stop_signal), (ContainerState::Created, 10));
    assert_eq!(status.config, asked);
    engine.start_container(&id).await.unwrap();
    let before = until(&mut events, &EngineEventKind::ContainerExited(id.clone())).await;
    let expected = [
        EngineEventKind::SandboxStarted,
        EngineEventKind::ContainerCreated(id.clone()),
        EngineEventKind::ContainerStarted(id.clone()),
    ];
    assert_eq!(before, expected);
    let status = engine.container_status(&id).await.unwrap();
    assert_eq!(
        (status.state, status.exit_code, &*status.reason),
        (ContainerState::Exited, 7, "Error")
    );
    assert_eq!((&status.sandbox, &*status.pod_uid), (&sandbox, "life"));
    assert!(status.finished_at >= status.started_at && status.started_at >= status.created_at);
    assert_eq!(status.log_path, config.log_directory.join("one/0.log"));

    engine.remove_container(&id).await.unwrap();
    engine.remove_container(&id).await.unwrap();
    engine.stop_container(&id, Duration::ZERO).await.unwrap();
    assert!(matches!(
        engine.container_status(&id).await,
        Err(EngineError::NotFound(_))
    ));
    engine.stop_pod_sandbox(&sandbox).await.unwrap();
    until(&mut events, &EngineEventKind::SandboxStopped).await;
    let again = engine.run_pod_sandbox(config).await;
    assert!(
        matches!(again, Err(EngineError::FailedPrecondition(_))),
        "{again:?}"
    );
    engine.remove_pod_sandbox(&sandbox).await.unwrap();
    until(&mut events, &EngineEventKind::SandboxRemoved).await;
    engine.remove_pod_sandbox(&sandbox).await.unwrap();
    engine.stop_pod_sandbox(&sandbox).await.unwrap();
    let missing = engine.pod_sandbox_status(&sandbox).await;
    assert!(matches!(missing, Err(EngineError::NotFound(_))));
}

pub(crate) async fn pods_are_found_by_their_uid(place: Place<'_>) {
    let engine = &place.engine;
    let (a, b) = (place.sandbox("a").await, place.sandbox("b").await);
    let in_a = engine
        .create_container(&a, container("main", &["true"]))
        .await
        .unwrap();
    let in_b = engine
        .create_container(&b, container("main", &["true"]))
        .await
        .unwrap();
    let sandboxes = async |uid| {
        let list = engine.list_pod_sandboxes(uid).await.unwrap();
        let mut ids: Vec<_> = list.into_iter().map(|sandbox| sandbox.id).collect();
        ids.sort();
        ids
    };
    assert_eq!(sandboxes(Some("a")).await, std::slice::from_ref(&a));
    assert_eq!(sandboxes(Some("nobody")).await, []);
    let mut both = [a.clone(), b.clone()];
    both.sort();
    assert_eq!(sandboxes(None).await, both);
    for (uid, sandbox, id) in [("a", &a, &in_a), ("b", &b, &in_b)] {
        let list = engine.list_containers(Some(uid)).await.unwrap();
        assert_eq!(list.len(), 1);
        assert_eq!(
            (&list[0].id, &list[0].sandbox, &*list[0].pod_uid),
            (id, sandbox, uid)
        );
        assert_eq!(list[0], engine.container_status(id).await.unwrap());
    }
    assert_eq!(engine.list_containers(None).await.unwrap().len(), 2);
}

pub(crate) async fn commands_are_run_in_time(place: Place<'_>) {
    let engine = &place.engine;
    let sandbox = place.sandbox("exec").await;
    let id = place
        .started(&sandbox, container("main", &["sleep", "1000"]))
        .await;
    let run =
        async |command: &[&str], timeout, limit| engine.exec_sync(&id, words(command), timeout, limit).await;
    let minute = Duration::from_secs(60);
    let told = run(&["sh", "-c", "echo out; echo err >&2; exit 3"], minute, 1000)
        .await
        .unwrap();
    assert_eq!(
        (&*told.stdout, &*told.stderr, told.exit_code),
        (&b"out\n"[..], &b"err\n"[..], 3)
    );
    let told = run(&["head", "-c", "100000", "/dev/zero"], Duration::ZERO, 500)
        .await
        .unwrap();
    assert_eq!((told.stdout.len(), told.exit_code), (500, 0));
    let late = run(&["sleep", "1000"], Duration::from_millis(300), 10).await;
    assert!(matches!(late, Err(EngineError::DeadlineExceeded(_))), "{late:?}");
    let missing = run(&["no-such-program"], minute, 10).await;
    assert!(
        matches!(missing, Err(EngineError::CannotRun { .. })),
        "{missing:?}"
    );
    engine.stop_container(&id, Duration::from_secs(0)).await.unwrap();
    assert_eq!(engine.container_status(&id).await.unwrap().exit_code, 137);
}

async fn limits_and_mounts_are_told(place: Place<'_>) {
    let engine = &place.engine;
    let sandbox = place.sandbox("limits").await;
    let source = place.node.file("source", "from the host");
    let mut asked = container("main", &["sh", "-c", "cat /mounted; sleep 1000"]);
    asked.mounts.push(Mount {
        container_path: "/mounted".into(),
        host_path: source,
        readonly: true,
        ..Default::default()
    });
    asked.resources.memory_limit = Some(64 << 20);
    let id = place.started(&sandbox, asked.clone()).await;
    assert_eq!(engine.container_status(&id).await.unwrap().config, asked);
    let more = LinuxContainerResources {
        memory_limit: Some(128 << 20),
        ..Default::default()
    };
    engine.update_container_resources(&id, more).await.unwrap();
    let told = engine.container_status(&id).await.unwrap().config.resources;
    assert_eq!(told.memory_limit, Some(128 << 20));
    let output = engine
        .exec_sync(&id, words(&["cat", "/mounted"]), Duration::ZERO, 100)
        .await
        .unwrap();
    assert_eq!(output.stdout, b"from the host");
    let stats = engine.container_stats(std::slice::from_ref(&id)).await.unwrap();
    assert_eq!(stats[0].attributes.as_ref().unwrap().id, id.0);
    let stats = engine
        .pod_sandbox_stats(std::slice::from_ref(&sandbox))
        .await
        .unwrap();
    assert_eq!(stats[0].attributes.as_ref().unwrap().id, sandbox.0);
    assert!(!engine.metric_descriptors().await.unwrap().is_empty());
    assert_eq!(
        engine.pod_sandbox_metrics().await.unwrap()[0].pod_sandbox_id,
        sandbox.0
    );
    assert!(!engine.container_info(&id).await.unwrap().is_empty());
    assert!(!engine.sandbox_info(&sandbox).await.unwrap().is_empty());
    engine.reopen_container_log(&id).await.unwrap();
    engine
        .update_pod_sandbox_resources(&sandbox, None, Some(told))
        .await
        .unwrap();
}

async fn images_and_the_runtime_are_told(place: Place<'_>) {
    let engine = &place.engine;
    let image = engine.image_status(IMAGE).await.unwrap().unwrap();
    assert_eq!(image.repo_tags, [IMAGE]);
    assert_eq!(engine.list_images().await.unwrap(), std::slice::from_ref(&image));
    assert_eq!(engine.image_status("test.local/other:1").await.unwrap(), None);
    let progress = std::sync::Arc::new(|_| ());
    let pulled = engine
        .pull_image("127.0.0.1:1/nothing:1", None, progress.clone())
        .await;
    assert!(matches!(pulled, Err(EngineError::ImagePull(_))), "{pulled:?}");
    let pulled = engine.pull_image("NOT a name", None, progress).await;
    assert!(
        matches!(pulled, Err(EngineError::InvalidImageName(_))),
        "{pulled:?}"
    );
    assert!(engine.image_fs_info().await.unwrap().images.used_bytes > 0);
    assert_eq!(engine.version().await.unwrap().name, "berth");
    assert!(engine.status(false).await.unwrap().conditions.len() >= 2);
    assert_eq!(engine.cgroup_driver().await.unwrap(), CgroupDriver::Cgroupfs);
    engine.update_pod_cidr("10.9.0.0/24").await.unwrap();
    engine.remove_image(IMAGE).await.unwrap();
    engine.remove_image(IMAGE).await.unwrap();
    assert_eq!(engine.list_images().await.unwrap(), []);
}

pub(crate) async fn calls_at_the_same_time_make_one_pod(place: Place<'_>) {
    let engine = &place.engine;
    let config = place.pod("one");
    let run = || engine.run_pod_sandbox(config.clone());
    let (a, b, c) = tokio::join!(run(), run(), run());
    let a = a.unwrap();
    assert_eq!([&a, &a], [&b.unwrap(), &c.unwrap()]);
    let make = || engine.create_container(&a, container("main", &["true"]));
    let (x, y) = tokio::join!(make(), make());
    assert_eq!(x.unwrap(), y.unwrap());
    assert_eq!(engine.list_containers(None).await.unwrap().len(), 1);
}

on_both_engines!(
    a_pod_lives_and_ends,
    pods_are_found_by_their_uid,
    commands_are_run_in_time,
    limits_and_mounts_are_told,
    images_and_the_runtime_are_told,
    calls_at_the_same_time_make_one_pod,
);
