//! CRI's runtime service.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::failure::status;
use super::{events, filter, lookup, request, streams, view};
use crate::engine::Engine;
use crate::streaming::StreamingServer;
use crate::v1;
use crate::v1::runtime_service_server::RuntimeService;

/// The version of the kubelet's API, which has been this one since CRI began.
const KUBELET_API_VERSION: &str = "0.1.0";
/// What `ExecSync` keeps of each stream, as in containerd.
const EXEC_SYNC_OUTPUT: usize = 16 << 20;

/// The runtime service over an engine.
pub(super) struct Runtime {
    engine: Arc<dyn Engine>,
    streaming: StreamingServer,
}

type Reply<T> = Result<Response<T>, Status>;
type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Runtime {
    pub(super) fn new(engine: Arc<dyn Engine>, streaming: StreamingServer) -> Self {
        Self { engine, streaming }
    }

    async fn sandboxes(&self, wanted: Option<&v1::PodSandboxFilter>) -> Result<Vec<v1::PodSandbox>, Status> {
        let all = self.engine.list_pod_sandboxes(None).await.map_err(status)?;
        Ok(all
            .iter()
            .filter(|sandbox| filter::sandbox(wanted, sandbox))
            .map(view::sandbox)
            .collect())
    }

    async fn containers(&self, wanted: Option<&v1::ContainerFilter>) -> Result<Vec<v1::Container>, Status> {
        let all = self.engine.list_containers(None).await.map_err(status)?;
        Ok(all
            .iter()
            .filter(|container| filter::container(wanted, container))
            .map(view::container)
            .collect())
    }

    async fn stats_of_containers(
        &self,
        wanted: Option<&v1::ContainerStatsFilter>,
    ) -> Result<Vec<v1::ContainerStats>, Status> {
        let all = self.engine.list_containers(None).await.map_err(status)?;
        let ids: Vec<_> = all
            .into_iter()
            .filter(|container| filter::container_stats(wanted, container))
            .map(|container| container.id)
            .collect();
        self.engine.container_stats(&ids).await.map_err(status)
    }

    async fn stats_of_sandboxes(
        &self,
        wanted: Option<&v1::PodSandboxStatsFilter>,
    ) -> Result<Vec<v1::PodSandboxStats>, Status> {
        let all = self.engine.list_pod_sandboxes(None).await.map_err(status)?;
        let ids: Vec<_> = all
            .into_iter()
            .filter(|sandbox| filter::sandbox_stats(wanted, sandbox))
            .map(|sandbox| sandbox.id)
            .collect();
        self.engine.pod_sandbox_stats(&ids).await.map_err(status)
    }
}

