//! The engine's side of NRI: when plugins are told of something, and what they make of it.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use serde_json::Value;

use super::cgroups::Place;
use super::records::{ContainerPhase, ContainerRecord, SandboxPhase};
use super::{Container, Inner, LocalEngine, RunState, Sandbox, container, lock, resources};
use crate::cdi;
use crate::engine::EngineError;
use crate::nri::{self, Exit, Nri, NriConfig, NriError, api};
use crate::types::{ContainerId, LinuxContainerResources};

impl LocalEngine {
    /// Serves NRI plugins from now on. They are told of the pods and containers that the engine knows; call this after
    /// those of an engine before were taken over, and before pods are run.
    ///
    /// # Errors
    /// The socket can't be listened on, the plugins can't be listed, or NRI is served already.
    pub async fn serve_nri(&self, config: NriConfig) -> Result<(), EngineError> {
        let inner = &self.inner;
        let sandboxes = lock(&inner.sandboxes).all();
        let (mut pods, mut containers) = (Vec::new(), Vec::new());
        for sandbox in sandboxes {
            let (phase, ips) = {
                let record = lock(&sandbox.record);
                (record.phase, record.ips.clone())
            };
            pods.push((pod_message(&sandbox, &ips), phase >= SandboxPhase::Stopped));
            containers.extend(
                sandbox
                    .all_containers()
                    .iter()
                    .filter_map(|container| known(&sandbox, container)),
            );
        }
        let runtime = Arc::new(Face(Arc::downgrade(inner)));
        let nri = Arc::new(Nri::new(config, runtime, pods, containers));
        if inner.nri.set(Arc::clone(&nri)).is_err() {
            return Err(EngineError::FailedPrecondition(
                "NRI plugins are served already.".to_owned(),
            ));
        }
        nri.serve()
            .await
            .map_err(|error| EngineError::Unavailable(error.to_string()))
    }

    /// Lets NRI plugins know that the engine goes away.
    pub async fn shut_down_nri(&self) {
        if let Some(nri) = self.inner.nri.get() {
            nri.shut_down().await;
        }
    }
}

fn refused(error: NriError) -> EngineError {
    EngineError::Internal(error.to_string())
}

fn pod_message(sandbox: &Sandbox, ips: &[IpAddr]) -> api::PodSandbox {
    let pause = lock(&sandbox.shim).as_ref().and_then(|shim| shim.pause_pid);
    let record = lock(&sandbox.record);
    let cgroups_path = Place::of(&record, &sandbox.id.0).oci_path();
    nri::pod(&record.config, &sandbox.id.0, cgroups_path, ips, pause)
}

fn container_message(sandbox: &Sandbox, record: &ContainerRecord, spec: &Value) -> api::Container {
    let (id, pod, image) = (&record.id.0, &sandbox.id.0, &record.image_id.0);
    let mut message = nri::container(&record.config, id, pod, image, spec);
    message.created_at = nanos(record.created_at);
    message.started_at = nanos(record.started_at);
    message
}

/// A container of before; one that was half made is none.
fn known(sandbox: &Sandbox, container: &Container) -> Option<api::Container> {
    let record = lock(&container.record).clone();
    if record.phase != ContainerPhase::Created {
        return None;
    }
    // After a reboot the bundle is gone with everything that ran.
    let bundle = sandbox.dirs.bundle(&container.id).join("config.json");
    let spec = fs::read(bundle)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let mut message = container_message(sandbox, &record, &spec);
    let (state, pid) = match *container.run.borrow() {
        RunState::Created { pid } => (api::ContainerState::ContainerCreated, pid),
        RunState::Running { pid } => (api::ContainerState::ContainerRunning, pid),
        RunState::Unheard => (api::ContainerState::ContainerUnknown, 0),
        RunState::Exited(_) | RunState::Unknown { .. } => (api::ContainerState::ContainerStopped, 0),
    };
    message.set_state(state);
    message.pid = unsigned(pid);
    Some(message)
}

fn nanos(at: u64) -> i64 {
    i64::try_from(at).unwrap_or(i64::MAX)
}

fn unsigned(pid: i32) -> u32 {
    u32::try_from(pid).unwrap_or_default()
}

/// A sandbox is made, and nobody but plugins knows of it yet.
pub(super) async fn pod_runs(inner: &Inner, sandbox: &Sandbox, ips: &[IpAddr]) -> Result<(), EngineError> {
    match inner.nri.get() {
        Some(nri) => nri.run_pod(pod_message(sandbox, ips)).await.map_err(refused),
        None => Ok(()),
    }
}

/// A pod's own limits have changed. Its cgroup is the caller's: all there is to do is to tell plugins.
pub(super) async fn update_pod(
    inner: &Inner,
    sandbox: &Sandbox,
    overhead: Option<LinuxContainerResources>,
    resources: Option<LinuxContainerResources>,
) -> Result<(), EngineError> {
    if let Some(nri) = inner.nri.get() {
        let shown = |limits: &Option<LinuxContainerResources>| limits.as_ref().map(nri::limits_of);
        nri.update_pod(&sandbox.id.0, shown(&overhead), shown(&resources))
            .await
            .map_err(refused)?;
        resources::update_pod(sandbox, overhead, resources)?;
        nri.updated_pod(&sandbox.id.0).await;
        return Ok(());
    }
    resources::update_pod(sandbox, overhead, resources)
}

/// A sandbox's containers have ended; its network and its namespaces are still there.
pub(super) async fn pod_stops(inner: &Inner, sandbox: &Sandbox) {
    if let Some(nri) = inner.nri.get() {
        for container in sandbox.all_containers() {
            ended(inner, &container).await;
        }
        nri.stop_pod(&sandbox.id.0).await;
    }
}

