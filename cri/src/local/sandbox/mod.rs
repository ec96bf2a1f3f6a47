//! A sandbox's life: how it is made here, the rest in the files below.

mod directory;
mod end;
mod intent;
mod shortage;
mod state;

pub(super) use directory::shown_hostname;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::OwnedMutexGuard;

use super::handlers::{self, Handler};
use super::records::SandboxPhase;
use super::{Inner, Sandbox, cgroups, events, lock, network, plugins, shim_process};
use crate::engine::EngineError;
use crate::types::{EngineEventKind, PodSandboxConfig, SandboxId};

pub(super) use end::{ensure_gone, remove, remove_locked, stop};
use intent::record_intent;
pub(super) use intent::{first_change, take_lock};
use shortage::Shortage;

/// Runs a pod's sandbox, or joins the call that already does.
pub(super) async fn run(inner: Arc<Inner>, mut config: PodSandboxConfig) -> Result<SandboxId, EngineError> {
    config.cgroup_parent = cgroups::parent(&config.cgroup_parent, inner.config.cgroup_driver)?;
    loop {
        // Whether it can be had matters to who makes the sandbox only.
        let handler = handlers::choose(&inner, &config).await;
        match reserve(&inner, &config, handler)? {
            Reserved::New(sandbox, changing) => return make(&inner, &sandbox, changing).await,
            Reserved::Known(sandbox) => {
                if let Some(id) = join(&inner, &sandbox).await? {
                    return Ok(id);
                }
            }
        }
    }
}

/// Who asks for a pod's attempt first makes it, and the others wait for that.
enum Reserved {
    New(Arc<Sandbox>, OwnedMutexGuard<()>),
    Known(Arc<Sandbox>),
}

fn reserve(
    inner: &Inner,
    config: &PodSandboxConfig,
    handler: Result<Option<Handler>, EngineError>,
) -> Result<Reserved, EngineError> {
    let _one_at_a_time = lock(&inner.reserving);
    match find(inner, config) {
        Some(sandbox) => Ok(Reserved::Known(sandbox)),
        None => {
            let (sandbox, held) = record_intent(inner, config.clone(), handler?)?;
            Ok(Reserved::New(sandbox, held))
        }
    }
}

async fn make(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    _changing: OwnedMutexGuard<()>,
) -> Result<SandboxId, EngineError> {
    match bring_up(inner, sandbox).await {
        Ok(()) => {
            sandbox.making.store(false, Ordering::Release);
            events::tell(inner, sandbox, EngineEventKind::SandboxStarted);
            Ok(sandbox.id.clone())
        }
        Err(error) => {
            *lock(&sandbox.failure) = Some(error.clone());
            undo(inner, sandbox).await;
            Err(error)
        }
    }
}

/// Takes back what was half made. What can't be taken back now is shown as not ready, so that whoever made it removes it
/// or asks for it again.
pub(super) async fn undo(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) {
    if let Err(error) = remove_locked(inner, sandbox).await {
        tracing::warn!(
            "Sandbox {} could not be made, and can't be removed for now either: {error}",
            sandbox.id
        );
    }
    sandbox.making.store(false, Ordering::Release);
}

fn find(inner: &Inner, config: &PodSandboxConfig) -> Option<Arc<Sandbox>> {
    inner.sandboxes_of(Some(&config.uid)).into_iter().find(|sandbox| {
        let record = lock(&sandbox.record);
        record.config.attempt == config.attempt
    })
}

/// Waits for whoever makes or removes the sandbox. `None` if it is gone, so that it can be made again.
async fn join(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<Option<SandboxId>, EngineError> {
    let was_made_meanwhile = sandbox.making.load(Ordering::Acquire);
    let _changing = sandbox.changing.lock().await;
    if sandbox.status().ready {
        return Ok(Some(sandbox.id.clone()));
    }
    if was_made_meanwhile && let Some(error) = lock(&sandbox.failure).clone() {
        return Err(error);
    }
    if !inner.has(sandbox) {
        return Ok(None);
    }
    if lock(&sandbox.record).phase == SandboxPhase::Removing {
        // Nobody has it: it could not be made, or was to be removed, and that failed half way.
        remove_locked(inner, sandbox).await?;
        return Ok(None);
    }
    let record = lock(&sandbox.record);
    Err(EngineError::FailedPrecondition(format!(
        "Attempt {} of the sandbox of pod {}/{} exists and is not ready; remove sandbox {} or ask for the next attempt.",
        record.config.attempt, record.config.namespace, record.config.name, record.id
    )))
}

async fn bring_up(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    directory::check_profiles(sandbox).await?;
    directory::prepare(sandbox)?;
    start_shim(inner, sandbox).await?;
    let ips = network::attach(inner, sandbox).await?;
    plugins::pod_runs(inner, sandbox, &ips).await?;
    sandbox.update_record(|record| {
        record.ips = ips;
        record.phase = SandboxPhase::Ready;
    })
}

async fn start_shim(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    let shortage = Shortage::before(&lock(&sandbox.record).config);
    let started = match shim_process::start(&inner.config.shim_program, &sandbox.dirs.run).await {
        Ok(()) => events::connect(inner, sandbox).await,
        Err(error) => Err(error),
    };
    started.map_err(|error| shortage.and_then(|known| known.explain()).unwrap_or(error))
}
