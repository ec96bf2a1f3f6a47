//! What happens in the other runtime: by its stream of events where it has one (GetContainerEvents, since 1.26), and by
//! looking once a second where it has none: a *pod lifecycle event generator* (PLEG), as upstream calls it.
//!
//! Both go over the same [`Snapshot`], so that whatever way something becomes known, it is told once. A runtime that comes
//! back is looked at first: what happened while nobody could listen is the difference. A server need not say that it has
//! begun to listen on our behalf until there is something to tell; until then it is looked at too, ever more rarely.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::{Code, Streaming};

use super::link::Backoff;
use super::snapshot::{ContainerSeen, Happened, SandboxSeen, Snapshot};
use super::{Inner, Result, failure, lock, view};
use crate::engine::{EngineError, EventStream};
use crate::types::{ContainerId, ContainerState, EngineEvent, EngineEventKind, SandboxId, UnixNanos};
use crate::v1;

/// How often a runtime without events is looked at: upstream's `genericPlegRelistPeriod`.
const RELIST: Duration = Duration::from_secs(1);
/// How often one with events is: upstream's `eventedPlegRelistPeriod`.
const LONGEST_RELIST: Duration = Duration::from_secs(300);
/// What a kubelet says of a container that the OOM killer ended.
const OOM_KILLED: &str = "OOMKilled";

impl Inner {
    /// Everything that becomes known from now on.
    pub(super) fn subscribe(&self) -> EventStream {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.subscribers).push(sender);
        receiver
    }

    fn tell(&self, at: UnixNanos, happened: Happened) {
        let Happened {
            pod_uid,
            sandbox,
            mut kind,
        } = happened;
        match kind {
            EngineEventKind::SandboxStopped if !lock(&self.stopping).contains(&sandbox) => {
                kind = EngineEventKind::SandboxLost;
            }
            EngineEventKind::SandboxRemoved => drop(lock(&self.stopping).remove(&sandbox)),
            _ => {}
        }
        let event = EngineEvent {
            pod_uid,
            sandbox,
            at,
            kind,
        };
        lock(&self.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
    }
}

fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Looks at all that there is. Containers come first, so that their sandboxes are there unless they have gone meanwhile.
pub(super) async fn look(inner: &Inner) -> Result<Snapshot> {
    let containers = inner.list_containers(v1::ContainerFilter::default()).await?;
    let sandboxes = inner.list_sandboxes(Default::default()).await?;
    let sandboxes = sandboxes.into_iter().map(|sandbox| {
        let seen = SandboxSeen {
            ready: sandbox.state() == v1::PodSandboxState::SandboxReady,
            pod_uid: sandbox.metadata.unwrap_or_default().uid,
        };
        (SandboxId(sandbox.id), seen)
    });
    let mut snapshot = Snapshot {
        sandboxes: sandboxes.collect(),
        ..Default::default()
    };
    for container in containers {
        let state = view::container_state(container.state());
        let sandbox = SandboxId(container.pod_sandbox_id);
        if snapshot.sandboxes.contains_key(&sandbox) {
            let seen = ContainerSeen { sandbox, state };
            snapshot.containers.insert(ContainerId(container.id), seen);
        }
    }
    Ok(snapshot)
}

/// Follows the runtime for as long as it is polled.
pub(super) async fn follow(inner: Arc<Inner>, first: Snapshot) {
    let mut follower = Follower { inner, seen: first };
    let mut pauses = Backoff::default();
    loop {
        let began = Instant::now();
        let ended = match follower.by_stream().await {
            Err(EngineError::Unimplemented(said)) => {
                tracing::debug!("Events come by looking once a second: {said}");
                follower.by_looking().await
            }
            ended => ended,
        };
        match ended {
            Ok(()) => tracing::info!("{} ended its stream of events.", follower.inner.link.who()),
            Err(error) => tracing::warn!("What happens can't be followed for now: {error}"),
        }
        if began.elapsed() > LONGEST_RELIST {
            pauses = Backoff::default();
        }
        sleep(pauses.next()).await;
    }
}

struct Follower {
    inner: Arc<Inner>,
    seen: Snapshot,
}

