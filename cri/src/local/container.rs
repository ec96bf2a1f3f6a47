//! A container's life: create, start, stop, remove.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_shim::protocol::{CreateContainer, ExitRecord, Failure, FailureCode, Request, Response, Rootfs};
use nix::sys::signal::Signal;
use tokio::sync::watch;

use super::records::{self, ContainerPhase, ContainerRecord, SandboxDirs};
use super::shim_client::engine_error;
use super::users::{Accounts, Identity, IdentityRequest};
use super::{
    Container, Inner, RunState, Sandbox, bundle, events, image, labels, lock, logs, mounts, new_id, now,
    plugins, relabel, signals, user_namespace,
};
use crate::cdi;
use crate::engine::EngineError;
use crate::types::{
    ContainerConfig, ContainerId, ContainerState, ContainerStatus, ContainerUser, EngineEventKind, ImageId,
    ImageMount, UnixNanos, UserNamespace,
};

/// How long the kernel may take to end a killed process before that is an error.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// What a process that nobody could reap is said to have ended with, as upstream says it.
const EXIT_CODE_UNKNOWN: i32 = 137;

/// Makes a container, or joins the call that already does.
pub(super) async fn create(
    inner: &Arc<Inner>,
    sandbox: &Arc<Sandbox>,
    config: ContainerConfig,
) -> Result<ContainerId, EngineError> {
    let _changing = sandbox.changing.lock().await;
    if let Some(existing) = find(sandbox, &config) {
        if lock(&existing.record).phase != ContainerPhase::Removing {
            return Ok(existing.id.clone());
        }
        // Nobody has it: it could not be made, or was to be removed, and that failed half way.
        remove_locked(inner, sandbox, &existing).await?;
    }
    if !sandbox.status().ready {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {} can't be made: its sandbox {} is not ready.",
            config.name, sandbox.id
        )));
    }
    check_fits(sandbox, &config)?;
    let container = record_intent(inner, sandbox, config)?;
    match bring_up(inner, sandbox, &container).await {
        Ok(()) => {
            let made = EngineEventKind::ContainerCreated(container.id.clone());
            events::tell(inner, sandbox, made);
            Ok(container.id.clone())
        }
        Err(error) => {
            if let Err(undo) = remove_locked(inner, sandbox, &container).await {
                tracing::warn!("A container that could not be made could not be removed either: {undo}");
            }
            Err(error)
        }
    }
}

/// Refuses what the sandbox was not made for.
fn check_fits(sandbox: &Sandbox, config: &ContainerConfig) -> Result<(), EngineError> {
    let pod = lock(&sandbox.record).config.clone();
    // A pod that is not said to have privileged containers gets none.
    if config.security.privileged && !pod.privileged {
        return Err(EngineError::InvalidArgument(format!(
            "Container {} is privileged, and its sandbox {} is not; no privileged container is allowed in it.",
            config.name, sandbox.id
        )));
    }
    if config.user_namespace != pod.user_namespace {
        return Err(EngineError::InvalidArgument(format!(
            "Container {} does not ask for the user namespace that its sandbox {} has.",
            config.name, sandbox.id
        )));
    }
    let Some(target) = &config.pid_target else {
        return Ok(());
    };
    let found = lock(&sandbox.containers).get(target).cloned();
    let Some(found) = found else {
        return Err(EngineError::InvalidArgument(format!(
            "The target {target} of container {} is no container of its sandbox {}.",
            config.name, sandbox.id
        )));
    };
    if !matches!(*found.run.borrow(), RunState::Running { .. }) {
        return Err(EngineError::FailedPrecondition(format!(
            "The target {target} of container {} does not run.",
            config.name
        )));
    }
    Ok(())
}

fn find(sandbox: &Sandbox, config: &ContainerConfig) -> Option<Arc<Container>> {
    sandbox.all_containers().into_iter().find(|container| {
        let record = lock(&container.record);
        record.config.name == config.name && record.config.attempt == config.attempt
    })
}

