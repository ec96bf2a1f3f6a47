//! What there is of a pod: engine objects, volumes, images, probe results and failed steps.

use std::collections::{BTreeMap, BTreeSet};

use berth_cri::{ContainerId, ContainerStatus, Image, PodSandboxStatus, UnixNanos};

use super::PodFailure;
use super::reason::Reason;
use super::step::{HookKind, StepKey};
use crate::env_file::EnvFiles;
use crate::requests::Requests;
use crate::sizes::Sizes;

/// A pod as it is. Everything but the containers' and sandboxes' records may be lost with the daemon: the plan then
/// asks again for what it does not know.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// When the node took the pod on (`status.startTime`); kept across restarts of the daemon.
    pub admitted_at: UnixNanos,
    /// All of the pod's sandboxes, in any order.
    pub sandboxes: Vec<PodSandboxStatus>,
    /// All of the pod's containers, in any order.
    pub containers: Vec<ContainerStatus>,
    /// The pod's volumes and directories are set up ([`Step::SetUpVolumes`](super::Step) succeeded).
    pub volumes_ready: bool,
    /// The files of its volumes that environment variables come from, as they are now.
    pub env_files: EnvFiles,
    /// The pod's directory, or a volume of it, is there.
    pub directory_exists: bool,
    /// The pod's cgroup is there.
    pub cgroup_exists: bool,
    /// The images of the pod's containers, by the name in the specification. A name that is missing was not looked
    /// up yet, and nothing is decided about its containers.
    pub images: BTreeMap<String, ImageState>,
    /// Probe results by container.
    pub probes: BTreeMap<ContainerId, ProbeResults>,
    /// How lifecycle hooks ended. A hook that is missing has not ended; for a running container that was adopted from
    /// an earlier daemon, `PostStart` is entered as `Succeeded`.
    pub hooks: BTreeMap<(ContainerId, HookKind), HookOutcome>,
    /// Steps that are being done now. The plan lists those again that are still wanted.
    pub in_flight: BTreeSet<StepKey>,
    /// When the executor was first told to end a container (a preStop [`Step::RunHook`](super::Step) or a
    /// [`Step::StopContainer`](super::Step)); the grace period counts from here.
    pub kill_started: BTreeMap<ContainerId, UnixNanos>,
    /// Containers that somebody wants to be started anew, and since when: they are stopped, and their successors come
    /// whatever the restart policy says. 0 is since before this daemon.
    pub restarts: BTreeMap<ContainerId, UnixNanos>,
    /// The pod has failed as a whole: when, and why. It stays so, whatever the clock says later.
    pub failed: Option<(UnixNanos, PodFailure)>,
    /// The pod's resources, if they were changed since it was taken on.
    pub sizes: Option<Sizes>,
    /// What the node's other pods request; looked up when the pod asks for resources that it was not given.
    pub others: Option<Requests>,
    /// Steps whose last try failed. An entry goes away when the step succeeds.
    pub failures: BTreeMap<StepKey, StepFailure>,
    /// What ended containers wrote to their termination message, at most 4096 bytes each.
    pub termination_messages: BTreeMap<ContainerId, String>,
}

/// An image of the pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageState {
    /// What the engine has under that name.
    pub present: Option<Image>,
    /// When this daemon last pulled it for this pod with success; 0 is never.
    pub pulled_at: UnixNanos,
}

/// What the probes of one container say; `None` before the first verdict, and where there is no such probe.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeResults {
    /// The startup probe.
    pub startup: Option<bool>,
    /// The readiness probe.
    pub readiness: Option<bool>,
    /// The liveness probe.
    pub liveness: Option<bool>,
}

/// How a lifecycle hook ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HookOutcome {
    /// It did its work.
    Succeeded,
    /// It did not, and why.
    Failed(String),
}

/// The last failure of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepFailure {
    /// How often it failed in a row, at least 1.
    pub count: u32,
    /// When it last failed.
    pub at: UnixNanos,
    /// What Kubernetes calls it.
    pub reason: Reason,
    /// A sentence for people.
    pub message: String,
}