fn seconds(value: i64) -> Duration {
    Duration::from_secs(u64::try_from(value).unwrap_or(0))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

#[tonic::async_trait]
impl RuntimeService for Runtime {
    type StreamPodSandboxesStream = Streamed<v1::StreamPodSandboxesResponse>;
    type StreamContainersStream = Streamed<v1::StreamContainersResponse>;
    type StreamContainerStatsStream = Streamed<v1::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = Streamed<v1::StreamPodSandboxStatsResponse>;
    type StreamPodSandboxMetricsStream = Streamed<v1::StreamPodSandboxMetricsResponse>;
    type GetContainerEventsStream = Streamed<v1::ContainerEventResponse>;

    async fn version(&self, _: Request<v1::VersionRequest>) -> Reply<v1::VersionResponse> {
        let version = self.engine.version().await.map_err(status)?;
        Ok(Response::new(v1::VersionResponse {
            version: KUBELET_API_VERSION.to_owned(),
            runtime_name: version.name,
            runtime_version: version.version,
            runtime_api_version: "v1".to_owned(),
        }))
    }

    async fn status(&self, request: Request<v1::StatusRequest>) -> Reply<v1::StatusResponse> {
        let verbose = request.into_inner().verbose;
        let state = self.engine.status(verbose).await.map_err(status)?;
        Ok(Response::new(view::status(state)))
    }

    async fn update_runtime_config(
        &self,
        request: Request<v1::UpdateRuntimeConfigRequest>,
    ) -> Reply<v1::UpdateRuntimeConfigResponse> {
        let network = request
            .into_inner()
            .runtime_config
            .and_then(|config| config.network_config);
        if let Some(network) = network.filter(|network| !network.pod_cidr.is_empty()) {
            self.engine
                .update_pod_cidr(&network.pod_cidr)
                .await
                .map_err(status)?;
        }
        Ok(Response::new(v1::UpdateRuntimeConfigResponse {}))
    }

    async fn runtime_config(&self, _: Request<v1::RuntimeConfigRequest>) -> Reply<v1::RuntimeConfigResponse> {
        let driver = self.engine.cgroup_driver().await.map_err(status)?;
        Ok(Response::new(v1::RuntimeConfigResponse {
            linux: Some(v1::LinuxRuntimeConfiguration {
                cgroup_driver: view::cgroup_driver(driver).into(),
            }),
        }))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<v1::RunPodSandboxRequest>,
    ) -> Reply<v1::RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request::sandbox(request.config, request.runtime_handler).map_err(status)?;
        let id = self.engine.run_pod_sandbox(config).await.map_err(status)?;
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id: id.0 }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Reply<v1::StopPodSandboxResponse> {
        let found = lookup::sandbox(self.engine.as_ref(), &request.into_inner().pod_sandbox_id).await;
        if let Some(id) = lookup::unless_missing(found)? {
            self.engine.stop_pod_sandbox(&id).await.map_err(status)?;
        }
        Ok(Response::new(v1::StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Reply<v1::RemovePodSandboxResponse> {
        let found = lookup::sandbox(self.engine.as_ref(), &request.into_inner().pod_sandbox_id).await;
        if let Some(id) = lookup::unless_missing(found)? {
            self.engine.remove_pod_sandbox(&id).await.map_err(status)?;
        }
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Reply<v1::PodSandboxStatusResponse> {
        let request = request.into_inner();
        let id = lookup::sandbox(self.engine.as_ref(), &request.pod_sandbox_id).await?;
        let sandbox = self.engine.pod_sandbox_status(&id).await.map_err(status)?;
        let info = if request.verbose {
            self.engine.sandbox_info(&id).await.map_err(status)?
        } else {
            Default::default()
        };
        Ok(Response::new(v1::PodSandboxStatusResponse {
            status: Some(view::sandbox_status(&sandbox)),
            info: view::map(&info),
            containers_statuses: events::container_statuses(self.engine.as_ref(), &id)
                .await
                .map_err(status)?,
            timestamp: now(),
        }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Reply<v1::ListPodSandboxResponse> {
        let items = self.sandboxes(request.into_inner().filter.as_ref()).await?;
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<v1::StreamPodSandboxesRequest>,
    ) -> Reply<Self::StreamPodSandboxesStream> {
        let all = self.sandboxes(request.into_inner().filter.as_ref()).await?;
        let pages = super::pages(all, |pod_sandboxes| v1::StreamPodSandboxesResponse {
            pod_sandboxes,
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Reply<v1::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let id = lookup::sandbox(self.engine.as_ref(), &request.pod_sandbox_id).await?;
        let limits =
            |of: Option<v1::LinuxContainerResources>| of.map(request::resources).transpose().map_err(status);
        let (overhead, resources) = (limits(request.overhead)?, limits(request.resources)?);
        let updated = self
            .engine
            .update_pod_sandbox_resources(&id, overhead, resources)
            .await;
        updated.map_err(status)?;
        Ok(Response::new(v1::UpdatePodSandboxResourcesResponse {}))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Reply<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let sandbox = lookup::sandbox(self.engine.as_ref(), &request.pod_sandbox_id).await?;
        let config = request::container(request.config).map_err(status)?;
        let id = self
            .engine
            .create_container(&sandbox, config)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::CreateContainerResponse { container_id: id.0 }))
    }

    async fn start_container(
        &self,
        request: Request<v1::StartContainerRequest>,
    ) -> Reply<v1::StartContainerResponse> {
        let id = lookup::container(self.engine.as_ref(), &request.into_inner().container_id).await?;
        self.engine.start_container(&id).await.map_err(status)?;
        Ok(Response::new(v1::StartContainerResponse {}))
    }

    async fn stop_container(
        &self,
        request: Request<v1::StopContainerRequest>,
    ) -> Reply<v1::StopContainerResponse> {
        let request = request.into_inner();
        let found = lookup::container(self.engine.as_ref(), &request.container_id).await;
        if let Some(id) = lookup::unless_missing(found)? {
            self.engine
                .stop_container(&id, seconds(request.timeout))
                .await
                .map_err(status)?;
        }
        Ok(Response::new(v1::StopContainerResponse {}))
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Reply<v1::RemoveContainerResponse> {
        let found = lookup::container(self.engine.as_ref(), &request.into_inner().container_id).await;
        if let Some(id) = lookup::unless_missing(found)? {
            self.engine.remove_container(&id).await.map_err(status)?;
        }
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        request: Request<v1::ListContainersRequest>,
    ) -> Reply<v1::ListContainersResponse> {
        let containers = self.containers(request.into_inner().filter.as_ref()).await?;
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn stream_containers(
        &self,
        request: Request<v1::StreamContainersRequest>,
    ) -> Reply<Self::StreamContainersStream> {
        let all = self.containers(request.into_inner().filter.as_ref()).await?;
        let pages = super::pages(all, |containers| v1::StreamContainersResponse { containers });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Reply<v1::ContainerStatusResponse> {
        let request = request.into_inner();
        let id = lookup::container(self.engine.as_ref(), &request.container_id).await?;
        let container = self.engine.container_status(&id).await.map_err(status)?;
        let image = events::image_of(self.engine.as_ref(), &container).await;
        let info = if request.verbose {
            self.engine.container_info(&id).await.map_err(status)?
        } else {
            Default::default()
        };
        Ok(Response::new(v1::ContainerStatusResponse {
            status: Some(view::container_status(&container, image.as_ref())),
            info: view::map(&info),
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Reply<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let id = lookup::container(self.engine.as_ref(), &request.container_id).await?;
        let resources = request::update(request).map_err(status)?;
        self.engine
            .update_container_resources(&id, resources)
            .await
            .map_err(status)?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Reply<v1::ReopenContainerLogResponse> {
        let id = lookup::container(self.engine.as_ref(), &request.into_inner().container_id).await?;
        self.engine.reopen_container_log(&id).await.map_err(status)?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Reply<v1::ExecSyncResponse> {
        let request = request.into_inner();
        let id = lookup::container(self.engine.as_ref(), &request.container_id).await?;
        let timeout = seconds(request.timeout);
        let output = self
            .engine
            .exec_sync(&id, request.cmd, timeout, EXEC_SYNC_OUTPUT)
            .await;
        let output = output.map_err(status)?;
        Ok(Response::new(v1::ExecSyncResponse {
            stdout: output.stdout,
            stderr: output.stderr,
            exit_code: output.exit_code,
        }))
    }

    async fn exec(&self, request: Request<v1::ExecRequest>) -> Reply<v1::ExecResponse> {
        let reply = streams::exec(self.engine.as_ref(), &self.streaming, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn attach(&self, request: Request<v1::AttachRequest>) -> Reply<v1::AttachResponse> {
        let reply = streams::attach(self.engine.as_ref(), &self.streaming, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn port_forward(&self, request: Request<v1::PortForwardRequest>) -> Reply<v1::PortForwardResponse> {
        let reply =
            streams::port_forward(self.engine.as_ref(), &self.streaming, request.into_inner()).await?;
        Ok(Response::new(reply))
    }

    async fn container_stats(
        &self,
        request: Request<v1::ContainerStatsRequest>,
    ) -> Reply<v1::ContainerStatsResponse> {
        let id = lookup::container(self.engine.as_ref(), &request.into_inner().container_id).await?;
        let stats = self
            .engine
            .container_stats(std::slice::from_ref(&id))
            .await
            .map_err(status)?;
        let stats = stats.into_iter().next();
        stats.map_or_else(
            || Err(Status::not_found(format!("There is no container {id}."))),
            |stats| Ok(Response::new(v1::ContainerStatsResponse { stats: Some(stats) })),
        )
    }

    async fn list_container_stats(
        &self,
        request: Request<v1::ListContainerStatsRequest>,
    ) -> Reply<v1::ListContainerStatsResponse> {
        let stats = self
            .stats_of_containers(request.into_inner().filter.as_ref())
            .await?;
        Ok(Response::new(v1::ListContainerStatsResponse { stats }))
    }

    async fn stream_container_stats(
        &self,
        request: Request<v1::StreamContainerStatsRequest>,
    ) -> Reply<Self::StreamContainerStatsStream> {
        let all = self
            .stats_of_containers(request.into_inner().filter.as_ref())
            .await?;
        let pages = super::pages(all, |container_stats| v1::StreamContainerStatsResponse {
            container_stats,
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<v1::PodSandboxStatsRequest>,
    ) -> Reply<v1::PodSandboxStatsResponse> {
        let id = lookup::sandbox(self.engine.as_ref(), &request.into_inner().pod_sandbox_id).await?;
        let stats = self
            .engine
            .pod_sandbox_stats(std::slice::from_ref(&id))
            .await
            .map_err(status)?;
        let stats = stats.into_iter().next();
        stats.map_or_else(
            || {
                Err(Status::failed_precondition(format!(
                    "Sandbox {id} is not ready, and uses nothing."
                )))
            },
            |stats| Ok(Response::new(v1::PodSandboxStatsResponse { stats: Some(stats) })),
        )
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<v1::ListPodSandboxStatsRequest>,
    ) -> Reply<v1::ListPodSandboxStatsResponse> {
        let stats = self
            .stats_of_sandboxes(request.into_inner().filter.as_ref())
            .await?;
        Ok(Response::new(v1::ListPodSandboxStatsResponse { stats }))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<v1::StreamPodSandboxStatsRequest>,
    ) -> Reply<Self::StreamPodSandboxStatsStream> {
        let all = self
            .stats_of_sandboxes(request.into_inner().filter.as_ref())
            .await?;
        let pages = super::pages(all, |pod_sandbox_stats| v1::StreamPodSandboxStatsResponse {
            pod_sandbox_stats,
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn list_metric_descriptors(
        &self,
        _: Request<v1::ListMetricDescriptorsRequest>,
    ) -> Reply<v1::ListMetricDescriptorsResponse> {
        let descriptors = self.engine.metric_descriptors().await.map_err(status)?;
        Ok(Response::new(v1::ListMetricDescriptorsResponse { descriptors }))
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _: Request<v1::ListPodSandboxMetricsRequest>,
    ) -> Reply<v1::ListPodSandboxMetricsResponse> {
        let pod_metrics = self.engine.pod_sandbox_metrics().await.map_err(status)?;
        Ok(Response::new(v1::ListPodSandboxMetricsResponse { pod_metrics }))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _: Request<v1::StreamPodSandboxMetricsRequest>,
    ) -> Reply<Self::StreamPodSandboxMetricsStream> {
        let all = self.engine.pod_sandbox_metrics().await.map_err(status)?;
        let pages = super::pages(all, |pod_sandbox_metrics| v1::StreamPodSandboxMetricsResponse {
            pod_sandbox_metrics,
        });
        Ok(Response::new(Box::pin(pages)))
    }

    async fn checkpoint_container(
        &self,
        request: Request<v1::CheckpointContainerRequest>,
    ) -> Reply<v1::CheckpointContainerResponse> {
        let request = request.into_inner();
        let id = lookup::container(self.engine.as_ref(), &request.container_id).await?;
        let location = Path::new(&request.location);
        let written = self
            .engine
            .checkpoint_container(&id, location, seconds(request.timeout))
            .await;
        written.map_err(status)?;
        Ok(Response::new(v1::CheckpointContainerResponse {}))
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Reply<Self::GetContainerEventsStream> {
        Ok(Response::new(Box::pin(events::stream(Arc::clone(&self.engine)))))
    }
}
