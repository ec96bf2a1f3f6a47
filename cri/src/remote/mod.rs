//! The engine that is another runtime: a client of its CRI socket.
//!
//! Every verb is the other side's; what that can't do, it says itself. Beyond CRI the trait wants few things: calls that are
//! asked again join what is there, sandboxes are found by their pod, and a status tells what was asked for
//! ([`notes`]). Events come from the runtime where it tells them and from lists where it does not ([`events`]), a log is
//! followed by watching its directory ([`log`]), and sessions are a client's end of the streaming protocols ([`streams`]).

mod calls;
mod containers;
mod events;
mod failure;
mod features;
mod images;
mod link;
mod log;
mod notes;
mod request;
#[cfg(test)]
mod round_trip;
mod sandboxes;
mod snapshot;
mod stats;
mod streams;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::link::Link;
use crate::engine::{Engine, EngineError, EventStream};
use crate::session::{Session, StreamOptions};
use crate::streaming::client::Trust;
use crate::types::{
    AuthConfig, CgroupDriver, ContainerConfig, ContainerId, ContainerStatus, EngineEvent, ExecOutput, Image,
    ImageFsInfo, ImageId, LinuxContainerResources, PodSandboxConfig, PodSandboxStatus, PullProgress,
    RuntimeStatus, RuntimeVersion, SandboxId,
};
use crate::v1;

type Result<T> = std::result::Result<T, EngineError>;

/// An engine that asks the runtime behind a CRI socket. It ends when it is dropped; the runtime and its pods go on.
#[derive(Debug)]
pub struct RemoteEngine {
    inner: Arc<Inner>,
    following: JoinHandle<()>,
}

/// What calls and tasks share.
#[derive(Debug)]
struct Inner {
    link: Link,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<EngineEvent>>>,
    /// Sandboxes that this engine was asked to stop: their end is no loss.
    stopping: Mutex<BTreeSet<SandboxId>>,
    /// Sandboxes that are being made, by their pods' UID and their attempt; containers by sandbox, name and attempt.
    making: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// What images are called in statuses, to their ids.
    image_ids: Mutex<HashMap<String, ImageId>>,
    /// The streaming server speaks no WebSocket that would do.
    spdy_only: std::sync::atomic::AtomicBool,
    /// Whose certificates a streaming server may have.
    trust: Trust,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl RemoteEngine {
    /// Asks the runtime at `endpoint` (`unix:///run/containerd/containerd.sock`, or the path alone) who it is, and follows
    /// what happens in it from now on.
    ///
    /// # Errors
    /// The endpoint is no socket's, or nobody who speaks CRI v1 answers there.
    pub async fn connect(endpoint: &str) -> Result<Self> {
        Self::connect_with(endpoint, None).await
    }

    /// As [`RemoteEngine::connect`], to a runtime whose streaming server may have TLS. Certificates of the authorities in the
    /// file, which is PEM, are believed then.
    ///
    /// # Errors
    /// The same, and when the file can't be used.
    pub async fn connect_with(endpoint: &str, streaming_ca: Option<&Path>) -> Result<Self> {
        let trust = streaming_ca.map(Trust::of_file).transpose()?.unwrap_or_default();
        link::probe(endpoint).await?;
        let inner = Arc::new(Inner {
            link: Link::new(endpoint)?,
            subscribers: Mutex::default(),
            stopping: Mutex::default(),
            making: Mutex::default(),
            image_ids: Mutex::default(),
            spdy_only: false.into(),
            trust,
        });
        let version = inner.version().await?;
        inner
            .link
            .set_name(format!("{} {}", version.name, version.version));
        let first = events::look(&inner).await?;
        let following = tokio::spawn(events::follow(Arc::clone(&inner), first));
        Ok(Self { inner, following })
    }

    /// Where the runtime listens: `unix:///PATH`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.inner.link.endpoint()
    }

    /// The runtime's name, version and socket, for people.
    #[must_use]
    pub fn who(&self) -> String {
        self.inner.link.who()
    }
}

impl Drop for RemoteEngine {
    fn drop(&mut self) {
        self.following.abort();
        lock(&self.inner.subscribers).clear();
    }
}