/// A sandbox is gone.
pub(super) async fn pod_removed(inner: &Inner, sandbox: &Sandbox) {
    if let Some(nri) = inner.nri.get() {
        nri.remove_pod(&sandbox.id.0).await;
    }
}

/// A container is about to be made: plugins change its spec.
pub(super) async fn creates(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
    spec: &mut Value,
) -> Result<(), EngineError> {
    let Some(nri) = inner.nri.get() else { return Ok(()) };
    let message = container_message(sandbox, &lock(&container.record).clone(), spec);
    let wanted = nri.create(message).await.map_err(refused)?;
    let inject = |spec: &mut Value, devices: &[String]| {
        cdi::asked_for(devices, &BTreeMap::new())
            .and_then(|devices| cdi::inject(spec, &devices, &inner.config.cdi_spec_dirs))
            .map_err(|error| error.to_string())
    };
    nri::adjust(spec, &wanted, inject).map_err(refused)?;
    let limits = wanted.linux.and_then(|linux| linux.resources);
    if let Some(limits) = limits {
        // On record with the next step.
        nri::overlay(&limits, &mut lock(&container.record).config.resources);
    }
    Ok(())
}

/// A container was made.
pub(super) async fn created(inner: &Inner, container: &Container, pid: i32) {
    if let Some(nri) = inner.nri.get() {
        nri.created(&container.id.0, unsigned(pid)).await;
    }
}

/// Starts a container, unless a plugin says no.
pub(super) async fn start(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
) -> Result<(), EngineError> {
    let Some(nri) = inner.nri.get() else {
        return container::start(sandbox, container).await;
    };
    let pid = match *container.run.borrow() {
        RunState::Created { pid } => Some(unsigned(pid)),
        _ => None,
    };
    if pid.is_some() {
        nri.start(&container.id.0).await.map_err(refused)?;
    }
    let started = container::start(sandbox, container).await;
    let at = nanos(lock(&container.record).started_at);
    let pid = pid.filter(|_| started.is_ok());
    nri.started(&container.id.0, pid, at).await;
    started
}

/// Changes a container's limits, as plugins make of it.
pub(super) async fn update(
    inner: &Inner,
    sandbox: &Sandbox,
    container: &Container,
    resources: LinuxContainerResources,
) -> Result<(), EngineError> {
    let Some(nri) = inner.nri.get() else {
        return resources::update(sandbox, container, resources).await;
    };
    let wanted = nri
        .update(&container.id.0, nri::limits_of(&resources))
        .await
        .map_err(refused)?;
    let resources = nri::changed(&wanted, &resources).map_err(refused)?;
    resources::update(sandbox, container, resources).await?;
    nri.updated(&container.id.0, &wanted).await;
    Ok(())
}

/// A container has ended.
pub(super) async fn ended(inner: &Inner, container: &Container) {
    if let Some(nri) = inner.nri.get() {
        let exit = exit_of(container);
        nri.stop(&container.id.0, exit).await;
    }
}

/// As [`ended`], for whoever can't wait for plugins.
pub(super) fn tell_ended(inner: &Inner, sandbox: &Sandbox, id: &ContainerId) {
    let (Some(nri), Some(container)) = (inner.nri.get(), lock(&sandbox.containers).get(id).cloned()) else {
        return;
    };
    let nri = Arc::clone(nri);
    tokio::spawn(async move { nri.stop(&container.id.0, exit_of(&container)).await });
}

fn exit_of(container: &Container) -> Exit {
    match &*container.run.borrow() {
        RunState::Exited(exit) => Exit {
            code: exit.exit_code,
            finished_at: nanos(exit.finished_at),
        },
        _ => Exit::default(),
    }
}

/// A container is gone.
pub(super) async fn removed(inner: &Inner, container: &Container) {
    if let Some(nri) = inner.nri.get() {
        nri.remove(&container.id.0).await;
    }
}

/// What plugins ask the engine for.
struct Face(Weak<Inner>);

#[async_trait]
impl nri::Runtime for Face {
    async fn update(&self, updates: Vec<api::ContainerUpdate>) -> Vec<api::ContainerUpdate> {
        let Some(inner) = self.0.upgrade() else {
            return updates;
        };
        let mut failed = Vec::new();
        for update in updates {
            if let Err(error) = update_one(&inner, &update).await {
                tracing::warn!("An NRI plugin's update failed: {error}");
                if !update.ignore_failure {
                    failed.push(update);
                }
            }
        }
        failed
    }

    async fn evict(&self, evictions: Vec<api::ContainerEviction>) {
        let Some(inner) = self.0.upgrade() else { return };
        for eviction in evictions {
            let id = ContainerId(eviction.container_id);
            let Ok((sandbox, container)) = inner.container(&id) else {
                continue;
            };
            tracing::warn!("An NRI plugin evicts container {id}: {}", eviction.reason);
            if let Err(error) = container::kill(&sandbox, &container).await {
                tracing::warn!("The container could not be evicted: {error}");
            }
        }
    }
}

async fn update_one(inner: &Inner, update: &api::ContainerUpdate) -> Result<(), EngineError> {
    let (sandbox, container) = inner.container(&ContainerId(update.container_id.clone()))?;
    let wanted = update.linux.as_ref().and_then(|linux| linux.resources.clone());
    let current = lock(&container.record).config.resources.clone();
    let resources = nri::changed(&wanted.unwrap_or_default(), &current).map_err(refused)?;
    if container.has_ended() {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {} has ended.",
            container.id
        )));
    }
    resources::update(&sandbox, &container, resources).await
}
