//! Taking over the sandboxes of an engine that is gone.
//!
//! A sandbox belongs to whoever holds its lock; the kernel lets go of a dead engine's. What was half made or half
//! removed is finished or comes up as not ready, so that the kubelet replaces it; everything else goes on as if
//! nothing had been.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::records::{self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};
use super::{Container, Inner, Sandbox, checkpoint, container, events, lock, sandbox, shim_process};
use crate::engine::EngineError;
use crate::types::SandboxId;

/// Takes over what is on disk of a pod (or of all), once: later sandboxes are this engine's own.
pub(super) async fn adopt(inner: &Arc<Inner>, pod_uid: Option<&str>) -> Result<(), EngineError> {
    let mut adopted = inner.adopted.lock().await;
    let scope = pod_uid.map(str::to_owned);
    if adopted.contains(&None) || adopted.contains(&scope) {
        return Ok(());
    }
    for id in on_disk(inner)? {
        // What is wrong with one pod is no reason to leave the others alone.
        if let Err(error) = adopt_one(inner, id, pod_uid).await {
            tracing::error!("{error}");
        }
    }
    adopted.insert(scope);
    Ok(())
}

fn on_disk(inner: &Inner) -> Result<Vec<SandboxId>, EngineError> {
    let directory = inner.config.lib_dir.join("sandboxes");
    let entries = fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|error| {
        EngineError::Unavailable(format!(
            "The records in {} can't be read: {error}.",
            directory.display()
        ))
    })?;
    Ok(entries
        .into_iter()
        .map(|entry| SandboxId(entry.file_name().to_string_lossy().into_owned()))
        .collect())
}

async fn adopt_one(inner: &Arc<Inner>, id: SandboxId, pod_uid: Option<&str>) -> Result<(), EngineError> {
    if lock(&inner.sandboxes).contains_key(&id) {
        return Ok(());
    }
    let dirs = inner.dirs(&id);
    let unreadable = |error: io::Error| {
        EngineError::Internal(format!(
            "The record of sandbox {id} can't be read: {error}. If it is damaged, remove {}.",
            dirs.lib.display()
        ))
    };
    let belongs = |record: &SandboxRecord| pod_uid.is_none_or(|uid| record.config.uid == uid);
    match records::read::<SandboxRecord>(&dirs.record()).map_err(unreadable)? {
        Some(record) if !belongs(&record) => return Ok(()),
        Some(_) => {}
        // A kill between the directory and the record, or between the record's removal and the directory's.
        None => return erase_empty(&dirs),
    }
    let lock_file = match sandbox::take_lock(&dirs) {
        Ok(lock_file) => lock_file,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(unreadable(error)),
    };
    // Read again under the lock: the owner before may have changed it, or removed it.
    let Some(record) = records::read::<SandboxRecord>(&dirs.record()).map_err(unreadable)? else {
        return Ok(());
    };
    let sandbox = Arc::new(Sandbox::new(dirs, lock_file, record));
    lock(&inner.sandboxes).insert(sandbox.id.clone(), Arc::clone(&sandbox));
    take_over(inner, &sandbox).await
}

fn erase_empty(dirs: &records::SandboxDirs) -> Result<(), EngineError> {
    // Its lock tells whether somebody is about to write the record.
    let Ok(_held) = sandbox::take_lock(dirs) else {
        return Ok(());
    };
    if dirs.record().exists() {
        return Ok(());
    }
    records::remove_tree(&dirs.lib).map_err(|error| {
        EngineError::Internal(format!(
            "The directory {} can't be removed: {error}.",
            dirs.lib.display()
        ))
    })
}

async fn take_over(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    let changing = Arc::clone(&sandbox.changing).lock_owned().await;
    load_containers(sandbox)?;
    let connected = shim_process::lives(&sandbox.dirs.run) && events::connect(inner, sandbox).await.is_ok();
    let phase = lock(&sandbox.record).phase;
    if matches!(phase, SandboxPhase::Creating | SandboxPhase::Removing) {
        // Nobody was told of one that was not finished; it is as if it had never been asked for.
        sandbox
            .making
            .store(phase == SandboxPhase::Creating, Ordering::Release);
        // In the background: a network plugin may take its time.
        let (inner, sandbox) = (Arc::clone(inner), Arc::clone(sandbox));
        tokio::spawn(async move {
            let _changing = changing;
            sandbox::undo(&inner, &sandbox).await;
        });
        return Ok(());
    }
    if !connected {
        sandbox::ensure_gone(sandbox).await?;
        sandbox.settle_containers();
    }
    for container in sandbox.all_containers() {
        let half = lock(&container.record).phase != ContainerPhase::Created;
        if half {
            container::remove_locked(inner, sandbox, &container).await?;
        }
    }
    checkpoint::clean_up(inner, sandbox).await;
    Ok(())
}

fn load_containers(sandbox: &Sandbox) -> Result<(), EngineError> {
    let directory = sandbox.dirs.containers();
    let unreadable = |error: io::Error| {
        EngineError::Internal(format!(
            "The containers' records in {} can't be read: {error}.",
            directory.display()
        ))
    };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(unreadable)?,
    };
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        match records::read::<ContainerRecord>(&path.join("record.json")).map_err(unreadable)? {
            Some(record) => {
                let container = Arc::new(Container::new(record));
                lock(&sandbox.containers).insert(container.id.clone(), container);
            }
            None => records::remove_tree(&path).map_err(unreadable)?,
        }
    }
    Ok(())
}
