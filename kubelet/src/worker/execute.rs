//! Doing one step of a plan.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{
    AuthConfig, ContainerId, EngineError, Image, LinuxContainerResources, PodSandboxConfig, SandboxId,
    UnixNanos,
};
use k8s_openapi::api::core::v1::{LifecycleHandler, ResourceRequirements};
use tokio::sync::watch;

use super::Node;
use super::event::EventReason;
use super::reporter::Reporter;
use crate::lifecycle::{self, Hook};
use crate::logs;
use crate::plan::{
    Desired, HookKind, HookOutcome, PodCgroup, Reason, StartContainer, Step, VolumeMountRequest,
};
use crate::pull_secrets;
use crate::spec;
use crate::volumes::{self, PodDir, VolumeError};

/// One step and what it needs.
pub(super) struct Job {
    pub(super) node: Arc<Node>,
    pub(super) desired: Desired,
    pub(super) dir: PodDir,
    /// The pod's address, for hooks.
    pub(super) ip: Option<IpAddr>,
    pub(super) step: Step,
    /// The step's deadline, which may come nearer while it is being done; 0 is never.
    pub(super) deadline: watch::Receiver<UnixNanos>,
    /// The step is not wanted any more, though it goes on to its end.
    pub(super) unwanted: watch::Receiver<bool>,
    pub(super) reporter: Reporter,
}

/// What came of a step that was done.
#[derive(Debug, PartialEq)]
pub(super) enum Done {
    /// Nothing to enter.
    Nothing,
    /// The volumes are set up.
    Volumes(bool),
    /// The image that is there now.
    Image(String, Option<Image>),
    /// The pod's group has these limits now.
    Group(LinuxContainerResources),
    /// A container has these resources now.
    Resized(ContainerId, ResourceRequirements),
    /// A hook ended.
    Hook(ContainerId, HookKind, HookOutcome),
}

/// Why a step failed.
pub(super) type Failure = (Reason, String);

impl Job {
    /// Does the step.
    pub(super) async fn run(mut self) -> Result<Done, Failure> {
        match self.step.clone() {
            Step::SetUpVolumes => self.set_up_volumes().await,
            Step::PullImage { image } => self.pull_image(image).await,
            Step::RunSandbox {
                config,
                replaces,
                cgroup,
            } => {
                self.stop_sandboxes(&replaces).await?;
                self.run_sandbox(*config, cgroup).await
            }
            Step::StopSandbox { id } => nothing(self.node.engine.stop_pod_sandbox(&id).await),
            Step::RemoveSandbox { id } => nothing(self.node.engine.remove_pod_sandbox(&id).await),
            Step::StartContainer(start) => self.start_container(*start).await,
            Step::RunHook {
                id,
                name,
                kind,
                handler,
                ..
            } => self.run_hook(id, &name, kind, handler).await,
            Step::StopContainer {
                id,
                name,
                timeout,
                reason,
                ..
            } => {
                self.reporter.container(
                    EventReason::Killing,
                    &name,
                    reason.message(&self.desired.pod, &name),
                );
                nothing(self.node.engine.stop_container(&id, timeout).await)
            }
            Step::RemoveContainer { id, .. } => self.remove_container(&id).await,
            Step::ResizePod {
                cgroup,
                sandbox,
                lowers_memory,
                cuts,
            } => {
                self.check_cuts(&cuts).await?;
                self.resize_pod(cgroup, &sandbox, lowers_memory).await
            }
            Step::ResizeContainer {
                id,
                name,
                limits,
                resources,
                cuts,
            } => {
                self.check_cuts(&cuts).await?;
                self.resize_container(id, &name, *limits, resources).await
            }
            Step::TearDownVolumes => self.tear_down_volumes().await,
            Step::RemoveCgroup { path } => self.remove_cgroup(&path).await,
        }
    }

