//! The pure decision of what to do next with a pod.
//!
//! [`plan`] looks at what a pod is to be and what there is of it, and says what to do now and when to look again. It
//! alone decides; an executor does the steps, enters the results in [`Observed`], and asks again whenever something
//! happened. All that must outlive the daemon is derived from the engine's own records of containers and sandboxes.

mod desired;
mod images;
mod observed;
mod outcome;
mod post_start;
mod probes;
mod reason;
mod resize;
mod start;
mod step;
mod sync;
mod termination;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cri::{ContainerId, UnixNanos};
use serde::{Deserialize, Serialize};

use crate::spec;

pub use desired::{Deletion, Desired, NodeFacts, Objects};
pub use observed::{HookOutcome, ImageState, Observed, ProbeResults, StepFailure};
pub use reason::Reason;
pub use resize::{InProgress, Pending, Resize};
pub use step::{
    HookKind, KillReason, MemoryCuts, PodCgroup, StartContainer, Step, StepKey, VolumeDeviceRequest,
    VolumeMountRequest,
};

pub(crate) use outcome::DEADLINE_EXCEEDED;
pub(crate) use resize::{actual, effective};
pub(crate) use view::{ROUND, Startup, View, exit_code, has_ended, is_running, round_of};

/// Decides what to do with a pod now.
pub fn plan(desired: &Desired, observed: &Observed, now: UnixNanos) -> Plan {
    let resize = resize::decide(desired, observed);
    let desired = &*resize::effective(desired, &resize);
    let view = View {
        desired,
        observed,
        now,
    };
    let outcome = outcome::outcome(&view);
    let mut plan = Plan {
        resize,
        ..Plan::default()
    };
    if desired.deletion.is_some() || outcome.is_some() {
        termination::terminate(&view, outcome.as_ref(), &mut plan);
    } else if !spec::is_gated(&desired.pod) {
        sync::sync(&view, &mut plan);
    }
    plan.over_since = outcome.as_ref().map(|outcome| outcome.at);
    plan.failure = outcome.and_then(|outcome| outcome.failure);
    plan
}

/// What to do with a pod now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do; all at the same time if the executor likes.
    pub steps: Vec<Step>,
    /// Probes that are to run; a probe that is not listed is to be stopped.
    pub probes: Vec<ProbeWanted>,
    /// Ask again at this time, even if nothing happened.
    pub wake_at: Option<UnixNanos>,
    /// Why containers that do not run are not running, by name.
    pub waiting: BTreeMap<String, Waiting>,
    /// How far the pod's life is.
    pub stage: Stage,
    /// The pod has failed as a whole, whatever its containers say. The executor enters it in [`Observed::failed`].
    pub failure: Option<PodFailure>,
    /// How far a change of the pod's resources is.
    pub resize: Resize,
    /// Running containers that are to go on. What was begun to end one of them is over: the executor forgets when it was
    /// first told to end it, and its preStop hook.
    pub spared: Vec<ContainerId>,
    /// When it failed as a whole, or its work was done.
    pub over_since: Option<UnixNanos>,
}

/// A probe that is to run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProbeWanted {
    /// The running container.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Which of its probes.
    pub kind: ProbeKind,
}

/// A container's probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProbeKind {
    /// `startupProbe`.
    Startup,
    /// `readinessProbe`.
    Readiness,
    /// `livenessProbe`.
    Liveness,
}

/// Why a container is not running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Kubernetes' word for it.
    pub reason: Reason,
    /// A sentence for people, or empty.
    pub message: String,
}

/// `status.reason` of a pod that was ended to make room for a critical one.
pub const PREEMPTING: &str = "Preempting";

/// Why a pod failed as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodFailure {
    /// `status.reason`.
    pub reason: String,
    /// `status.message`.
    pub message: String,
    /// What its containers get to end in, if not what the pod says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Duration>,
}

/// How far a pod's life is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It is brought to run, or kept running.
    #[default]
    Syncing,
    /// It is being stopped: because of its deletion, its failure, or because all its work is done.
    Terminating,
    /// Nothing of it runs. Its containers stay for status and logs until it is deleted.
    Terminated,
    /// It is deleted, nothing of it runs, and what is left of it is being removed. The status of the first plan of this
    /// stage is the last one.
    Removing,
    /// Nothing of it is left.
    Gone,
}

#[cfg(test)]
mod tests;