fn record_intent(
    inner: &Inner,
    sandbox: &Sandbox,
    mut config: ContainerConfig,
) -> Result<Arc<Container>, EngineError> {
    mounts::check(&config.mounts, config.user_namespace.as_ref())?;
    cdi::asked_for(&config.cdi_devices, &config.annotations)?;
    for mount in config.mounts.iter_mut().filter_map(|mount| mount.image.as_mut()) {
        mount.image_ref = image::mounted(&inner.images, &mount.image)?.id;
    }
    let image = image::needed(&inner.images, &config.image)?;
    let signal = config.stop_signal.clone().or_else(|| image::stop_signal(&image));
    let record = ContainerRecord {
        id: ContainerId(new_id()?),
        image_id: ImageId(image.id.clone()),
        stop_signal: signal.map_or(Ok(Signal::SIGTERM as i32), |signal| signals::parse(&signal))?,
        created_at: now(),
        started_at: 0,
        phase: ContainerPhase::Creating,
        exit: None,
        cannot_run: None,
        user: None,
        config,
    };
    let directory = sandbox.dirs.container(&record.id);
    let written = fs::create_dir(&directory)
        .and_then(|()| records::write(&sandbox.dirs.container_record(&record.id), &record));
    written.map_err(|error| {
        let _ = records::remove_tree(&directory);
        EngineError::Unavailable(format!(
            "The record of container {} can't be written to {}: {error}.",
            record.config.name,
            directory.display()
        ))
    })?;
    let container = Arc::new(Container::new(record));
    lock(&sandbox.containers).insert(container.id.clone(), Arc::clone(&container));
    Ok(container)
}

async fn bring_up(inner: &Inner, sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    let record = lock(&container.record).clone();
    let image = image::needed(&inner.images, &record.image_id.0)?;
    image::lease(&inner.images, &image, &container.id)?;
    let layers = image::layers(&inner.images, &image)?;
    let layers_of = |mount: &ImageMount| {
        let image = image::mounted(&inner.images, &mount.image_ref)?;
        image::lease(&inner.images, &image, &container.id)?;
        image::layers(&inner.images, &image)
    };
    let place = sandbox.dirs.bundle(&container.id);
    let selinux = bundle::selinux(sandbox, &record);
    let label = selinux.as_ref().map_or("", |labels| &labels.mount);
    let mounts = mounts::prepare(&record.config.mounts, (&place, label), layers_of)?;
    relabel::sources(&record.config.mounts, bundle::pod_files(sandbox), selinux).await?;
    let identity = identity(&record, &image::user(&image), &layers)?;
    container.update_record(&sandbox.dirs, |record| {
        record.user = Some(ContainerUser {
            uid: identity.uid,
            gid: identity.gid,
            supplemental_groups: identity.additional_gids.clone(),
        });
    })?;
    let security = &record.config.security;
    let apparmor = labels::apparmor(&security.apparmor, security.privileged).await?;
    let parts = bundle::Parts {
        image: &image::defaults(&image),
        identity: &identity,
        apparmor,
        mounts: &mounts.mounts,
    };
    let mut spec = bundle::spec(inner, sandbox, &record, parts)?;
    plugins::creates(inner, sandbox, container, &mut spec).await?;
    bundle::write(sandbox, &record, &spec)?;
    let user = record.config.user_namespace.as_ref();
    let rootfs = writable_layer(&sandbox.dirs.container(&container.id), layers, user)?;
    let request = CreateContainer {
        id: container.id.0.clone(),
        rootfs,
        volumes: mounts.volumes,
        log_path: log_path(sandbox, &record),
        log_max_size: inner.config.log_max_size,
        log_max_files: inner.config.log_max_files,
        stdin: record.config.stdin,
        stdin_once: record.config.stdin_once,
        pid_target: record.config.pid_target.as_ref().map(|target| target.0.clone()),
    };
    let reply = sandbox
        .live_shim()?
        .client
        .call(Request::Create(Box::new(request)))
        .await;
    let reply = reply.map_err(|failure| from_shim(&record, "made", failure))?;
    let Response::Created { pid } = reply else {
        return Err(EngineError::Internal(format!(
            "The shim of sandbox {} answered out of turn.",
            sandbox.id
        )));
    };
    container.run.send_replace(RunState::Created { pid });
    container.update_record(&sandbox.dirs, |record| record.phase = ContainerPhase::Created)?;
    plugins::created(inner, container, pid).await;
    Ok(())
}

fn identity(record: &ContainerRecord, image_user: &str, layers: &[PathBuf]) -> Result<Identity, EngineError> {
    let accounts = Accounts::read(layers).map_err(|error| {
        EngineError::Internal(format!(
            "The users of image {} can't be read: {error}.",
            record.config.image
        ))
    })?;
    accounts.resolve(&IdentityRequest {
        image_user,
        security: &record.config.security,
    })
}

fn writable_layer(
    directory: &Path,
    lower: Vec<PathBuf>,
    user: Option<&UserNamespace>,
) -> Result<Rootfs, EngineError> {
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    for made in [&upper, &work] {
        fs::create_dir(made).map_err(|error| cannot_make(made, &error))?;
    }
    if let Some(top) = lower.first() {
        copy_ownership(top, &upper, user).map_err(|error| cannot_make(&upper, &error))?;
    }
    Ok(Rootfs::Overlay {
        lower,
        upper: Some(upper),
        work: Some(work),
    })
}