    async fn pull_image(&self, image: String) -> Result<Done, Failure> {
        self.reporter
            .pod(EventReason::Pulling, format!("Pulling image \"{image}\""));
        let begun = tokio::time::Instant::now();
        match self.pull_with_each_credential(&image).await {
            Ok(()) => {}
            Err(EngineError::InvalidImageName(message)) => return Err((Reason::InvalidImageName, message)),
            Err(error) => return Err((Reason::ErrImagePull, error.to_string())),
        }
        let took = Duration::from_millis(u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX));
        self.reporter.pod(
            EventReason::Pulled,
            format!("Successfully pulled image \"{image}\" in {took:?}"),
        );
        match self.node.engine.image_status(&image).await {
            Ok(found) => Ok(Done::Image(image, found)),
            Err(error) => Err((Reason::ImageInspectError, error.to_string())),
        }
    }

    /// As upstream: each credential that the pod has for the image, or else what the node has.
    async fn pull_with_each_credential(&self, image: &str) -> Result<(), EngineError> {
        let found = pull_secrets::credentials(&self.desired.pod, &self.desired.objects, image);
        let mut tries: Vec<Option<AuthConfig>> = found.into_iter().map(Some).collect();
        if tries.is_empty() {
            tries.push(None);
        }
        let mut outcome = Ok(());
        let pull = Arc::new(self.node.pulls.begin(image));
        for auth in tries {
            let pull = Arc::clone(&pull);
            let progress = Arc::new(move |at| pull.update(at));
            outcome = self.node.engine.pull_image(image, auth, progress).await.map(drop);
            if !matches!(outcome, Err(EngineError::ImagePull(_))) {
                break;
            }
        }
        outcome
    }

    async fn stop_sandboxes(&self, ids: &[SandboxId]) -> Result<(), Failure> {
        for id in ids {
            self.reporter.pod(
                EventReason::SandboxChanged,
                "Sandbox is gone, it will be made anew",
            );
            let stopped = self.node.engine.stop_pod_sandbox(id).await;
            stopped.map_err(|error| (Reason::FailedCreatePodSandBox, error.to_string()))?;
        }
        Ok(())
    }

    async fn run_sandbox(&self, config: PodSandboxConfig, cgroup: PodCgroup) -> Result<Done, Failure> {
        let failed = |message: String| (Reason::FailedCreatePodSandBox, message);
        let limits = cgroup.resources.clone();
        let (node, dir, pod, logs) = (
            Arc::clone(&self.node),
            self.dir.clone(),
            self.desired.pod.clone(),
            config.log_directory.clone(),
        );
        let prepared = blocking(move || -> Result<(), String> {
            dir.create(&pod).map_err(|error| {
                format!("can't make the pod's directory {}: {error}", dir.path().display())
            })?;
            std::fs::create_dir_all(&logs)
                .map_err(|error| format!("can't make the log directory {}: {error}", logs.display()))?;
            node.cgroups.ensure(&cgroup).map_err(|error| error.to_string())
        })
        .await?;
        prepared.map_err(failed)?;
        let id = self
            .node
            .engine
            .run_pod_sandbox(config)
            .await
            .map_err(|error| failed(error.to_string()))?;
        if let Ok(status) = self.node.engine.pod_sandbox_status(&id).await {
            self.reporter.pod(
                EventReason::SandboxReady,
                sandbox_message("Sandbox was made", &status.ips),
            );
        }
        Ok(Done::Group(limits))
    }

    async fn start_container(&self, mut start: StartContainer) -> Result<Done, Failure> {
        let name = start.config.name.clone();
        let (desired, node, dir) = (self.desired.clone(), Arc::clone(&self.node), self.dir.clone());
        let request = start.clone();
        let prepared = blocking(move || {
            let context = context(&desired, &node, &dir);
            let mounts = volumes::container_mounts(&context, &request)?;
            Ok((mounts, volumes::container_devices(&context, &request)?))
        });
        (start.config.mounts, start.config.devices) = prepared
            .await?
            .map_err(|error: VolumeError| (Reason::CreateContainerConfigError, error.to_string()))?;
        let hint = on_dev(&start.volume_mounts).unwrap_or_default();
        let engine = &self.node.engine;
        let id = engine
            .create_container(&start.sandbox, *start.config)
            .await
            .map_err(|error| (Reason::CreateContainerError, format!("{error}{hint}")))?;
        self.reporter
            .container(EventReason::Created, &name, format!("Created container {name}"));
        engine
            .start_container(&id)
            .await
            .map_err(|error| (Reason::RunContainerError, error.to_string()))?;
        self.reporter
            .container(EventReason::Started, &name, format!("Started container {name}"));
        Ok(Done::Nothing)
    }

    async fn run_hook(
        &mut self,
        id: ContainerId,
        name: &str,
        kind: HookKind,
        handler: LifecycleHandler,
    ) -> Result<Done, Failure> {
        let Some((container, _)) = spec::container(&self.desired.pod, name) else {
            let outcome = HookOutcome::Failed(format!("the pod has no container \"{name}\""));
            return Ok(Done::Hook(id, kind, outcome));
        };
        let hook = Hook {
            id: id.clone(),
            container: container.clone(),
            handler,
            ip: self.ip,
        };
        let limit = Some(*self.deadline.borrow())
            .filter(|&at| at != 0)
            .map(|at| self.node.clock.until(at));
        let reporter = &self.reporter;
        let fell_back =
            |message: String| reporter.container(EventReason::LifecycleHTTPFallback, name, message);
        let outcome = tokio::select! {
            outcome = lifecycle::run(&hook, self.node.engine.as_ref(), limit, &fell_back) => outcome,
            () = over(&self.node, &mut self.deadline) => {
                HookOutcome::Failed("the hook did not end within the grace period".to_owned())
            }
        };
        if let HookOutcome::Failed(message) = &outcome {
            let (reason, word) = match kind {
                HookKind::PostStart => (EventReason::FailedPostStartHook, "PostStart"),
                HookKind::PreStop => (EventReason::FailedPreStopHook, "PreStop"),
            };
            self.reporter
                .container(reason, name, format!("{word} hook failed: {message}"));
        }
        Ok(Done::Hook(id, kind, outcome))
    }

    /// Removes a container with its logs and its termination message file.
    async fn remove_container(&self, id: &ContainerId) -> Result<Done, Failure> {
        let status = self.node.engine.container_status(id).await;
        let removed = self.node.engine.remove_container(id).await;
        if let (Ok(()), Ok(status)) = (&removed, status) {
            let dir = self.dir.clone();
            let files = blocking(move || {
                logs::remove(&status.log_path)?;
                dir.remove_termination_log(&status.config.name, status.config.attempt)
            });
            files.await?.map_err(|error| {
                (
                    Reason::FailedSync,
                    format!("can't remove a container's files: {error}"),
                )
            })?;
        }
        nothing(removed)
    }

    async fn tear_down_volumes(&self) -> Result<Done, Failure> {
        let (dir, uid, node) = (self.dir.clone(), self.desired.uid.clone(), Arc::clone(&self.node));
        blocking(move || volumes::tear_down(&node.kubelet_root, &dir, &uid))
            .await?
            .map_err(|error| (Reason::FailedSync, error.to_string()))?;
        Ok(Done::Volumes(false))
    }

    async fn remove_cgroup(&self, path: &Path) -> Result<Done, Failure> {
        let (node, path) = (Arc::clone(&self.node), path.to_owned());
        let removed = blocking(move || node.cgroups.remove(&path)).await?;
        removed.map_err(|error| {
            (
                Reason::FailedSync,
                format!("can't remove the pod's cgroup: {error}"),
            )
        })?;
        Ok(Done::Nothing)
    }
}

