//! A container's life: how it is made here, the rest in the files below.

mod removal;
mod running;
mod state;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_shim::protocol::{CreateContainer, Failure, Request, Response, Rootfs};
use nix::sys::signal::Signal;

use super::checkpoint::restore;
use super::records::{self, ContainerPhase, ContainerRecord};
use super::shim_client::engine_error;
use super::users::{Accounts, Identity, IdentityRequest};
use super::{
    Container, Inner, RunState, Sandbox, apparmor, bundle, events, handlers, image, lock, mounts, new_id,
    now, plugins, relabel, selinux, signals, user_namespace,
};
use crate::cdi;
use crate::engine::EngineError;
use crate::types::{
    ContainerConfig, ContainerId, ContainerUser, EngineEventKind, ImageId, ImageMount, UserNamespace,
};

pub(super) use removal::{remove, remove_locked};
pub(super) use running::{kill, reopen_log, start, stop};

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
    let handler = lock(&sandbox.record).handler.clone();
    if let Some(handler) = &handler {
        handlers::check_container(handler, &config)?;
    }
    restore::refuse(inner, &config.image)?;
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
    lock(&inner.sandboxes).has_container(sandbox, &container.id);
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
    let labels = bundle::selinux_labels(sandbox, &record);
    labels.as_ref().map_or(Ok(()), selinux::check)?;
    let label = labels.as_ref().map_or("", |labels| &labels.mount);
    let mounts = mounts::prepare(&record.config.mounts, (&place, label), layers_of)?;
    relabel::sources(&record.config.mounts, bundle::pod_files(sandbox), labels).await?;
    let identity = identity(&record, &image::user(&image), &layers)?;
    container.update_record(&sandbox.dirs, |record| {
        record.user = Some(ContainerUser {
            uid: identity.uid,
            gid: identity.gid,
            supplemental_groups: identity.additional_gids.clone(),
        });
    })?;
    let security = &record.config.security;
    let apparmor = apparmor::profile(&security.apparmor, security.privileged).await?;
    let parts = bundle::Parts {
        image: &image::defaults(&image),
        identity: &identity,
        apparmor,
        mounts: &mounts.mounts,
    };
    let mut spec = bundle::spec(inner, sandbox, &record, parts)?;
    plugins::creates(inner, sandbox, container, &mut spec).await?;
    let handler = lock(&sandbox.record).handler.clone();
    if let Some(handler) = &handler {
        handlers::fit_spec(handler, &mut spec)?;
    }
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

pub(super) fn from_shim(record: &ContainerRecord, what: &str, failure: Failure) -> EngineError {
    let message = format!(
        "Container {} could not be {what}: {}",
        record.config.name, failure.message
    );
    engine_error(Failure { message, ..failure })
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
