//! Removing a container with all that is its.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use berth_shim::protocol::{Failure, FailureCode, Request, Response};

use super::kill;
use crate::engine::EngineError;
use crate::local::records::{self, ContainerPhase};
use crate::local::{Container, Inner, Sandbox, events, image, lock, plugins};
use crate::types::EngineEventKind;

/// Removes a container with its writable layer.
pub(in crate::local) async fn remove(
    inner: &Inner,
    sandbox: &Arc<Sandbox>,
    container: &Container,
) -> Result<(), EngineError> {
    let _changing = sandbox.changing.lock().await;
    if !lock(&sandbox.containers).contains_key(&container.id) {
        return Ok(());
    }
    remove_locked(inner, sandbox, container).await
}

pub(in crate::local) async fn remove_locked(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
) -> Result<(), EngineError> {
    container.note(&sandbox.dirs, |record| record.phase = ContainerPhase::Removing);
    // Without a shim there is no process any more, unless nobody has heard that shim yet.
    if sandbox.live_shim().is_ok() || sandbox.is_silent(container) {
        kill(sandbox, container).await?;
    }
    if let Ok(shim) = sandbox.live_shim() {
        let deleted = shim
            .client
            .call(Request::Delete {
                container: container.id.0.clone(),
            })
            .await;
        if let Err(failure) = deleted.or_else(|failure| forgive_missing(sandbox, failure)) {
            return Err(EngineError::Internal(failure.message));
        }
    }
    {
        // Nobody is to write the record while it is being removed.
        let _changing = container.limits.lock().await;
        erase(inner, sandbox, container)?;
    }
    plugins::removed(inner, container).await;
    Ok(())
}

fn forgive_missing(sandbox: &Sandbox, failure: Failure) -> Result<Response, Failure> {
    let gone = failure.code == FailureCode::NotFound || lock(&sandbox.shim).is_none();
    if gone { Ok(Response::Done) } else { Err(failure) }
}

/// Removes a container's files. The record goes last: while it is there, the rest can be found.
fn erase(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    let dirs = &sandbox.dirs;
    let directory = dirs.container(&container.id);
    let removed = ["upper", "work"]
        .iter()
        .try_for_each(|name| records::remove_tree(&directory.join(name)))
        .and_then(|()| records::remove_tree(&dirs.bundle(&container.id)))
        .and_then(|()| remove_file(&dirs.exit_record(&container.id)));
    let failed = |error: std::io::Error| {
        EngineError::Internal(format!(
            "The files of container {} can't be removed: {error}.",
            container.id
        ))
    };
    removed.map_err(failed)?;
    image::release(&inner.images, &container.id)?;
    records::remove_tree(&directory).map_err(failed)?;
    lock(&sandbox.containers).remove(&container.id);
    lock(&inner.sandboxes).lost_container(&container.id);
    container.log.complete();
    events::tell(
        inner,
        sandbox,
        EngineEventKind::ContainerRemoved(container.id.clone()),
    );
    Ok(())
}

fn remove_file(path: &Path) -> std::io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