/// What there is to say of a container that can't be made if a volume takes the place of all its devices.
fn on_dev(mounts: &[VolumeMountRequest]) -> Option<String> {
    let (index, mount) = mounts
        .iter()
        .enumerate()
        .find(|(_, mount)| mount.container_path == Path::new("/dev"))?;
    let volume = &mount.volume;
    Some(format!(
        " With volume {volume:?} on /dev (volumeMounts[{index}].mountPath) the container has only what is in the volume there: \
         mount it elsewhere, or below /dev."
    ))
}

/// What there is to say of a sandbox with these addresses.
pub(super) fn sandbox_message(what: &str, ips: &[IpAddr]) -> String {
    match ips.first() {
        Some(ip) => format!("{what}, IP {ip}"),
        None => format!("{what}, on the host's network"),
    }
}

/// Returns when a deadline is over that may change meanwhile.
async fn over(node: &Node, deadline: &mut watch::Receiver<UnixNanos>) {
    loop {
        let at = *deadline.borrow_and_update();
        let left = if at == 0 {
            Duration::MAX
        } else {
            node.clock.until(at)
        };
        tokio::select! {
            () = tokio::time::sleep(left) => return,
            Ok(()) = deadline.changed() => {}
        }
    }
}

pub(super) fn context<'a>(desired: &'a Desired, node: &'a Node, dir: &'a PodDir) -> volumes::Context<'a> {
    volumes::Context {
        pod: &desired.pod,
        objects: &desired.objects,
        dir,
        node: &node.facts,
        setting_up: None,
    }
}

pub(super) fn nothing(result: Result<(), EngineError>) -> Result<Done, Failure> {
    result
        .map(|()| Done::Nothing)
        .map_err(|error| (Reason::FailedSync, error.to_string()))
}

/// Runs what may wait for the kernel or a disk away from the other tasks.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| (Reason::FailedSync, format!("the step broke off: {error}")))
}