fn cannot_make(layer: &Path, error: &std::io::Error) -> EngineError {
    EngineError::Unavailable(format!(
        "The writable layer {} can't be made: {error}.",
        layer.display()
    ))
}

/// An overlay shows its writable layer's owner and mode as those of `/`, which are to be the image's, in the pod's user
/// namespace if it has one.
fn copy_ownership(from: &Path, to: &Path, user: Option<&UserNamespace>) -> std::io::Result<()> {
    let metadata = fs::metadata(from)?;
    let (uid, gid) = match user {
        None => (metadata.uid(), metadata.gid()),
        Some(user) => (
            user_namespace::on_host(&user.uids, metadata.uid()),
            user_namespace::on_host(&user.gids, metadata.gid()),
        ),
    };
    std::os::unix::fs::chown(to, Some(uid), Some(gid))?;
    fs::set_permissions(to, metadata.permissions())
}

/// Without a log path or a pod's log directory nothing is kept of what a container prints.
fn log_path(sandbox: &Sandbox, record: &ContainerRecord) -> Option<PathBuf> {
    let directory = lock(&sandbox.record).config.log_directory.clone();
    let path = directory.join(&record.config.log_path);
    (path.is_absolute() && !record.config.log_path.as_os_str().is_empty()).then_some(path)
}

