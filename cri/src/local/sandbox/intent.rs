//! What is written down before anything of a sandbox exists.

use std::fs::{self, File, OpenOptions};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::OwnedMutexGuard;

use crate::engine::EngineError;
use crate::local::handlers::Handler;
use crate::local::records::{self, SandboxDirs, SandboxPhase, SandboxRecord};
use crate::local::selinux::{self, SelinuxLabels};
use crate::local::{Inner, Sandbox, lock, new_id, now, parents};
use crate::types::{PodSandboxConfig, SandboxId};

pub(super) fn record_intent(
    inner: &Inner,
    config: PodSandboxConfig,
    handler: Option<Handler>,
) -> Result<(Arc<Sandbox>, OwnedMutexGuard<()>), EngineError> {
    let id = SandboxId(new_id()?);
    let dirs = inner.dirs(&id);
    let failed = |error: std::io::Error| {
        EngineError::Unavailable(format!(
            "The record of the sandbox of pod {}/{} can't be written to {}: {error}.",
            config.namespace,
            config.name,
            dirs.lib.display()
        ))
    };
    let _parents = lock(&inner.parents);
    let record = SandboxRecord {
        id: id.clone(),
        config: config.clone(),
        cgroup_driver: inner.config.cgroup_driver,
        created_at: now(),
        phase: SandboxPhase::Creating,
        ips: Vec::new(),
        selinux: selinux_labels(inner, &config, &id)?,
        made_cgroups: parents::missing(&config.cgroup_parent),
        handler,
    };
    let lock_file = write_first(&dirs, &record).map_err(|error| {
        let _ = records::remove_tree(&dirs.lib);
        failed(error)
    })?;
    let sandbox = Arc::new(Sandbox::new(dirs, lock_file, record));
    sandbox.making.store(true, Ordering::Release);
    let changing = first_change(&sandbox)?;
    lock(&inner.sandboxes).insert(Arc::clone(&sandbox));
    Ok((sandbox, changing))
}

/// The right to change a sandbox that nobody else knows yet.
pub(in crate::local) fn first_change(sandbox: &Sandbox) -> Result<OwnedMutexGuard<()>, EngineError> {
    Arc::clone(&sandbox.changing)
        .try_lock_owned()
        .map_err(|_| EngineError::Internal("A sandbox that nobody knows is in use.".to_owned()))
}

/// The pod's SELinux labels, with categories that no other pod has.
fn selinux_labels(
    inner: &Inner,
    config: &PodSandboxConfig,
    id: &SandboxId,
) -> Result<Option<SelinuxLabels>, EngineError> {
    let taken = || selinux::levels_in(&inner.config.lib_dir.join("sandboxes"));
    selinux::of_pod(config.security.selinux.as_ref(), &id.0, taken)
}

/// Writes a sandbox's first record under its lock. Another engine that sweeps empty directories may take this one away
/// until the record is there, so a directory that has gone is made again.
fn write_first(dirs: &SandboxDirs, record: &SandboxRecord) -> std::io::Result<Flock<File>> {
    let attempt = || {
        fs::create_dir_all(dirs.containers())?;
        let lock_file = Flock::lock(open_lock(dirs)?, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        records::write(&dirs.record(), record).map(|()| lock_file)
    };
    match attempt() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => attempt(),
        other => other,
    }
}

/// Takes the sandbox's lock; fails with `WouldBlock` if another engine has it.
pub(in crate::local) fn take_lock(dirs: &SandboxDirs) -> std::io::Result<Flock<File>> {
    Flock::lock(open_lock(dirs)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

fn open_lock(dirs: &SandboxDirs) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dirs.lock())
}
