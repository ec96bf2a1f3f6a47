//! Starting and stopping.

use std::time::Duration;

use berth_shim::protocol::{FailureCode, Request};
use nix::sys::signal::Signal;

use super::from_shim;
use crate::engine::EngineError;
use crate::local::sandbox::ensure_gone;
use crate::local::{Container, RunState, Sandbox, lock};

/// How long the kernel may take to end a killed process before that is an error.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs a created container's program. One that runs already is started.
pub(in crate::local) async fn start(sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    let record = lock(&container.record).clone();
    match *container.run.borrow() {
        RunState::Created { .. } => {}
        RunState::Running { .. } => return Ok(()),
        RunState::Unheard => return Err(sandbox.unheard()),
        RunState::Exited(_) | RunState::Unknown { .. } => {
            return Err(EngineError::FailedPrecondition(format!(
                "Container {} has ended; it can't be started again.",
                record.config.name
            )));
        }
    }
    let client = sandbox.live_shim()?.client;
    let result = client
        .call(Request::Start {
            container: container.id.0.clone(),
        })
        .await;
    let Err(failure) = result else {
        container.begun().await;
        return Ok(());
    };
    if failure.code == FailureCode::CannotRun {
        let message = failure.message.clone();
        container.update_record(&sandbox.dirs, |record| record.cannot_run = Some(message))?;
    }
    Err(from_shim(&record, "started", failure))
}

/// Asks a container to end, then makes it. Returns when it was reaped.
pub(in crate::local) async fn stop(
    sandbox: &Sandbox,
    container: &Container,
    timeout: Duration,
) -> Result<(), EngineError> {
    let running = matches!(*container.run.borrow(), RunState::Running { .. });
    if running && !timeout.is_zero() {
        let signal = lock(&container.record).stop_signal;
        match send(sandbox, container, signal, false).await {
            Ok(()) if tokio::time::timeout(timeout, container.ended()).await.is_ok() => return Ok(()),
            Ok(()) => {}
            // Who could not be asked has nothing to wait for.
            Err(error) => tracing::warn!("Container {} is killed at once: {error}", container.id),
        }
    }
    kill(sandbox, container).await
}

/// Ends a container now. Returns when it was reaped; one that has ended is killed.
pub(in crate::local) async fn kill(sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    if container.has_ended() {
        return Ok(());
    }
    if let Err(error) = send(sandbox, container, Signal::SIGKILL as i32, true).await {
        if !sandbox.is_silent(container) {
            return Err(error);
        }
        // Nobody could log, reap or stop the pod's containers. Whoever listens to the shim hears its end.
        tracing::warn!("Sandbox {} is ended with all its processes: {error}", sandbox.id);
        ensure_gone(sandbox).await?;
    }
    tokio::time::timeout(KILL_TIMEOUT, container.ended())
        .await
        .map_err(|_| {
            EngineError::Internal(format!(
                "Container {} was killed {} s ago and its process is still there; it may wait for a device.",
                container.id,
                KILL_TIMEOUT.as_secs()
            ))
        })
}

async fn send(sandbox: &Sandbox, container: &Container, signal: i32, all: bool) -> Result<(), EngineError> {
    let Ok(shim) = sandbox.live_shim() else {
        return match *container.run.borrow() {
            RunState::Unheard => Err(sandbox.unheard()),
            // Without a shim the container is killed by whoever finds out, and its end is known then.
            _ => Ok(()),
        };
    };
    let request = Request::Kill {
        container: container.id.0.clone(),
        signal,
        all,
    };
    match shim.client.call(request).await {
        Err(failure) if failure.code == FailureCode::NotFound => {
            container.settle(&sandbox.dirs, |state| !matches!(state, RunState::Exited(_)));
            Ok(())
        }
        // A shim that ends meanwhile takes its containers with it.
        Err(_) if lock(&sandbox.shim).is_none() => Ok(()),
        Err(failure) => Err(EngineError::Internal(failure.message)),
        Ok(_) => Ok(()),
    }
}

/// Closes and opens a running container's log again.
pub(in crate::local) async fn reopen_log(
    sandbox: &Sandbox,
    container: &Container,
) -> Result<(), EngineError> {
    let record = lock(&container.record).clone();
    if !matches!(*container.run.borrow(), RunState::Running { .. }) {
        return Err(EngineError::FailedPrecondition(format!(
            "The log of container {} can't be opened again: it does not run.",
            record.config.name
        )));
    }
    let request = Request::ReopenLog {
        container: container.id.0.clone(),
    };
    let reply = sandbox.live_shim()?.client.call(request).await;
    reply
        .map(|_| ())
        .map_err(|failure| from_shim(&record, "told to open its log again", failure))
}
