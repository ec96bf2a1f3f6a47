//! Taking over the sandboxes of an engine that is gone.
//!
//! A sandbox belongs to whoever holds its lock; the kernel lets go of a dead engine's. What was half made or half
//! removed is finished or comes up as not ready, so that the kubelet replaces it; everything else goes on as if
//! nothing had been.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

use super::records::{self, ContainerPhase, ContainerRecord, SandboxPhase, SandboxRecord};
use super::{Container, Inner, Sandbox, checkpoint, container, events, lock, sandbox, shim_process};
use crate::engine::EngineError;
use crate::types::SandboxId;

/// How long the shims of a dead engine's sandboxes are waited for, all together. A shim answers in a millisecond; one that
/// is stopped, or hangs, is no reason to leave the other pods alone.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often a sandbox that another engine has is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Takes over what is on disk of a pod (or of all), once: later sandboxes are this engine's own. A sandbox whose shim does not
/// answer is not ready, and its containers are in an unknown state, until it does.
///
/// Who asks for one pod has it to itself: an engine that still has a sandbox of it is just ending, and is waited for. Without
/// that sandbox the pod would be made a second time.
pub(super) async fn adopt(inner: &Arc<Inner>, pod_uid: Option<&str>) -> Result<(), EngineError> {
    let begun = Instant::now();
    while let Some(id) = begin(inner, pod_uid)? {
        if begun.elapsed() > PATIENCE {
            return Err(EngineError::Unavailable(format!(
                "Sandbox {id} of the pod belongs to another process: end that one first."
            )));
        }
        // No event says that a lock of another process is free. A thread that waits in flock(2) can't be called off when patience
        // ends, and inotify(7) tells of the last close before the lock goes with it.
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let all = async {
        for sandbox in inner.sandboxes_of(pod_uid) {
            // The sender is the sandbox's own, so that there is always one.
            let _ = sandbox.taken_over.subscribe().wait_for(|done| *done).await;
        }
    };
    // Who was waited for in vain says so itself.
    let _ = tokio::time::timeout(PATIENCE, all).await;
    Ok(())
}

/// Returns a sandbox of the pod that another engine has, if there is one.
fn begin(inner: &Arc<Inner>, pod_uid: Option<&str>) -> Result<Option<SandboxId>, EngineError> {
    let mut adopted = lock(&inner.adopted);
    let scope = pod_uid.map(str::to_owned);
    if adopted.contains(&None) || adopted.contains(&scope) {
        return Ok(None);
    }
    let mut another = None;
    for id in on_disk(inner)? {
        // What is wrong with one pod is no reason to leave the others alone.
        match load(inner, id.clone(), pod_uid) {
            Ok(Load::Taken(sandbox, changing)) => {
                tokio::spawn(take_over(Arc::clone(inner), sandbox, changing));
            }
            Ok(Load::Another) if pod_uid.is_some() => another = Some(id),
            Ok(Load::Another | Load::Nothing) => {}
            Err(error) => tracing::error!("{error}"),
        }
    }
    if another.is_none() {
        adopted.insert(scope);
    }
    Ok(another)
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

/// What a sandbox on disk is to this engine.
enum Load {
    /// It is this engine's own from now on; with it comes the right to change it.
    Taken(Arc<Sandbox>, OwnedMutexGuard<()>),
    /// Another engine has it.
    Another,
    /// It is known already, of another pod, or just going.
    Nothing,
}

/// Makes a sandbox that is on disk this engine's own, unless it is another one's, or of another pod.
fn load(inner: &Inner, id: SandboxId, pod_uid: Option<&str>) -> Result<Load, EngineError> {
    if lock(&inner.sandboxes).contains(&id) {
        return Ok(Load::Nothing);
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
        Some(record) if !belongs(&record) => return Ok(Load::Nothing),
        Some(_) => {}
        // A kill between the directory and the record, or between the record's removal and the directory's.
        None => return erase_empty(&dirs).map(|()| Load::Nothing),
    }
    let lock_file = match sandbox::take_lock(&dirs) {
        Ok(lock_file) => lock_file,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Load::Another),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Load::Nothing),
        Err(error) => return Err(unreadable(error)),
    };
    // Read again under the lock: the owner before may have changed it, or removed it.
    let Some(record) = records::read::<SandboxRecord>(&dirs.record()).map_err(unreadable)? else {
        return Ok(Load::Nothing);
    };
    let sandbox = Arc::new(Sandbox::new(dirs, lock_file, record));
    load_containers(&sandbox)?;
    sandbox.taken_over.send_replace(false);
    let phase = lock(&sandbox.record).phase;
    sandbox
        .making
        .store(phase == SandboxPhase::Creating, Ordering::Release);
    let changing = sandbox::first_change(&sandbox)?;
    lock(&inner.sandboxes).insert(Arc::clone(&sandbox));
    Ok(Load::Taken(sandbox, changing))
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

async fn take_over(inner: Arc<Inner>, sandbox: Arc<Sandbox>, changing: OwnedMutexGuard<()>) {
    let phase = lock(&sandbox.record).phase;
    match phase {
        SandboxPhase::Creating | SandboxPhase::Removing => undo(&inner, &sandbox, changing).await,
        SandboxPhase::Ready | SandboxPhase::Stopped => {
            // Whoever stops it is not to wait for its shim.
            drop(changing);
            if let Err(error) = join(&inner, &sandbox).await {
                tracing::error!("{error}");
            }
        }
    }
    sandbox.taken_over.send_replace(true);
}

/// Undoes what was half made or half removed. Nobody was told of one that was not finished; it is as if it had never been
/// asked for.
async fn undo(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>, _changing: OwnedMutexGuard<()>) {
    // Nobody waits for this but who asks for the same pod: a network plugin may take its time.
    sandbox.taken_over.send_replace(true);
    if shim_process::lives(&sandbox.dirs.run) {
        // Whether it can be told to end, or has to be made to, is all the same.
        let _ = tokio::time::timeout(PATIENCE, events::connect(inner, sandbox)).await;
    }
    if sandbox.live_shim().is_err() && sandbox::ensure_gone(sandbox).await.is_ok() {
        sandbox.settle_containers();
    }
    sandbox::undo(inner, sandbox).await;
}

/// Goes on with a sandbox that was whole.
async fn join(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    let connected = shim_process::lives(&sandbox.dirs.run) && connect(inner, sandbox).await;
    let _changing = sandbox.changing.lock().await;
    if !inner.has(sandbox) {
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

/// Waits for the shim without end: it may be stopped, and go on one day. Who asks for the pod meanwhile is told what is
/// known, and who stops it ends the shim, and this.
async fn connect(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> bool {
    let connect = events::connect(inner, sandbox);
    tokio::pin!(connect);
    if let Ok(connected) = tokio::time::timeout(PATIENCE, &mut connect).await {
        return connected.is_ok();
    }
    sandbox.taken_over.send_replace(true);
    tracing::error!(
        "The shim of sandbox {} does not answer; it is stopped, or hangs. Its pod is not ready until it does.",
        sandbox.id
    );
    let connected = connect.await.is_ok();
    if connected {
        tracing::warn!("The shim of sandbox {} answers again.", sandbox.id);
        events::tell_all(inner, sandbox);
    } else {
        events::gone(inner, sandbox).await;
    }
    connected
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
                let container = Arc::new(Container::left(record));
                lock(&sandbox.containers).insert(container.id.clone(), container);
            }
            None => records::remove_tree(&path).map_err(unreadable)?,
        }
    }
    Ok(())
}
