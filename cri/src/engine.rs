//! The trait that a kubelet drives a container runtime by.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use crate::session::{Session, StreamOptions};
use crate::types::{
    AuthConfig, CgroupDriver, ContainerConfig, ContainerId, ContainerStatus, EngineEvent, ExecOutput, Image,
    ImageFsInfo, ImageId, LinuxContainerResources, PodSandboxConfig, PodSandboxStatus, PullProgress,
    RepeatedCommand, RuntimeHandler, RuntimeStatus, RuntimeVersion, SandboxId,
};
use crate::v1;

/// Events in the order in which they happened, per pod. The stream ends when the engine does.
pub type EventStream = mpsc::UnboundedReceiver<EngineEvent>;

/// Why the engine could not do as asked. The text is a sentence for people; the variant is for the caller.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// No sandbox, container or image of that id.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense, whoever asks again.
    #[error("{0}")]
    InvalidArgument(String),
    /// The object is not in a state that allows this.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The time for it is over; what was started has been killed.
    #[error("{0}")]
    DeadlineExceeded(String),
    /// The image could not be had.
    #[error("{0}")]
    ImagePull(String),
    /// The image's name is not a name.
    #[error("{0}")]
    InvalidImageName(String),
    /// The container's program is missing or can't be executed (`ContainerCannotRun`).
    #[error("{message}")]
    CannotRun {
        /// What a shell would end with: 127 if there is no such program, 126 if it can't be executed.
        exit_code: u8,
        /// Which program, and why.
        message: String,
    },
    /// The machine lacks something: root, a kernel feature, a program, a free port, space on a disk.
    #[error("{0}")]
    Unavailable(String),
    /// This runtime can't do that at all.
    #[error("{0}")]
    Unimplemented(String),
    /// The kernel, a plugin or a file system refused.
    #[error("{0}")]
    Internal(String),
}

/// Repeats a command one by one, for a runtime that can't.
pub(crate) async fn repeat(
    engine: &(impl Engine + ?Sized),
    id: &ContainerId,
    repeated: &RepeatedCommand,
) -> Result<ExecOutput, EngineError> {
    let mut due = Instant::now() + repeated.first_in;
    loop {
        sleep_until(due).await;
        let (command, timeout) = (repeated.command.clone(), repeated.timeout);
        let output = engine
            .exec_sync(id, command, timeout, repeated.max_output)
            .await?;
        if output.exit_code != 0 {
            return Ok(output);
        }
        due = (due + repeated.period).max(Instant::now());
    }
}