impl Follower {
    /// Looks, and tells the difference.
    async fn look(&mut self) -> Result<()> {
        let later = look(&self.inner).await?;
        let happened = self.seen.advance(later);
        let at = now();
        for happened in happened {
            self.tell(at, happened, &[]).await;
        }
        Ok(())
    }

    /// The generic generator: looks until the runtime can't be asked any more.
    async fn by_looking(&mut self) -> Result<()> {
        loop {
            self.look().await?;
            sleep(RELIST).await;
        }
    }

    /// The evented generator: takes the runtime's events until it ends them.
    async fn by_stream(&mut self) -> Result<()> {
        let mut client = self.inner.link.runtime();
        let call = client.get_container_events(v1::GetEventsRequest {});
        tokio::pin!(call);
        let (mut next, mut pause) = (Instant::now(), RELIST);
        let answer = loop {
            tokio::select! {
                biased;
                answer = &mut call => break answer,
                () = sleep_until(next) => {
                    self.look().await?;
                    (next, pause) = (Instant::now() + pause, (pause * 2).min(LONGEST_RELIST));
                }
            }
        };
        let stream = answer.map_err(|status| self.error(&status))?.into_inner();
        // Nothing that happens from now on is missed, and what happened before is seen.
        self.look().await?;
        self.take(stream).await
    }

    fn error(&self, status: &tonic::Status) -> EngineError {
        // grpc-go has a code for it, and older servers of other kinds say it in words.
        if status.code() == Code::Unimplemented {
            return EngineError::Unimplemented(format!(
                "{} has no events: {}",
                self.inner.link.who(),
                status.message()
            ));
        }
        failure::error(&self.inner.link, "GetContainerEvents", status)
    }

    async fn take(&mut self, mut stream: Streaming<v1::ContainerEventResponse>) -> Result<()> {
        let mut next = Instant::now() + LONGEST_RELIST;
        loop {
            let message = tokio::select! {
                message = stream.message() => message.map_err(|status| self.error(&status))?,
                () = sleep_until(next) => {
                    self.look().await?;
                    next = Instant::now() + LONGEST_RELIST;
                    continue;
                }
            };
            let Some(message) = message else { return Ok(()) };
            let at = view::nanos(message.created_at);
            let Some(happened) = enter(&mut self.seen, &message) else {
                // Of something that nobody knows: what it is, a look tells.
                self.look().await?;
                continue;
            };
            for happened in happened {
                self.tell(at, happened, &message.containers_statuses).await;
            }
        }
    }

    /// Tells it, and what its container's status says of it.
    async fn tell(&self, at: UnixNanos, happened: Happened, statuses: &[v1::ContainerStatus]) {
        if let EngineEventKind::ContainerExited(id) = &happened.kind {
            let told = statuses.iter().find(|status| status.id == id.0);
            let reason = match told {
                Some(status) => status.reason.clone(),
                None => match self.inner.container_status(id, false).await {
                    Ok((status, _)) => status.reason,
                    // It is gone, or the next look will have to tell.
                    Err(_) => String::new(),
                },
            };
            if reason == OOM_KILLED {
                let oom = Happened {
                    kind: EngineEventKind::ContainerOom(id.clone()),
                    ..happened.clone()
                };
                self.inner.tell(at, oom);
            }
        }
        self.inner.tell(at, happened);
    }
}

