//! CRI's verbs, each done in a file of its own.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

use super::{
    LocalEngine, adopt, attach, checkpoint, container, disk, exec, exec_sync, image, lock, network, plugins,
    port_forward, sandbox, status, usage,
};
use crate::engine::{Engine, EngineError, EventStream, repeat};
use crate::session::{Session, StreamOptions};
use crate::types::{
    AuthConfig, CgroupDriver, ContainerConfig, ContainerId, ContainerStatus, ExecOutput, Image, ImageFsInfo,
    ImageId, LinuxContainerResources, PodSandboxConfig, PodSandboxStatus, PullProgress, RepeatedCommand,
    RuntimeHandler, RuntimeStatus, RuntimeVersion, SandboxId,
};
use crate::v1;
#[async_trait]
impl Engine for LocalEngine {
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, EngineError> {
        self.whole(|inner| sandbox::run(inner, config)).await
    }

    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError> {
        let id = id.clone();
        self.whole(|inner| async move { sandbox::stop(&inner, &id).await })
            .await
    }

    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError> {
        let id = id.clone();
        self.whole(|inner| async move { sandbox::remove(&inner, &id).await })
            .await
    }

    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus, EngineError> {
        Ok(self.inner.sandbox(id)?.status())
    }

    async fn list_pod_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandboxStatus>, EngineError> {
        adopt::adopt(&self.inner, pod_uid).await?;
        Ok(self
            .inner
            .sandboxes_of(pod_uid)
            .iter()
            .filter(|sandbox| !sandbox.making.load(Ordering::Acquire))
            .map(|sandbox| sandbox.status())
            .collect())
    }

    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, EngineError> {
        let sandbox = self.inner.sandbox(sandbox)?;
        self.whole(|inner| async move { container::create(&inner, &sandbox, config).await })
            .await
    }

    async fn start_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        self.whole(|inner| async move { plugins::start(&inner, &sandbox, &container).await })
            .await
    }

    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<(), EngineError> {
        match self.inner.container(id) {
            Ok((sandbox, container)) => {
                container::stop(&sandbox, &container, timeout).await?;
                self.whole(|inner| async move {
                    plugins::ended(&inner, &container).await;
                    Ok(())
                })
                .await
            }
            Err(EngineError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn remove_container(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.inner.container(id) {
            Ok((sandbox, container)) => {
                self.whole(|inner| async move { container::remove(&inner, &sandbox, &container).await })
                    .await
            }
            Err(EngineError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        Ok(container.status(&sandbox))
    }

    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStatus>, EngineError> {
        adopt::adopt(&self.inner, pod_uid).await?;
        let sandboxes = self.inner.sandboxes_of(pod_uid);
        Ok(sandboxes
            .iter()
            .flat_map(|sandbox| {
                sandbox
                    .all_containers()
                    .into_iter()
                    .filter(|container| container.is_made())
                    .map(|container| container.status(sandbox))
            })
            .collect())
    }

    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: LinuxContainerResources,
    ) -> Result<(), EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        self.whole(|inner| async move { plugins::update(&inner, &sandbox, &container, resources).await })
            .await
    }

    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<(), EngineError> {
        let sandbox = self.inner.sandbox(id)?;
        self.whole(|inner| async move { plugins::update_pod(&inner, &sandbox, overhead, resources).await })
            .await
    }

    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        max_output: usize,
    ) -> Result<ExecOutput, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        exec_sync::run(&sandbox, &container, command, timeout, max_output).await
    }

    async fn exec_repeatedly(
        &self,
        id: &ContainerId,
        repeated: RepeatedCommand,
    ) -> Result<ExecOutput, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        match exec_sync::repeat(&sandbox, &container, &repeated).await? {
            Some(output) => Ok(output),
            None => repeat(self, id, &repeated).await,
        }
    }

    async fn exec(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        options: StreamOptions,
    ) -> Result<Session, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        exec::open(&sandbox, &container, command, options).await
    }

    async fn attach(&self, id: &ContainerId, options: StreamOptions) -> Result<Session, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        attach::open(&sandbox, &container, options).await
    }

    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<TcpStream, EngineError> {
        let sandbox = self.inner.sandbox(id)?;
        port_forward::connect(&sandbox, port).await
    }

    async fn watch_log(&self, id: &ContainerId) -> Result<watch::Receiver<u64>, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        container.log.watch(&sandbox, &container).await
    }

    fn events(&self) -> EventStream {
        let (sender, receiver) = mpsc::unbounded_channel();
        lock(&self.inner.subscribers).push(sender);
        receiver
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<ImageId, EngineError> {
        image::pull(&self.inner.images, image, auth, progress).await
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError> {
        image::status(&self.inner.images, image, &self.inner.config.pinned_images)
    }

    async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        image::list(&self.inner.images, &self.inner.config.pinned_images)
    }

    async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        image::remove(&self.inner.images, image)
    }

    async fn image_info(&self, image: &str) -> Result<BTreeMap<String, String>, EngineError> {
        image::info(&self.inner.images, image)
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfo, EngineError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || disk::image_fs(&inner))
            .await
            .unwrap_or_else(|error| Err(EngineError::Internal(format!("The engine failed: {error}."))))
    }

    async fn version(&self) -> Result<RuntimeVersion, EngineError> {
        Ok(RuntimeVersion {
            name: "berth".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        })
    }

    async fn status(&self, verbose: bool) -> Result<RuntimeStatus, EngineError> {
        status::status(&self.inner, verbose).await
    }

    async fn runtime_handlers(&self) -> Result<Vec<RuntimeHandler>, EngineError> {
        Ok(status::runtime_handlers(&self.inner).await)
    }

    async fn cgroup_driver(&self) -> Result<CgroupDriver, EngineError> {
        Ok(self.inner.config.cgroup_driver)
    }

    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<(), EngineError> {
        network::assign_subnets(&self.inner, pod_cidr).await
    }

    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        container::reopen_log(&sandbox, &container).await
    }

    async fn checkpoint_container(
        &self,
        id: &ContainerId,
        location: &Path,
        timeout: Duration,
    ) -> Result<(), EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        let location = location.to_owned();
        let subject = |inner| checkpoint::Subject {
            inner,
            sandbox,
            container,
        };
        self.whole(|inner| checkpoint::write(subject(inner), location, timeout))
            .await
    }

    async fn container_stats(&self, ids: &[ContainerId]) -> Result<Vec<v1::ContainerStats>, EngineError> {
        usage::containers(&self.inner, ids).await
    }

    async fn container_processes(&self, ids: &[ContainerId]) -> Result<Vec<Option<u64>>, EngineError> {
        usage::processes(&self.inner, ids).await
    }

    async fn pod_sandbox_stats(&self, ids: &[SandboxId]) -> Result<Vec<v1::PodSandboxStats>, EngineError> {
        usage::sandboxes(&self.inner, ids).await
    }

    async fn metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>, EngineError> {
        Ok(usage::metrics::descriptors())
    }

    async fn pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>, EngineError> {
        usage::metrics::all(&self.inner).await
    }

    async fn sandbox_info(&self, id: &SandboxId) -> Result<BTreeMap<String, String>, EngineError> {
        let sandbox = self.inner.sandbox(id)?;
        Ok(status::sandbox_info(&self.inner, &sandbox))
    }

    async fn container_info(&self, id: &ContainerId) -> Result<BTreeMap<String, String>, EngineError> {
        let (sandbox, container) = self.inner.container(id)?;
        Ok(status::container_info(&sandbox, &container))
    }
}
