//! From a shim's events to what the engine knows and what it tells.

use std::sync::Arc;

use berth_shim::protocol::{ContainerStatus as ShimStatus, Event, ShimState};
use tokio::sync::mpsc;

use super::records::SandboxPhase;
use super::shim_client::{ShimClient, ShimMessage};
use super::{Inner, RunState, Sandbox, Shim, lock, now, plugins, sandbox};
use crate::engine::EngineError;
use crate::types::{ContainerId, EngineEvent, EngineEventKind};

/// Connects to a sandbox's shim, takes over what it knows, and follows its events from then on. A shim that says nothing is
/// waited for until it ends.
pub(super) async fn connect(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    let connected = ShimClient::connect(&sandbox.dirs.run).await;
    let (client, state, messages) = connected.map_err(|failure| EngineError::Internal(failure.message))?;
    take_over(sandbox, &state);
    *lock(&sandbox.shim) = Some(Shim {
        client,
        pause_pid: state.pause_pid,
    });
    tokio::spawn(follow(Arc::clone(inner), Arc::clone(sandbox), messages));
    Ok(())
}

fn take_over(sandbox: &Sandbox, state: &ShimState) {
    for container in sandbox.all_containers() {
        if !state.containers.iter().any(|known| known.id == container.id.0) {
            container.settle(&sandbox.dirs, |state| !matches!(state, RunState::Exited(_)));
        }
    }
    for known in &state.containers {
        let container = lock(&sandbox.containers)
            .get(&ContainerId(known.id.clone()))
            .cloned();
        let Some(container) = container else { continue };
        match (&known.exit, known.status) {
            (Some(exit), _) => container.exited(sandbox, exit.clone()),
            (None, ShimStatus::Running) => container.running(sandbox, known.pid, known.started_at),
            (None, _) => {
                container.run.send_replace(RunState::Created { pid: known.pid });
            }
        }
    }
}

async fn follow(
    inner: Arc<Inner>,
    sandbox: Arc<Sandbox>,
    mut messages: mpsc::UnboundedReceiver<ShimMessage>,
) {
    while let Some(message) = messages.recv().await {
        match message {
            ShimMessage::Event(event) => apply(&inner, &sandbox, event),
            ShimMessage::Gone => return gone(&inner, &sandbox).await,
        }
    }
}

fn apply(inner: &Inner, sandbox: &Sandbox, event: Event) {
    let container = |id: &str| {
        lock(&sandbox.containers)
            .get(&ContainerId(id.to_owned()))
            .cloned()
    };
    let kind = match event {
        Event::Started { container: id, at } => {
            if let Some(container) = container(&id) {
                let RunState::Created { pid } = *container.run.borrow() else {
                    return;
                };
                container.running(sandbox, pid, at);
            }
            EngineEventKind::ContainerStarted(ContainerId(id))
        }
        Event::Exited(exit) => {
            let id = ContainerId(exit.container.clone());
            if let Some(container) = container(&id.0) {
                container.exited(sandbox, exit);
            }
            EngineEventKind::ContainerExited(id)
        }
        Event::Oom { container } => EngineEventKind::ContainerOom(ContainerId(container)),
        Event::ExecExited {
            exec,
            exit_code,
            timed_out,
        } => {
            super::exec::ended(&sandbox.execs, &exec, exit_code, timed_out);
            return;
        }
        Event::PauseExited => {
            if let Some(shim) = lock(&sandbox.shim).as_mut() {
                shim.pause_pid = None;
            }
            EngineEventKind::SandboxLost
        }
    };
    tell(inner, sandbox, kind);
}

/// The shim has ended. Unless that was asked for, its containers are killed: nobody could log, reap or stop them.
pub(super) async fn gone(inner: &Inner, sandbox: &Sandbox) {
    lock(&sandbox.shim).take();
    lock(&sandbox.execs).clear();
    if lock(&sandbox.record).phase >= SandboxPhase::Stopped {
        sandbox.settle_containers();
        return;
    }
    if let Err(error) = sandbox::ensure_gone(sandbox).await {
        tracing::error!(
            "The shim of sandbox {} is gone and its containers could not be killed: {error}",
            sandbox.id
        );
    }
    sandbox.settle_containers();
    for container in sandbox.all_containers() {
        tell(
            inner,
            sandbox,
            EngineEventKind::ContainerExited(container.id.clone()),
        );
    }
    tell(inner, sandbox, EngineEventKind::SandboxLost);
}

/// Tells of everything in a sandbox that was not known for a while.
pub(super) fn tell_all(inner: &Inner, sandbox: &Sandbox) {
    tell(inner, sandbox, EngineEventKind::SandboxStarted);
    for container in sandbox.all_containers() {
        let id = container.id.clone();
        let kind = match *container.run.borrow() {
            RunState::Created { .. } => EngineEventKind::ContainerCreated(id),
            RunState::Running { .. } => EngineEventKind::ContainerStarted(id),
            RunState::Unheard | RunState::Exited(_) | RunState::Unknown { .. } => {
                EngineEventKind::ContainerExited(id)
            }
        };
        tell(inner, sandbox, kind);
    }
}

/// Tells all who listen.
pub(super) fn tell(inner: &Inner, sandbox: &Sandbox, kind: EngineEventKind) {
    if let EngineEventKind::ContainerExited(id) = &kind {
        plugins::tell_ended(inner, sandbox, id);
    }
    let pod_uid = lock(&sandbox.record).config.uid.clone();
    let event = EngineEvent {
        pod_uid,
        sandbox: sandbox.id.clone(),
        at: now(),
        kind,
    };
    lock(&inner.subscribers).retain(|subscriber| subscriber.send(event.clone()).is_ok());
}