/// A container runtime, as a kubelet sees it. CRI v1 has the same verbs under the same names.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// Starts a pod's sandbox: cgroup, namespaces, network, pause. Returns when it is ready. Asked again for the same
    /// (UID, attempt) it joins or returns the first one.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId, EngineError>;

    /// Kills what runs in the sandbox and gives its network back. Idempotent; a missing sandbox is stopped.
    async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError>;

    /// Stops the sandbox and removes it with its containers. Idempotent; a missing sandbox is removed.
    async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<(), EngineError>;

    /// What the engine knows of a sandbox.
    async fn pod_sandbox_status(&self, id: &SandboxId) -> Result<PodSandboxStatus, EngineError>;

    /// Every sandbox, of one pod if a UID is given.
    async fn list_pod_sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandboxStatus>, EngineError>;

    /// Makes a container in a ready sandbox; its image must be there. Its program does not run yet.
    async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId, EngineError>;

    /// Runs a created container's program.
    async fn start_container(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// Sends the stop signal, waits up to `timeout` for the first process to be reaped, then kills all. A zero timeout
    /// kills at once. Idempotent; returns when the container has ended.
    async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<(), EngineError>;

    /// Kills and removes a container with its writable layer; the log stays. Idempotent.
    async fn remove_container(&self, id: &ContainerId) -> Result<(), EngineError>;

    /// What the engine knows of a container.
    async fn container_status(&self, id: &ContainerId) -> Result<ContainerStatus, EngineError>;

    /// Every container, of one pod if a UID is given.
    async fn list_containers(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStatus>, EngineError>;

    /// Changes the limits of a container.
    async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: LinuxContainerResources,
    ) -> Result<(), EngineError>;

    /// Runs a command in a running container and collects what it prints, up to `max_output` bytes a stream. After
    /// `timeout` (zero: never) its whole process tree is killed and the error is `DeadlineExceeded`.
    async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout: Duration,
        max_output: usize,
    ) -> Result<ExecOutput, EngineError>;

    /// Runs a command as [`exec_sync`](Self::exec_sync) does, again and again, for as long as it ends with 0. What comes back is
    /// the first that did not, or at any time before that one that did: who wants more asks again.
    async fn exec_repeatedly(
        &self,
        id: &ContainerId,
        repeated: RepeatedCommand,
    ) -> Result<ExecOutput, EngineError> {
        repeat(self, id, &repeated).await
    }

    /// Starts a command in a running container, to be talked to. The caller has its descriptors; dropping them does not
    /// end it, but hangs up a terminal.
    async fn exec(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        options: StreamOptions,
    ) -> Result<Session, EngineError>;

    /// A copy of what a running container writes from now on, and its input. Without an input of its own there is none
    /// in the session; with a terminal there is no standard error, whatever the options say.
    async fn attach(&self, id: &ContainerId, options: StreamOptions) -> Result<Session, EngineError>;

    /// Connects to a TCP port of a sandbox's loopback.
    async fn port_forward(&self, id: &SandboxId, port: u16) -> Result<TcpStream, EngineError>;

    /// A number that changes after each growth and each rotation of the container's log. Read the log to its end after
    /// `borrow_and_update`, then wait for `changed`: nothing is missed. The sender is gone once the log is complete.
    async fn watch_log(&self, id: &ContainerId) -> Result<watch::Receiver<u64>, EngineError>;

    /// Everything that happens from now on.
    fn events(&self) -> EventStream;

    /// Fetches an image, or finds that it is there already. `auth` takes the place of what the node has of credentials;
    /// `progress` may be called from several threads.
    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
        progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
    ) -> Result<ImageId, EngineError>;

    /// The image of that name or id, if it is there.
    async fn image_status(&self, image: &str) -> Result<Option<Image>, EngineError>;

    /// Every image in the store.
    async fn list_images(&self) -> Result<Vec<Image>, EngineError> {
        Err(cannot("list_images"))
    }

    /// Removes the image of that name or id, with all its names. Idempotent.
    async fn remove_image(&self, image: &str) -> Result<(), EngineError> {
        let _ = image;
        Err(cannot("remove_image"))
    }

    /// What images and writable layers take on their file systems.
    async fn image_fs_info(&self) -> Result<ImageFsInfo, EngineError> {
        Err(cannot("image_fs_info"))
    }

    /// Who the runtime is.
    async fn version(&self) -> Result<RuntimeVersion, EngineError> {
        Err(cannot("version"))
    }

    /// Whether the runtime can work, and what it can do; `verbose` adds details for people.
    async fn status(&self, verbose: bool) -> Result<RuntimeStatus, EngineError> {
        let _ = verbose;
        Err(cannot("status"))
    }

    /// The runtime handlers and what each can do: what [`status`](Self::status) says of them, without asking whether there is a
    /// network, which may take as long as its plugins like.
    async fn runtime_handlers(&self) -> Result<Vec<RuntimeHandler>, EngineError> {
        Ok(self.status(false).await?.handlers)
    }

    /// Who makes the pods' cgroups.
    async fn cgroup_driver(&self) -> Result<CgroupDriver, EngineError> {
        Err(cannot("cgroup_driver"))
    }

    /// Tells the runtime the node's pod addresses (`podCIDR`; several with commas between them).
    async fn update_pod_cidr(&self, pod_cidr: &str) -> Result<(), EngineError> {
        let _ = pod_cidr;
        Err(cannot("update_pod_cidr"))
    }

    /// Tells the runtime that a pod's own limits and its overhead have changed. The pod's cgroup is the caller's.
    async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<(), EngineError> {
        let _ = (id, overhead, resources);
        Err(cannot("update_pod_sandbox_resources"))
    }

    /// Closes and opens a running container's log again, after somebody has moved it.
    async fn reopen_container_log(&self, id: &ContainerId) -> Result<(), EngineError> {
        let _ = id;
        Err(cannot("reopen_container_log"))
    }

    /// Writes a checkpoint of a running container, which goes on, to the archive `location`.
    async fn checkpoint_container(
        &self,
        id: &ContainerId,
        location: &Path,
        timeout: Duration,
    ) -> Result<(), EngineError> {
        let _ = (id, location, timeout);
        Err(cannot("checkpoint_container"))
    }

    /// Details of a sandbox for people, as JSON, by name.
    async fn sandbox_info(&self, id: &SandboxId) -> Result<BTreeMap<String, String>, EngineError> {
        let _ = id;
        Err(cannot("sandbox_info"))
    }

    /// Details of a container for people, as JSON, by name.
    async fn container_info(&self, id: &ContainerId) -> Result<BTreeMap<String, String>, EngineError> {
        let _ = id;
        Err(cannot("container_info"))
    }

    /// Details of an image for people, as JSON, by name.
    async fn image_info(&self, image: &str) -> Result<BTreeMap<String, String>, EngineError> {
        let _ = image;
        Err(cannot("image_info"))
    }

    /// What the containers use, of those that are given.
    async fn container_stats(&self, ids: &[ContainerId]) -> Result<Vec<v1::ContainerStats>, EngineError> {
        let _ = ids;
        Err(cannot("container_stats"))
    }

    /// How many processes each of these containers has; `None` where that is not known, as of another runtime's: CRI has no
    /// such number.
    async fn container_processes(&self, ids: &[ContainerId]) -> Result<Vec<Option<u64>>, EngineError> {
        Ok(vec![None; ids.len()])
    }

    /// What the sandboxes use, of those that are given.
    async fn pod_sandbox_stats(&self, ids: &[SandboxId]) -> Result<Vec<v1::PodSandboxStats>, EngineError> {
        let _ = ids;
        Err(cannot("pod_sandbox_stats"))
    }

    /// What metrics there are.
    async fn metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>, EngineError> {
        Err(cannot("metric_descriptors"))
    }

    /// The metrics of every sandbox.
    async fn pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>, EngineError> {
        Err(cannot("pod_sandbox_metrics"))
    }
}

/// What an engine answers that lacks a verb which only some callers need.
fn cannot(verb: &str) -> EngineError {
    EngineError::Unimplemented(format!("This engine does not know the verb {verb}."))
}
