//! The steps of a plan: data with everything that an executor needs.

use std::path::PathBuf;
use std::time::Duration;

use berth_cri::{
    ContainerConfig, ContainerId, LinuxContainerResources, MountPropagation, PodSandboxConfig, SandboxId,
    UnixNanos,
};
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod, ResourceRequirements};

use crate::spec::{self, RestartPolicy, Role};

/// One thing to do. All steps of a plan may be done at the same time. Each is idempotent, and joinable by its
/// [`StepKey`]: a step that is planned again while it is being done is not begun twice, unless the new one
/// [supersedes](Step::supersedes) it.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make the pod's directory and set up its volumes.
    SetUpVolumes,
    /// Pull an image, whether it is there or not.
    PullImage {
        /// The image as the container names it.
        image: String,
    },
    /// Stop the sandboxes that this one replaces, make the pod's cgroup if it is not there, then run the sandbox.
    RunSandbox {
        /// For the engine.
        config: Box<PodSandboxConfig>,
        /// Earlier sandboxes of the pod that are not ready, to be stopped first.
        replaces: Vec<SandboxId>,
        /// The pod's cgroup; its path is `config.cgroup_parent`.
        cgroup: PodCgroup,
    },
    /// Stop a sandbox: what runs in it is killed and its network given back.
    StopSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Remove a sandbox with its containers.
    RemoveSandbox {
        /// Which.
        id: SandboxId,
    },
    /// Create a container (or join the one of that attempt) and start it.
    StartContainer(Box<StartContainer>),
    /// Run a lifecycle hook and enter how it ended in [`Observed::hooks`](super::Observed).
    RunHook {
        /// The container's id.
        id: ContainerId,
        /// The container's name.
        name: String,
        /// Which of its hooks.
        kind: HookKind,
        /// What to do.
        handler: LifecycleHandler,
        /// Give up (`Failed`) at this time; 0 is never.
        deadline: UnixNanos,
    },
    /// Stop a container: its stop signal, then after `timeout` kill.
    StopContainer {
        /// Which.
        id: ContainerId,
        /// The container's name.
        name: String,
        /// For the engine's `stop_container`.
        timeout: Duration,
        /// When the plan wants it gone; a step with an earlier one supersedes.
        deadline: UnixNanos,
        /// Why.
        reason: KillReason,
    },
    /// Remove a container that has ended.
    RemoveContainer {
        /// Which.
        id: ContainerId,
        /// The container's name.
        name: String,
    },
    /// Give the pod's group other limits, and enter them in [`Sizes::group`](crate::sizes::Sizes).
    ResizePod {
        /// The group as it is to be.
        cgroup: PodCgroup,
        /// The sandbox in it.
        sandbox: SandboxId,
        /// There is to be less memory than now: fails if as much is in use.
        lowers_memory: bool,
        /// Fails if more is in use anywhere in the pod than there is to be.
        cuts: MemoryCuts,
    },
    /// Give a running container other limits, and enter what it has in [`Sizes::containers`](crate::sizes::Sizes).
    ResizeContainer {
        /// Which.
        id: ContainerId,
        /// The container's name.
        name: String,
        /// For the engine.
        limits: Box<LinuxContainerResources>,
        /// What it has then.
        resources: ResourceRequirements,
        /// Fails if more is in use anywhere in the pod than there is to be.
        cuts: MemoryCuts,
    },
    /// Unmount the pod's volumes and remove its directory.
    TearDownVolumes,
    /// Remove the pod's cgroup.
    RemoveCgroup {
        /// Relative to the root of each hierarchy.
        path: PathBuf,
    },
}

/// Limits of memory that become less with a resize. A pod that uses more in one place keeps all that it has, as upstream:
/// nothing of the resize is done by halves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryCuts {
    /// The pod's group, and its limit.
    pub pod: Option<(PathBuf, i64)>,
    /// Containers, their names and limits.
    pub containers: Vec<(ContainerId, String, i64)>,
}

/// The pod's cgroup, which holds its sandbox and containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodCgroup {
    /// Relative to the root of each hierarchy: `kubepods/burstable/pod<uid>`.
    pub path: PathBuf,
    /// Limits of the whole pod.
    pub resources: LinuxContainerResources,
    /// Thousandths of a CPU that the pod requests: its tier's share of the CPU is the sum of them.
    pub milli_cpu: i64,
}

/// All there is to know to start a container.
#[derive(Clone, Debug, PartialEq)]
pub struct StartContainer {
    /// The sandbox it goes to.
    pub sandbox: SandboxId,
    /// For the engine. Its `mounts` are empty: the executor fills them from `volume_mounts`, then `/etc/hosts` and the
    /// termination message file (each unless a volume is mounted at that path).
    pub config: Box<ContainerConfig>,
    /// Volumes to mount, in this order.
    pub volume_mounts: Vec<VolumeMountRequest>,
    /// Block volumes that are devices in it. The executor makes `devices` of `config` of them.
    pub volume_devices: Vec<VolumeDeviceRequest>,
    /// The content of the pod's `/etc/hosts`, to be written to the pod's directory and mounted. `None` mounts none.
    pub hosts: Option<String>,
    /// Where in the container the termination message file is mounted; `None` mounts none.
    pub termination_message_path: Option<PathBuf>,
}

/// A volume (or a part of one) to mount in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeMountRequest {
    /// The volume's name in `spec.volumes`.
    pub volume: String,
    /// The part of the volume, after expansion; relative, without `..`.
    pub sub_path: Option<PathBuf>,
    /// Where in the container.
    pub container_path: PathBuf,
    /// Not writable.
    pub read_only: bool,
    /// What is mounted below it is not writable either.
    pub recursive_read_only: bool,
    /// Which mounts made later are seen on the other side.
    pub propagation: MountPropagation,
}