/// A missing object is no error to who wants it gone.
fn unless_missing(result: Result<()>) -> Result<()> {
    match result {
        Err(EngineError::NotFound(_)) => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Engine for RemoteEngine {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        self.inner.run_pod_sandbox(config).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        unless_missing(self.inner.stop_pod_sandbox(id).await)
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        unless_missing(self.inner.stop_pod_sandbox(id).await)?;
        unless_missing(self.inner.remove_pod_sandbox(id).await)
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus> {
        Ok(self.inner.pod_sandbox_status(id, false).await?.0)
    }

    async fn list_pod_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandboxStatus>> {
        self.inner.sandboxes(pod_uid).await
    }

    async fn create_container(&self, sandbox: &SandboxId, config: ContainerConfig) -> Result<ContainerId> {
        self.inner.create_container(sandbox, config).await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<()> {
        self.inner.start_container(id).await
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        unless_missing(self.inner.stop_container(id, timeout).await)
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        unless_missing(self.inner.remove_container(id).await)
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus> {
        Ok(self.inner.container_status(id, false).await?.0)
    }

    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStatus>> {
        self.inner.containers(pod_uid).await
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: LinuxContainerResources,
    ) -> Result<()> {
        self.inner.update_container_resources(id, &resources).await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        max_output: usize,
    ) -> Result<ExecOutput> {
        self.inner.exec_sync(id, command, timeout, max_output).await
    }

    async fn exec(&self, id: &ContainerId, command: Vec<String>, options: StreamOptions) -> Result<Session> {
        streams::exec(&self.inner, id, command, options).await
    }

    async fn attach(&self, id: &ContainerId, options: StreamOptions) -> Result<Session> {
        streams::attach(&self.inner, id, options).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<TcpStream> {
        streams::port_forward(&self.inner, id, port).await
    }

    async fn watch_log(&self, id: &ContainerId) -> Result<watch::Receiver<u64>> {
        log::watch(&self.inner, id).await
    }

    fn events(&self) -> EventStream {
        self.inner.subscribe()
    }

    /// CRI tells nothing of a pull before its end, so nothing is made up: `progress` is never called.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        _progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<ImageId> {
        self.inner.pull_image(image, auth).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>> {
        Ok(self.inner.image_status(image, false).await?.0)
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        self.inner.list_images().await
    }

    async fn remove_image(&self, image: &str) -> Result<()> {
        unless_missing(self.inner.remove_image(image).await)
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        self.inner.image_fs_info().await
    }

    async fn version(&self) -> Result<RuntimeVersion> {
        self.inner.version().await
    }

    async fn status(&self, verbose: bool) -> Result<RuntimeStatus> {
        self.inner.status(verbose).await
    }

    async fn cgroup_driver(&self) -> Result<CgroupDriver> {
        self.inner.cgroup_driver().await
    }

    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<()> {
        self.inner.update_pod_cidr(pod_cidr).await
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<()> {
        self.inner
            .update_pod_sandbox_resources(id, overhead, resources)
            .await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        self.inner.reopen_container_log(id).await
    }

    async fn checkpoint_container(&self, id: &ContainerId, location: &Path, timeout: Duration) -> Result<()> {
        self.inner.checkpoint_container(id, location, timeout).await
    }

    async fn sandbox_info(&self, id: &SandboxId) -> Result<BTreeMap<String, String>> {
        Ok(self.inner.pod_sandbox_status(id, true).await?.1)
    }

    async fn container_info(&self, id: &ContainerId) -> Result<BTreeMap<String, String>> {
        Ok(self.inner.container_status(id, true).await?.1)
    }

    async fn image_info(&self, image: &str) -> Result<BTreeMap<String, String>> {
        Ok(self.inner.image_status(image, true).await?.1)
    }

    async fn container_stats(&self, ids: &[ContainerId]) -> Result<Vec<v1::ContainerStats>> {
        self.inner.container_stats(ids).await
    }

    async fn pod_sandbox_stats(&self, ids: &[SandboxId]) -> Result<Vec<v1::PodSandboxStats>> {
        self.inner.pod_sandbox_stats(ids).await
    }

    async fn metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        self.inner.metric_descriptors().await
    }

    async fn pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        self.inner.pod_sandbox_metrics().await
    }
}