/// Enters a message of the stream; `None` if it is of nothing that is known and does not say what it is of.
fn enter(seen: &mut Snapshot, message: &v1::ContainerEventResponse) -> Option<Vec<Happened>> {
    use v1::ContainerEventType as Type;
    let kind = message.container_event_type();
    let told = message.pod_sandbox_status.as_ref();
    let sandbox = SandboxId(message.container_id.clone());
    if told.is_some_and(|told| told.id == sandbox.0) || seen.sandboxes.contains_key(&sandbox) {
        let before = seen.sandboxes.get(&sandbox);
        let pod_uid = before.map_or_else(|| uid(told), |before| before.pod_uid.clone());
        let ready = match kind {
            Type::ContainerDeletedEvent => return Some(seen.sandbox_is(&sandbox, None)),
            Type::ContainerCreatedEvent => return Some(Vec::new()),
            Type::ContainerStartedEvent => true,
            Type::ContainerStoppedEvent => false,
        };
        // A sandbox is never ready again; word of its beginning came late.
        if ready && before.is_some_and(|before| !before.ready) {
            return Some(Vec::new());
        }
        return Some(seen.sandbox_is(&sandbox, Some(SandboxSeen { pod_uid, ready })));
    }
    let id = ContainerId(message.container_id.clone());
    let state = match kind {
        Type::ContainerDeletedEvent => return Some(seen.container_is_gone(&id)),
        Type::ContainerCreatedEvent => ContainerState::Created,
        Type::ContainerStartedEvent => ContainerState::Running,
        Type::ContainerStoppedEvent => ContainerState::Exited,
    };
    let sandbox = match (seen.containers.get(&id), told) {
        (Some(known), _) => known.sandbox.clone(),
        (None, Some(told)) => SandboxId(told.id.clone()),
        (None, None) => return None,
    };
    let mut happened = Vec::new();
    if !seen.sandboxes.contains_key(&sandbox) {
        let new = SandboxSeen {
            pod_uid: uid(told),
            ready: told.is_some_and(|told| told.state() == v1::PodSandboxState::SandboxReady),
        };
        happened = seen.sandbox_is(&sandbox, Some(new));
    }
    happened.extend(seen.container_is(&id, &sandbox, state));
    Some(happened)
}

fn uid(told: Option<&v1::PodSandboxStatus>) -> String {
    let metadata = told.and_then(|told| told.metadata.as_ref());
    metadata.map_or_else(String::new, |metadata| metadata.uid.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use v1::ContainerEventType as Type;

    fn message(id: &str, kind: Type, sandbox: Option<&str>) -> v1::ContainerEventResponse {
        v1::ContainerEventResponse {
            container_id: id.into(),
            container_event_type: kind.into(),
            pod_sandbox_status: sandbox.map(|sandbox| v1::PodSandboxStatus {
                id: sandbox.into(),
                metadata: Some(v1::PodSandboxMetadata {
                    uid: "u".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_pods_life_is_told_by_its_messages() {
        use EngineEventKind as Kind;
        let mut seen = Snapshot::default();
        let mut kinds = |message: v1::ContainerEventResponse| {
            let happened = enter(&mut seen, &message)?;
            assert!(happened.iter().all(|happened| happened.pod_uid == "u"));
            Some(
                happened
                    .into_iter()
                    .map(|happened| happened.kind)
                    .collect::<Vec<_>>(),
            )
        };
        let c = || ContainerId("c".into());
        let table = [
            (
                message("s", Type::ContainerStartedEvent, Some("s")),
                vec![Kind::SandboxStarted],
            ),
            (
                message("c", Type::ContainerCreatedEvent, Some("s")),
                vec![Kind::ContainerCreated(c())],
            ),
            (
                message("c", Type::ContainerStartedEvent, None),
                vec![Kind::ContainerStarted(c())],
            ),
            (message("c", Type::ContainerStartedEvent, Some("s")), vec![]),
            (
                message("c", Type::ContainerStoppedEvent, Some("s")),
                vec![Kind::ContainerExited(c())],
            ),
            (
                message("s", Type::ContainerStoppedEvent, Some("s")),
                vec![Kind::SandboxStopped],
            ),
            (message("s", Type::ContainerStartedEvent, Some("s")), vec![]),
            (
                message("c", Type::ContainerDeletedEvent, None),
                vec![Kind::ContainerRemoved(c())],
            ),
            (
                message("s", Type::ContainerDeletedEvent, None),
                vec![Kind::SandboxRemoved],
            ),
            (message("s", Type::ContainerDeletedEvent, None), vec![]),
        ];
        for (message, expected) in table {
            let what = format!("{message:?}");
            assert_eq!(kinds(message), Some(expected), "{what}");
        }
        assert_eq!(kinds(message("x", Type::ContainerStartedEvent, None)), None);
    }
}