/// A volume that is a device in a container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VolumeDeviceRequest {
    /// The volume's name in `spec.volumes`.
    pub volume: String,
    /// Where in the container.
    pub container_path: PathBuf,
}

/// A lifecycle hook of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HookKind {
    /// `lifecycle.postStart`.
    PostStart,
    /// `lifecycle.preStop`.
    PreStop,
}

/// Why a container is stopped, for its event and its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod is to end.
    PodDeleted,
    /// The pod has failed as a whole: it ran longer than `activeDeadlineSeconds`, for example.
    PodFailed,
    /// Its liveness probe failed.
    LivenessProbe,
    /// Its startup probe failed.
    StartupProbe,
    /// Its postStart hook failed; the text says how.
    PostStartHook(String),
    /// A rule of `restartPolicyRules` restarts all containers of the pod.
    RestartAllContainers,
    /// Somebody wants it to be started anew.
    Restart,
    /// It gets other resources, and its `resizePolicy` says that it is started anew for that. The executor enters it in
    /// [`Observed::restarts`](super::Observed) when it stops it.
    Resize,
    /// It is a sidecar, and the containers that it served have ended.
    PodCompleted,
    /// It runs in a sandbox that is gone, or it is not part of the pod.
    Orphaned,
}

/// What makes two steps the same work.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StepKey {
    /// [`Step::SetUpVolumes`].
    SetUpVolumes,
    /// [`Step::PullImage`] of this image.
    PullImage(String),
    /// [`Step::RunSandbox`] of this attempt.
    RunSandbox(u32),
    /// [`Step::StopSandbox`].
    StopSandbox(SandboxId),
    /// [`Step::RemoveSandbox`].
    RemoveSandbox(SandboxId),
    /// [`Step::StartContainer`] of this name and attempt.
    StartContainer(String, u32),
    /// [`Step::RunHook`].
    RunHook(ContainerId, HookKind),
    /// [`Step::StopContainer`].
    StopContainer(ContainerId),
    /// [`Step::RemoveContainer`].
    RemoveContainer(ContainerId),
    /// [`Step::ResizePod`].
    ResizePod,
    /// [`Step::ResizeContainer`].
    ResizeContainer(ContainerId),
    /// [`Step::TearDownVolumes`].
    TearDownVolumes,
    /// [`Step::RemoveCgroup`].
    RemoveCgroup,
}

impl Step {
    /// What makes this step the same work as another.
    pub fn key(&self) -> StepKey {
        match self {
            Self::SetUpVolumes => StepKey::SetUpVolumes,
            Self::PullImage { image } => StepKey::PullImage(image.clone()),
            Self::RunSandbox { config, .. } => StepKey::RunSandbox(config.attempt),
            Self::StopSandbox { id } => StepKey::StopSandbox(id.clone()),
            Self::RemoveSandbox { id } => StepKey::RemoveSandbox(id.clone()),
            Self::StartContainer(start) => {
                StepKey::StartContainer(start.config.name.clone(), start.config.attempt)
            }
            Self::RunHook { id, kind, .. } => StepKey::RunHook(id.clone(), *kind),
            Self::StopContainer { id, .. } => StepKey::StopContainer(id.clone()),
            Self::RemoveContainer { id, .. } => StepKey::RemoveContainer(id.clone()),
            Self::ResizePod { .. } => StepKey::ResizePod,
            Self::ResizeContainer { id, .. } => StepKey::ResizeContainer(id.clone()),
            Self::TearDownVolumes => StepKey::TearDownVolumes,
            Self::RemoveCgroup { .. } => StepKey::RemoveCgroup,
        }
    }

    /// This step is to be begun although `running`, of the same key, is still being done: the time for it got shorter.
    pub fn supersedes(&self, running: &Self) -> bool {
        match (self, running) {
            (Self::StopContainer { deadline: new, .. }, Self::StopContainer { deadline: old, .. }) => {
                new < old
            }
            (Self::RunHook { deadline: new, .. }, Self::RunHook { deadline: old, .. }) => {
                *new != 0 && (*old == 0 || new < old)
            }
            _ => false,
        }
    }
}

impl StepKey {
    /// This step is to be dropped when a new plan does not list it any more; every other step is left to end.
    pub fn is_cancellable(&self) -> bool {
        matches!(self, Self::PullImage(_) | Self::RunHook(..))
    }

    /// This step gives a pod that runs other resources.
    pub fn is_resize(&self) -> bool {
        matches!(self, Self::ResizePod | Self::ResizeContainer(_))
    }
}

impl KillReason {
    /// A sentence for the `Killing` event of a container of this pod, in upstream's words.
    pub fn message(&self, pod: &Pod, container: &str) -> String {
        let found = spec::container(pod, container);
        let (kind, then) = match found {
            Some((_, Role::Init | Role::Sidecar)) => ("Init container", ""),
            Some((of, role)) if spec::restart_policy(pod, of, role) == RestartPolicy::Never => {
                ("Container", "")
            }
            _ => ("Container", ", will be restarted"),
        };
        match self {
            Self::PodDeleted | Self::PodFailed | Self::PodCompleted => {
                format!("Stopping container {container}")
            }
            Self::Restart => format!("Restarting container {container}"),
            Self::Resize => format!("Container {container} resize requires restart"),
            Self::LivenessProbe => format!("{kind} {container} failed liveness probe{then}"),
            Self::StartupProbe => format!("{kind} {container} failed startup probe{then}"),
            Self::PostStartHook(why) => format!("FailedPostStartHook: container {container}: {why}"),
            Self::RestartAllContainers => {
                format!("Container {container} is restarted with all containers of the pod")
            }
            Self::Orphaned => format!("Container {container} is not part of the running pod"),
        }
    }
}
