//! What happens, by the runtime's stream and by looking, also over a restart of the runtime.

use std::sync::Arc;
use std::time::Duration;

use berth_cri::{Engine, EngineEventKind, LocalEngine, RemoteEngine};

use crate::bench::{Bench, PATIENCE, Place, Socket, container, until, words};

async fn place_of<'a>(node: &'a berth_tests::Node, engine: Arc<dyn Engine>) -> Place<'a> {
    Place { node, engine }
}

#[test]
fn nothing_that_happens_while_the_runtime_is_away_is_missed() {
    Bench::new().with_socket(async |node, local: Arc<LocalEngine>, socket| {
        let remote = Arc::new(RemoteEngine::connect(&socket.endpoint()).await.unwrap());
        let mut events = remote.events();
        let here = place_of(node, remote.clone()).await;
        let there = place_of(node, local.clone()).await;
        let sandbox = here.sandbox("away").await;
        let ends = here
            .started(
                &sandbox,
                container(
                    "ends",
                    &["sh", "-c", "while [ ! -e /tmp/end ]; do sleep 0.05; done"],
                ),
            )
            .await;
        until(&mut events, &EngineEventKind::ContainerStarted(ends.clone())).await;
        let path = socket.path.clone();
        drop(socket);
        // Nobody hears of it by the socket.
        let mut unheard = local.events();
        local
            .exec_sync(&ends, words(&["sh", "-c", "echo > /tmp/end"]), PATIENCE, 10)
            .await
            .unwrap();
        until(&mut unheard, &EngineEventKind::ContainerExited(ends.clone())).await;
        let new = there
            .started(&sandbox, container("new", &["sleep", "1000"]))
            .await;
        let _socket = Socket::open(&path, local.clone()).await;
        let before = until(&mut events, &EngineEventKind::ContainerStarted(new.clone())).await;
        let expected = [
            EngineEventKind::ContainerExited(ends.clone()),
            EngineEventKind::ContainerCreated(new.clone()),
        ];
        assert_eq!(before, expected);
        // And the stream is followed again.
        remote.stop_container(&new, Duration::ZERO).await.unwrap();
        until(&mut events, &EngineEventKind::ContainerExited(new)).await;
    });
}

#[test]
fn a_sandbox_that_nobody_stopped_is_lost() {
    Bench::new().with_socket(async |node, local: Arc<LocalEngine>, socket| {
        let remote = Arc::new(RemoteEngine::connect(&socket.endpoint()).await.unwrap());
        let mut events = remote.events();
        let place = place_of(node, remote.clone()).await;
        let sandbox = place.sandbox("lost").await;
        until(&mut events, &EngineEventKind::SandboxStarted).await;
        local.stop_pod_sandbox(&sandbox).await.unwrap();
        until(&mut events, &EngineEventKind::SandboxLost).await;
    });
}
