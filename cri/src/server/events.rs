//! The stream of what happens, with the pod's state at that time.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::view;
use crate::engine::{Engine, EngineError, EventStream};
use crate::types::{ContainerStatus, EngineEvent, Image, SandboxId};
use crate::v1;

/// How many events wait for a client that is slow; the engine's own queue holds the rest.
const WAITING: usize = 64;

/// Everything that happens from now on, in order.
pub(super) fn stream(
    engine: Arc<dyn Engine>,
) -> impl Stream<Item = Result<v1::ContainerEventResponse, Status>> + Send {
    let events = engine.events();
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(forward(engine, events, sender));
    ReceiverStream::new(receiver)
}

type Sender = mpsc::Sender<Result<v1::ContainerEventResponse, Status>>;

async fn forward(engine: Arc<dyn Engine>, mut events: EventStream, client: Sender) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = client.closed() => return,
        };
        let Some(event) = event else { return };
        let Some(message) = describe(engine.as_ref(), &event).await else {
            continue;
        };
        if client.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

async fn describe(engine: &dyn Engine, event: &EngineEvent) -> Option<v1::ContainerEventResponse> {
    let (container_id, kind) = view::event(&event.sandbox.0, &event.kind)?;
    let sandbox = engine.pod_sandbox_status(&event.sandbox).await.ok();
    let containers = container_statuses(engine, &event.sandbox)
        .await
        .unwrap_or_default();
    Some(v1::ContainerEventResponse {
        container_id,
        container_event_type: kind.into(),
        created_at: view::nanos(event.at),
        pod_sandbox_status: sandbox.as_ref().map(view::sandbox_status),
        containers_statuses: containers,
    })
}

/// The statuses of a sandbox's containers.
pub(super) async fn container_statuses(
    engine: &dyn Engine,
    sandbox: &SandboxId,
) -> Result<Vec<v1::ContainerStatus>, EngineError> {
    let status = match engine.pod_sandbox_status(sandbox).await {
        Ok(status) => status,
        Err(EngineError::NotFound(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut statuses = Vec::new();
    for container in engine.list_containers(Some(&status.config.uid)).await? {
        if container.sandbox == *sandbox {
            let image = image_of(engine, &container).await;
            statuses.push(view::container_status(&container, image.as_ref()));
        }
    }
    Ok(statuses)
}

/// The image that a container was made from, if it is still there.
pub(super) async fn image_of(engine: &dyn Engine, container: &ContainerStatus) -> Option<Image> {
    engine.image_status(&container.image_id.0).await.ok().flatten()
}
