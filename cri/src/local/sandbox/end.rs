//! A sandbox's end: stop and remove.

use std::sync::Arc;

use berth_shim::protocol::Request;

use super::super::{
    Inner, Sandbox, container, events, handlers, lock, network, parents, plugins, shim_process,
};
use crate::engine::EngineError;
use crate::local::records::{self, SandboxPhase};
use crate::types::{EngineEventKind, SandboxId};

/// Stops a sandbox: its containers, its network, its shim. A missing one is stopped.
pub(in crate::local) async fn stop(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), EngineError> {
    let Ok(sandbox) = inner.sandbox(id) else {
        return Ok(());
    };
    let _changing = sandbox.changing.lock().await;
    if !inner.has(&sandbox) {
        return Ok(());
    }
    let was_ready = sandbox.status().ready;
    take_down(inner, &sandbox).await?;
    if was_ready {
        events::tell(inner, &sandbox, EngineEventKind::SandboxStopped);
    }
    Ok(())
}

/// Ends everything of a sandbox that the kernel holds, and keeps the records.
pub(in crate::local) async fn take_down(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
) -> Result<(), EngineError> {
    sandbox.note(|record| record.phase = record.phase.max(SandboxPhase::Stopped));
    for container in sandbox.all_containers() {
        container::kill(sandbox, &container).await?;
    }
    plugins::pod_stops(inner, sandbox).await;
    network::detach(inner, sandbox).await?;
    shut_down_shim(sandbox).await
}

async fn shut_down_shim(sandbox: &Sandbox) -> Result<(), EngineError> {
    let shim = lock(&sandbox.shim).take();
    if let Some(shim) = shim {
        // A shim that ended meanwhile has done what was asked.
        let _ = shim.client.call(Request::Shutdown).await;
    }
    ensure_gone(sandbox).await
}

/// Makes sure that a sandbox has no shim and no process any more, and that nothing is left of its runtime handler.
pub(in crate::local) async fn ensure_gone(sandbox: &Sandbox) -> Result<(), EngineError> {
    shim_process::ensure_gone(&sandbox.dirs.run, &sandbox.places()).await?;
    let handler = lock(&sandbox.record).handler.clone();
    match handler {
        Some(handler) => handlers::remove_leftovers(&handler, &sandbox.dirs.run).await,
        None => Ok(()),
    }
}

/// Removes a sandbox with its containers. A missing one is removed.
pub(in crate::local) async fn remove(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), EngineError> {
    let Ok(sandbox) = inner.sandbox(id) else {
        return Ok(());
    };
    let _changing = sandbox.changing.lock().await;
    if !inner.has(&sandbox) {
        return Ok(());
    }
    remove_locked(inner, &sandbox).await
}

pub(in crate::local) async fn remove_locked(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
) -> Result<(), EngineError> {
    sandbox.note(|record| record.phase = SandboxPhase::Removing);
    take_down(inner, sandbox).await?;
    for container in sandbox.all_containers() {
        container::remove_locked(inner, sandbox, &container).await?;
    }
    erase(inner, sandbox)?;
    plugins::pod_removed(inner, sandbox).await;
    Ok(())
}

/// Removes a sandbox's files. The record goes last: while it is there, the rest can be found.
pub(in crate::local) fn erase(inner: &Inner, sandbox: &Sandbox) -> Result<(), EngineError> {
    let dirs = &sandbox.dirs;
    parents::remove(inner, sandbox);
    let removed = records::remove_tree(&dirs.run)
        .and_then(|()| records::remove_tree(&dirs.containers()))
        .and_then(|()| records::remove_tree(&dirs.lib));
    removed.map_err(|error| {
        EngineError::Internal(format!(
            "The files of sandbox {} can't be removed: {error}.",
            sandbox.id
        ))
    })?;
    lock(&inner.sandboxes).remove(sandbox);
    events::tell(inner, sandbox, EngineEventKind::SandboxRemoved);
    Ok(())
}