/// Runs a created container's program. One that runs already is started.
pub(super) async fn start(sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    let record = lock(&container.record).clone();
    match *container.run.borrow() {
        RunState::Created { .. } => {}
        RunState::Running { .. } => return Ok(()),
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
pub(super) async fn stop(
    sandbox: &Sandbox,
    container: &Container,
    timeout: Duration,
) -> Result<(), EngineError> {
    let running = matches!(*container.run.borrow(), RunState::Running { .. });
    if running && !timeout.is_zero() {
        let signal = lock(&container.record).stop_signal;
        send(sandbox, container, signal, false).await?;
        if tokio::time::timeout(timeout, container.ended()).await.is_ok() {
            return Ok(());
        }
    }
    kill(sandbox, container).await
}

/// Ends a container now. Returns when it was reaped; one that has ended is killed.
pub(super) async fn kill(sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
    if container.has_ended() {
        return Ok(());
    }
    send(sandbox, container, Signal::SIGKILL as i32, true).await?;
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
    // Without a shim the container is killed by whoever finds out, and its end is known then.
    let Ok(shim) = sandbox.live_shim() else {
        return Ok(());
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
pub(super) async fn reopen_log(sandbox: &Sandbox, container: &Container) -> Result<(), EngineError> {
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

/// Removes a container with its writable layer.
pub(super) async fn remove(
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

pub(super) async fn remove_locked(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
) -> Result<(), EngineError> {
    container.note(&sandbox.dirs, |record| record.phase = ContainerPhase::Removing);
    if let Ok(shim) = sandbox.live_shim() {
        kill(sandbox, container).await?;
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

pub(super) fn from_shim(record: &ContainerRecord, what: &str, failure: Failure) -> EngineError {
    let message = format!(
        "Container {} could not be {what}: {}",
        record.config.name, failure.message
    );
    engine_error(Failure { message, ..failure })
}

impl Container {
    pub(super) fn new(record: ContainerRecord) -> Self {
        let state = match &record.exit {
            Some(exit) => RunState::Exited(exit.clone()),
            None => RunState::Created { pid: 0 },
        };
        Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            limits: tokio::sync::Mutex::default(),
            run: watch::Sender::new(state),
            log: logs::LogCounter::default(),
            usage: Default::default(),
        }
    }

    /// Waits until the shim's word that the program runs, or has ended, has arrived here: who is told that a container was
    /// started may use it at once.
    async fn begun(&self) {
        let begun = |state: &RunState| !matches!(state, RunState::Created { .. });
        // The sender is this container's own, so that there is always one.
        let _ = self.run.subscribe().wait_for(begun).await;
    }

    pub(super) fn running(&self, sandbox: &Sandbox, pid: i32, started_at: UnixNanos) {
        self.note(&sandbox.dirs, |record| record.started_at = started_at);
        self.run.send_replace(RunState::Running { pid });
    }

    pub(super) fn exited(&self, sandbox: &Sandbox, exit: ExitRecord) {
        self.note(&sandbox.dirs, |record| {
            record.started_at = exit.started_at;
            record.exit = Some(exit.clone());
        });
        self.run.send_replace(RunState::Exited(exit));
    }

    /// Settles what became of a container whose shim can't be asked: its exit record on disk is the last word.
    pub(super) fn settle(&self, dirs: &SandboxDirs, unsettled: impl Fn(&RunState) -> bool) {
        if !unsettled(&self.run.borrow()) {
            return;
        }
        let exit = records::read::<ExitRecord>(&dirs.exit_record(&self.id))
            .ok()
            .flatten();
        let state = match exit {
            Some(exit) => {
                self.note(dirs, |record| record.exit = Some(exit.clone()));
                RunState::Exited(exit)
            }
            None => RunState::Unknown { since: now() },
        };
        self.run.send_replace(state);
        self.log.complete();
    }

    /// Keeps a fact on record. Not being able to must not stop what happens anyway: the shim still knows it.
    fn note(&self, dirs: &SandboxDirs, change: impl FnOnce(&mut ContainerRecord)) {
        if let Err(error) = self.update_record(dirs, change) {
            tracing::warn!("{error}");
        }
    }

    pub(super) fn update_record(
        &self,
        dirs: &SandboxDirs,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), EngineError> {
        let mut record = lock(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        if changed == *record {
            return Ok(());
        }
        let written = records::write(&dirs.container_record(&self.id), &changed);
        *record = changed;
        written.map_err(|error| {
            EngineError::Unavailable(format!(
                "The record of container {} can't be written: {error}.",
                self.id
            ))
        })
    }

    /// Nobody but plugins is to know of a container that is being made.
    pub(super) fn is_made(&self) -> bool {
        lock(&self.record).phase != ContainerPhase::Creating
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(*self.run.borrow(), RunState::Exited(_) | RunState::Unknown { .. })
    }

    async fn ended(&self) {
        let mut run = self.run.subscribe();
        // The sender lives as long as the container that is borrowed here.
        let _ = run
            .wait_for(|state| matches!(state, RunState::Exited(_) | RunState::Unknown { .. }))
            .await;
    }

    /// Waits for the end, and tells the exit code.
    pub(super) async fn exit_code(&self) -> i32 {
        self.ended().await;
        match &*self.run.borrow() {
            RunState::Exited(exit) => exit.exit_code,
            _ => EXIT_CODE_UNKNOWN,
        }
    }

    pub(super) fn status(&self, sandbox: &Sandbox) -> ContainerStatus {
        let record = lock(&self.record).clone();
        let (pod_uid, log_directory) = {
            let pod = lock(&sandbox.record);
            (pod.config.uid.clone(), pod.config.log_directory.clone())
        };
        let run = self.run.borrow().clone();
        let (state, pid) = match &run {
            RunState::Created { pid } => (ContainerState::Created, *pid),
            RunState::Running { pid } => (ContainerState::Running, *pid),
            RunState::Exited(_) => (ContainerState::Exited, 0),
            RunState::Unknown { .. } => (ContainerState::Unknown, 0),
        };
        let (exit_code, finished_at, reason) = ending(&record, &run);
        ContainerStatus {
            id: self.id.clone(),
            sandbox: sandbox.id.clone(),
            pod_uid,
            image_id: record.image_id,
            state,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at,
            exit_code,
            reason: reason.to_owned(),
            message: record.cannot_run.unwrap_or_default(),
            log_path: if record.config.log_path.as_os_str().is_empty() {
                PathBuf::new()
            } else {
                log_directory.join(&record.config.log_path)
            },
            pid,
            user: record.user,
            stop_signal: record.stop_signal,
            config: record.config,
        }
    }
}

/// Exit code, time and reason, in the words that kubectl shows.
fn ending(record: &ContainerRecord, run: &RunState) -> (i32, UnixNanos, &'static str) {
    match run {
        RunState::Created { .. } | RunState::Running { .. } => (0, 0, ""),
        RunState::Unknown { since } => (EXIT_CODE_UNKNOWN, *since, "ContainerStatusUnknown"),
        RunState::Exited(exit) => {
            let reason = match exit {
                _ if record.cannot_run.is_some() => "ContainerCannotRun",
                exit if exit.oom_killed => "OOMKilled",
                exit if exit.exit_code == 0 => "Completed",
                _ => "Error",
            };
            (exit.exit_code, exit.finished_at, reason)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_directory_is_the_images() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        fs::create_dir(&image).unwrap();
        std::os::unix::fs::chown(&image, Some(12), Some(34)).unwrap();
        fs::set_permissions(&image, std::os::unix::fs::PermissionsExt::from_mode(0o1751)).unwrap();
        writable_layer(directory.path(), vec![image], None).unwrap();
        let upper = fs::metadata(directory.path().join("upper")).unwrap();
        assert_eq!(
            (upper.uid(), upper.gid(), upper.mode() & 0o7777),
            (12, 34, 0o1751)
        );
    }
}
