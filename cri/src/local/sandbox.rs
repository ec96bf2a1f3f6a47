//! A sandbox's life: run, stop, remove.

use std::fs::{self, File, OpenOptions};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use berth_shim::protocol::{CONFIG_NAME, PauseIds, Request, SandboxConfig};
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{OwnedMutexGuard, watch};

use super::cgroups::{self, Place};
use super::handlers::{self, Handler};
use super::labels::{self, SelinuxLabels};
use super::records::{self, SandboxDirs, SandboxPhase, SandboxRecord};
use super::{
    Container, Inner, RunState, Sandbox, Shim, container, events, lock, network, new_id, now, parents,
    plugins, privileges, shim_process, user_namespace, users,
};
use crate::engine::EngineError;
use crate::types::{
    AppArmorProfile, ContainerId, EngineEventKind, PodSandboxConfig, PodSandboxStatus, SandboxId,
    SandboxSecurity, SeccompProfile,
};

/// The size of a pod's `/dev/shm`, as the field has it.
const SHM_SIZE: u64 = 64 << 20;
/// A pause is not for the OOM killer (upstream's value for sandboxes).
const PAUSE_OOM_SCORE_ADJ: i32 = -998;

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

fn record_intent(
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
        selinux: selinux(inner, &config, &id)?,
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
    lock(&inner.sandboxes).insert(id, Arc::clone(&sandbox));
    Ok((sandbox, changing))
}

/// The right to change a sandbox that nobody else knows yet.
pub(super) fn first_change(sandbox: &Sandbox) -> Result<OwnedMutexGuard<()>, EngineError> {
    Arc::clone(&sandbox.changing)
        .try_lock_owned()
        .map_err(|_| EngineError::Internal("A sandbox that nobody knows is in use.".to_owned()))
}

