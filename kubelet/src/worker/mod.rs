//! One worker per pod: observe, plan, act, and wait for whatever happens next.
//!
//! A worker is a task that owns its pod. Everything that happens to the pod comes to it as one ordered stream: the
//! engine's events, ends of steps, probe attempts, commands, and the one timer that the last plan asked for. After each,
//! it looks at the pod anew and asks [`crate::plan`] what to do. It decides nothing itself.

mod announce;
mod cgroup;
mod cgroup_list;
mod cgroup_list_before;
mod clock;
mod commands;
mod event;
mod execute;
mod gates;
mod inbox;
mod memory;
mod observe;
mod outcomes;
mod pod;
mod preemption;
mod probes;
mod record;
mod reporter;
mod resize;
mod room;
mod router;
mod set_up;
mod sole;
mod spawn;
mod storage;
mod tasks;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::Engine;
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodStatus};
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use cgroup::hierarchy_roots;
pub use cgroup::{HostCgroups, NoCgroups, PodCgroupError, PodCgroups};
pub use clock::Clock;
pub use event::{EventReason, PodEvent};
pub use record::{PodRecord, Records};
pub use router::EventRouter;
pub use sole::Workers;

use crate::plan::{NodeFacts, Objects, Stage};
use crate::pulls::Pulls;

/// What all workers of a node share.
pub struct Node {
    /// What runs the containers.
    pub engine: Arc<dyn Engine>,
    /// Where the runtime listens that is behind the engine; `None` for the built-in one.
    pub runtime_endpoint: Option<String>,
    /// Where pods' directories and records are (`/var/lib/kubelet`).
    pub kubelet_root: PathBuf,
    /// What plans depend on.
    pub facts: Arc<NodeFacts>,
    /// What makes pods' cgroups.
    pub cgroups: Arc<dyn PodCgroups>,
    /// What tells the time.
    pub clock: Clock,
    /// How far image pulls are.
    pub pulls: Pulls,
    /// The pods that have a worker.
    pub workers: Workers,
}

/// A pod and how it is.
#[derive(Clone, Debug)]
pub struct PodState {
    /// The pod as it is wanted.
    pub pod: Arc<Pod>,
    /// How it is.
    pub status: PodStatus,
    /// How far its life is.
    pub stage: Stage,
}

/// What a worker can be told.
#[derive(Clone, Debug)]
enum Command {
    Delete {
        grace: Option<Duration>,
    },
    Restart {
        containers: Vec<String>,
    },
    Change {
        pod: Arc<Pod>,
        objects: Arc<Objects>,
    },
    Debug {
        container: Box<EphemeralContainer>,
    },
    /// A critical pod needs its room.
    Preempt,
}

/// Tells a worker what to do. Whoever has one may be anywhere; a worker that is gone hears nothing.
#[derive(Clone, Debug)]
pub struct PodControl {
    commands: mpsc::UnboundedSender<Command>,
}

impl PodControl {
    /// Ends the pod and removes it. Asked again with a shorter grace period, it hurries; zero kills at once.
    pub fn delete(&self, grace: Option<Duration>) {
        // A worker that is gone has deleted its pod.
        let _ = self.commands.send(Command::Delete { grace });
    }

    /// Stops these containers if they run, and starts them again whatever their restart policy says and without a pause.
    pub fn restart(&self, containers: Vec<String>) {
        let _ = self.commands.send(Command::Restart { containers });
    }

    /// Takes another specification for the pod, which differs only in what can be changed while it runs. Containers
    /// whose image is another one are started anew; resources are changed as far as the node has them. Volumes show `objects`
    /// at once; containers that are started from now on have them in their environment.
    pub fn change(&self, pod: Arc<Pod>, objects: Arc<Objects>) {
        let _ = self.commands.send(Command::Change { pod, objects });
    }

    /// Adds an ephemeral container to the pod, which runs once beside the others. Whoever adds it has checked it; one whose
    /// name the pod has already is left out, and an event says so.
    pub fn debug(&self, container: EphemeralContainer) {
        let container = Box::new(container);
        let _ = self.commands.send(Command::Debug { container });
    }
}

/// A running worker. The worker goes on when this is dropped.
#[derive(Debug)]
pub struct PodHandle {
    commands: mpsc::UnboundedSender<Command>,
    /// How the pod is. The sender is gone once nothing of the pod is left, or the worker broke off.
    pub state: watch::Receiver<PodState>,
    logs: Option<oneshot::Sender<()>>,
    #[cfg(test)]
    worker: tokio::task::JoinHandle<()>,
}

impl PodHandle {
    /// Ends the pod and removes it. Asked again with a shorter grace period, it hurries; zero kills at once.
    pub fn delete(&self, grace: Option<Duration>) {
        self.control().delete(grace);
    }

    /// Tells the worker what to do from elsewhere.
    pub fn control(&self) -> PodControl {
        PodControl {
            commands: self.commands.clone(),
        }
    }

    /// Lets the pod's logs be removed with the pod: until this is called, or the handle is dropped, a pod of which
    /// nothing else is left waits in [`Stage::Removing`] or [`Stage::Gone`].
    pub fn release_logs(&mut self) {
        self.logs = None;
    }

    /// Ends the worker as the death of its daemon would.
    #[cfg(test)]
    async fn break_off(self) {
        self.worker.abort();
        let _ = self.worker.await;
    }

    /// Returns when nothing of the pod is left, with its last state.
    pub async fn gone(&mut self) -> PodState {
        while self.state.changed().await.is_ok() {}
        self.state.borrow().clone()
    }
}

pub use spawn::{SpawnError, spawn};