/// The pod's SELinux labels, with categories that no other pod of this engine has.
fn selinux(
    inner: &Inner,
    config: &PodSandboxConfig,
    id: &SandboxId,
) -> Result<Option<SelinuxLabels>, EngineError> {
    let sandboxes: Vec<_> = lock(&inner.sandboxes).values().cloned().collect();
    let level = |sandbox: &Arc<Sandbox>| {
        let record = lock(&sandbox.record);
        let labels = record.selinux.as_ref()?;
        Some(labels::level_of(&labels.process).to_owned())
    };
    let taken = sandboxes.iter().filter_map(level).collect();
    labels::of_pod(config.security.selinux.as_ref(), &id.0, &taken)
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
pub(super) fn take_lock(dirs: &SandboxDirs) -> std::io::Result<Flock<File>> {
    Flock::lock(open_lock(dirs)?, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

fn open_lock(dirs: &SandboxDirs) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(dirs.lock())
}

async fn bring_up(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    check_profiles(sandbox).await?;
    prepare_directory(sandbox)?;
    start_shim(inner, sandbox).await?;
    let ips = network::attach(inner, sandbox).await?;
    plugins::pod_runs(inner, sandbox, &ips).await?;
    sandbox.update_record(|record| {
        record.ips = ips;
        record.phase = SandboxPhase::Ready;
    })
}

/// The pause runs no program, opens no file, has no privilege, and may make no system call but those by which it waits:
/// whatever profile a pod asks for, the pause is confined by more. What is asked for has to be there all the same.
async fn check_profiles(sandbox: &Sandbox) -> Result<(), EngineError> {
    let security = lock(&sandbox.record).config.security.clone();
    if let SeccompProfile::Localhost(path) = &security.seccomp {
        privileges::read_profile(path)?;
    }
    if security.apparmor != AppArmorProfile::Unset {
        labels::apparmor(&security.apparmor, false).await?;
    }
    Ok(())
}

fn pause_ids(security: &SandboxSecurity) -> Result<PauseIds, EngineError> {
    let id = |field: &str, id: Option<i64>| id.map(|id| users::to_id(field, id)).transpose();
    let groups = security.supplemental_groups.iter();
    Ok(PauseIds {
        uid: id("runAsUser", security.run_as_user)?,
        gid: id("runAsGroup", security.run_as_group)?,
        groups: groups
            .map(|group| users::to_id("supplementalGroups", *group))
            .collect::<Result<_, _>>()?,
    })
}

fn prepare_directory(sandbox: &Sandbox) -> Result<(), EngineError> {
    let record = lock(&sandbox.record).clone();
    let config = &record.config;
    let namespaces = config.namespaces;
    let place = sandbox.place();
    let hostname = if namespaces.host_network || config.hostname.is_empty() {
        host_name()
    } else {
        config.hostname.clone()
    };
    let shim = SandboxConfig {
        id: record.id.0.clone(),
        cgroup: place.path,
        scope: place.scope,
        hostname: (!namespaces.host_network).then(|| hostname.clone()),
        network: !namespaces.host_network,
        ipc: !namespaces.host_ipc,
        shared_pid: namespaces.shared_pid,
        user: config.user_namespace.clone(),
        sysctls: config.sysctls.clone(),
        oom_score_adj: PAUSE_OOM_SCORE_ADJ,
        shm_size: SHM_SIZE,
        mount_label: record
            .selinux
            .as_ref()
            .map(|labels| labels.mount.clone())
            .unwrap_or_default(),
        pause: pause_ids(&config.security)?,
        runtime: record.handler.as_ref().map(Handler::program),
    };
    let run = &sandbox.dirs.run;
    let write = || {
        for directory in [berth_shim::protocol::BUNDLES_DIR, berth_shim::protocol::EXITS_DIR] {
            fs::create_dir_all(run.join(directory))?;
        }
        records::write_file(&run.join("hostname"), format!("{hostname}\n").as_bytes())?;
        records::write_file(&run.join("hosts"), &network::hosts()?)?;
        records::write_file(&run.join("resolv.conf"), network::resolv_conf(config)?.as_bytes())?;
        if let Some(user) = &config.user_namespace {
            // The pod's root may change what its containers' names resolve to, as it may without a user namespace.
            for file in ["hostname", "hosts", "resolv.conf"] {
                let (uid, gid) = (
                    user_namespace::on_host(&user.uids, 0),
                    user_namespace::on_host(&user.gids, 0),
                );
                std::os::unix::fs::chown(run.join(file), Some(uid), Some(gid))?;
            }
        }
        records::write(&run.join(CONFIG_NAME), &shim)
    };
    write().map_err(|error: std::io::Error| {
        EngineError::Unavailable(format!(
            "The sandbox's directory {} can't be made: {error}.",
            run.display()
        ))
    })
}

fn host_name() -> String {
    let name = rustix::system::uname();
    name.nodename().to_string_lossy().into_owned()
}

async fn start_shim(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    shim_process::start(&inner.config.shim_program, &sandbox.dirs.run).await?;
    events::connect(inner, sandbox).await
}

/// Stops a sandbox: its containers, its network, its shim. A missing one is stopped.
pub(super) async fn stop(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), EngineError> {
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
pub(super) async fn take_down(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
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
pub(super) async fn ensure_gone(sandbox: &Sandbox) -> Result<(), EngineError> {
    shim_process::ensure_gone(&sandbox.dirs.run, &sandbox.places()).await?;
    let handler = lock(&sandbox.record).handler.clone();
    match handler {
        Some(handler) => handlers::remove_leftovers(&handler, &sandbox.dirs.run).await,
        None => Ok(()),
    }
}

/// Removes a sandbox with its containers. A missing one is removed.
pub(super) async fn remove(inner: &Arc<Inner>, id: &SandboxId) -> Result<(), EngineError> {
    let Ok(sandbox) = inner.sandbox(id) else {
        return Ok(());
    };
    let _changing = sandbox.changing.lock().await;
    if !inner.has(&sandbox) {
        return Ok(());
    }
    remove_locked(inner, &sandbox).await
}

pub(super) async fn remove_locked(inner: &Arc<Inner>, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
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
pub(super) fn erase(inner: &Inner, sandbox: &Sandbox) -> Result<(), EngineError> {
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
    lock(&inner.sandboxes).remove(&sandbox.id);
    events::tell(inner, sandbox, EngineEventKind::SandboxRemoved);
    Ok(())
}

impl Sandbox {
    pub(super) fn new(dirs: SandboxDirs, lock_file: Flock<File>, record: SandboxRecord) -> Self {
        Self {
            id: record.id.clone(),
            dirs,
            _lock: lock_file,
            changing: Arc::default(),
            checkpointing: Arc::default(),
            making: AtomicBool::new(false),
            taken_over: watch::Sender::new(true),
            failure: Mutex::default(),
            record: Mutex::new(record),
            shim: Mutex::default(),
            containers: Mutex::default(),
            execs: Mutex::default(),
            usage: Default::default(),
        }
    }

    pub(super) fn status(&self) -> PodSandboxStatus {
        let record = lock(&self.record);
        let alive = lock(&self.shim)
            .as_ref()
            .is_some_and(|shim| shim.pause_pid.is_some());
        PodSandboxStatus {
            id: record.id.clone(),
            config: record.config.clone(),
            ready: alive && record.phase == SandboxPhase::Ready,
            created_at: record.created_at,
            ips: record.ips.clone(),
        }
    }

    pub(super) fn update_record(&self, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), EngineError> {
        let mut record = lock(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        if changed == *record {
            return Ok(());
        }
        records::write(&self.dirs.record(), &changed).map_err(|error| {
            EngineError::Unavailable(format!(
                "The record of sandbox {} can't be written: {error}.",
                self.id
            ))
        })?;
        *record = changed;
        Ok(())
    }

    /// Keeps a fact on record, in memory if the disk is full: it is true all the same, and what takes things away must not
    /// wait for space to do so.
    fn note(&self, change: impl FnOnce(&mut SandboxRecord)) {
        let mut record = lock(&self.record);
        let before = record.clone();
        change(&mut record);
        if *record == before {
            return;
        }
        if let Err(error) = records::write(&self.dirs.record(), &*record) {
            tracing::warn!("The record of sandbox {} can't be written: {error}.", self.id);
        }
    }

    pub(super) fn live_shim(&self) -> Result<Shim, EngineError> {
        lock(&self.shim).clone().ok_or_else(|| {
            EngineError::FailedPrecondition(format!(
                "Sandbox {} has no shim any more; it needs a new attempt.",
                self.id
            ))
        })
    }

    /// Whether the shim does not answer, as far as is known.
    pub(super) fn is_silent(&self, container: &Container) -> bool {
        match lock(&self.shim).as_ref() {
            Some(shim) => shim.client.is_silent(),
            None => matches!(*container.run.borrow(), RunState::Unheard),
        }
    }

    /// Why nothing can be done with a sandbox whose shim this engine has not heard yet.
    pub(super) fn unheard(&self) -> EngineError {
        EngineError::FailedPrecondition(format!(
            "The shim of sandbox {} does not answer; it is stopped, or hangs. Stop the sandbox to end it.",
            self.id
        ))
    }

    pub(super) fn all_containers(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().cloned().collect()
    }

    /// The shim's and the pause's own cgroup.
    pub(super) fn place(&self) -> Place {
        Place::of(&lock(&self.record), &self.id.0)
    }

    /// A container's cgroup.
    pub(super) fn place_of(&self, container: &ContainerId) -> Place {
        Place::of(&lock(&self.record), &container.0)
    }

    /// Every cgroup that may hold a process of this sandbox.
    pub(super) fn places(&self) -> Vec<Place> {
        let containers = self.all_containers();
        let theirs = containers.iter().map(|container| self.place_of(&container.id));
        theirs.chain([self.place()]).collect()
    }

    /// What becomes of its containers when the shim is gone: the exit records on disk are the last word.
    pub(super) fn settle_containers(&self) {
        for container in self.all_containers() {
            container.settle(&self.dirs, |state| !matches!(state, RunState::Exited(_)));
        }
    }
}
