//! `berth run`: pods in the foreground, without an API server.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use berth_cri::Engine;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use super::control::{Listener, Owned};
use super::detached::Detached;
use super::inspect::{InspectError, Places};
use super::journal::Journal;
use super::lock::{LockError, PodLock};
use super::printer::Printer;
use super::session::{Patience, Session, exit_code};
use super::{facts, signals};
use crate::admission::{AllowedSysctls, ExtendedResources, NodeLabels};
use crate::backoff::Backoff;
use crate::identity::PodUid;
use crate::plan::{Deletion, Desired, Objects};
use crate::pulls::Pulls;
use crate::spec;
use crate::worker::{
    Clock, EventRouter, HostCgroups, NoCgroups, Node, PodCgroups, PodControl, PodRecord, PodState, Records,
    SpawnError, Workers, spawn,
};

/// The machine's side of a standalone node.
pub struct Host {
    /// What runs the containers.
    pub engine: Arc<dyn Engine>,
    /// Where the runtime listens that is behind the engine; `None` for the built-in one.
    pub runtime_endpoint: Option<String>,
    /// Where pods' directories and records are.
    pub kubelet_root: PathBuf,
    /// Where containers' logs are.
    pub log_root: PathBuf,
    /// What is gone after a reboot: sockets.
    pub run_root: PathBuf,
    /// The cgroup under which `kubepods` is.
    pub cgroup_root: PathBuf,
    /// The pauses between two runs of a container.
    pub restart_backoff: Backoff,
    /// Kernel parameters that pods may set, beside the safe ones.
    pub allowed_sysctls: AllowedSysctls,
    /// What the node has beside processors, memory and storage.
    pub extended_resources: ExtendedResources,
    /// How many pods may be here together; `None` is any number.
    pub max_pods: Option<u32>,
    /// Labels that the node has beside those of every machine.
    pub node_labels: NodeLabels,
    /// Nobody here may make control groups: pods run without limits.
    pub without_cgroups: bool,
    /// Controllers that the control groups here don't have.
    pub lacking: crate::Lacking,
}

/// Pods to run and what they refer to; defaulted, validated, with UIDs.
#[derive(Clone, Debug, Default)]
pub struct Workload {
    /// The pods.
    pub pods: Vec<Pod>,
    /// Their ConfigMaps and Secrets.
    pub objects: Objects,
}

impl Workload {
    /// The images that the pods' containers name.
    pub fn images(&self) -> BTreeSet<&str> {
        let containers = self.pods.iter().flat_map(spec::all_containers);
        containers
            .filter_map(|(container, _)| container.image.as_deref())
            .collect()
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What the command is to end with.
    pub exit_code: u8,
    /// The pods with their last status, in the order of the manifests.
    pub pods: Vec<Pod>,
}

/// Why pods can't be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A pod is another program's.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A pod can't be taken on.
    #[error(transparent)]
    Spawn(#[from] SpawnError),
    /// The records of earlier pods can't be read.
    #[error("The records of earlier pods in {} can't be read: {source}.", path.display())]
    Records {
        /// The kubelet directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No socket can be made for those who ask about the pods.
    #[error("The socket in {} that others reach this process by can't be made: {source}.", path.display())]
    Listen {
        /// The run directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kernel refused.
    #[error("Signals can't be taken: {0}.")]
    Signals(std::io::Error),
    /// The pod to end can't be found.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// A pod's worker broke off.
    #[error("The worker of a pod broke off: {0}.")]
    Worker(tokio::task::JoinError),
}

/// Runs pods until they end or the person at the terminal ends them. Nothing of them is left then.
pub async fn run(host: Host, workload: Workload) -> Result<Ended, RunError> {
    let standalone = Standalone::new(host, workload).await?;
    // Taken before anything is made: another program's pod is left alone.
    let _locks = standalone.lock()?;
    standalone.end_predecessors().await?;
    let states = standalone.run_pods().await?;
    Ok(standalone.ended(&states))
}

/// Ends a pod that a dead program left. A pod that is run by a living one is that one's to end.
pub async fn stop(host: Host, pod: &str, grace: Option<Duration>) -> Result<(), RunError> {
    let places = Places {
        kubelet_root: host.kubelet_root.clone(),
        log_root: host.log_root.clone(),
        run_root: host.run_root.clone(),
    };
    let (record, _) = places.find(pod)?;
    let workload = Workload {
        pods: vec![record.pod.clone()],
        objects: Objects::default(),
    };
    let standalone = Standalone::new(host, workload).await?;
    let _locks = standalone.lock()?;
    standalone.end(record, grace)?.await;
    Ok(())
}

struct Standalone {
    node: Arc<Node>,
    owned: Arc<Owned>,
    _listener: Listener,
    workload: Workload,
    objects: Arc<Objects>,
    router: EventRouter,
    printer: Arc<Printer>,
    patience: watch::Receiver<Patience>,
    /// Draws how images come.
    drawing: Option<JoinHandle<()>>,
}

impl Drop for Standalone {
    fn drop(&mut self) {
        if let Some(drawing) = &self.drawing {
            drawing.abort();
        }
        self.printer.finish();
    }
}

impl Standalone {
    async fn new(host: Host, workload: Workload) -> Result<Self, RunError> {
        let containers = workload.pods.iter().flat_map(|pod| {
            spec::all_containers(pod).map(|(container, _)| (spec::name(pod), container.name.as_str()))
        });
        let printer = Arc::new(Printer::new(containers, workload.pods.len() > 1));
        let patience = signals::listen(Arc::clone(&printer)).map_err(RunError::Signals)?;
        let router = EventRouter::start(host.engine.as_ref());
        let objects = Arc::new(workload.objects.clone());
        let run_root = host.run_root.clone();
        let node = Arc::new(node(host).await);
        let drawing = printer.bars.clone().map(|bars| {
            let frames = node.pulls.frames();
            tokio::spawn(async move { bars.show_frames(frames).await })
        });
        let owned = Arc::new(Owned::new(Arc::clone(&node), None));
        // Before any lock is taken: a pod's lock leads here.
        let _listener =
            Listener::start(&run_root, Arc::clone(&owned)).map_err(|source| RunError::Listen {
                path: run_root,
                source,
            })?;
        Ok(Standalone {
            node,
            owned,
            _listener,
            workload,
            objects,
            router,
            printer,
            patience,
            drawing,
        })
    }

    fn lock(&self) -> Result<Vec<PodLock>, LockError> {
        // In one order, so that two programs with the same pods don't each hold one of them.
        let names: BTreeSet<_> = self
            .workload
            .pods
            .iter()
            .map(|pod| (spec::namespace(pod), spec::name(pod)))
            .collect();
        let take = |(namespace, name)| PodLock::take(&self.node.kubelet_root, namespace, name);
        names.into_iter().map(take).collect()
    }

    /// Ends pods of the same names and other manifests, whose programs are dead.
    async fn end_predecessors(&self) -> Result<(), RunError> {
        let root = &self.node.kubelet_root;
        let records = Records::new(root).list().map_err(|source| RunError::Records {
            path: root.clone(),
            source,
        })?;
        let mut sessions = JoinSet::new();
        for record in records {
            let same_name = |pod: &&Pod| {
                spec::name(pod) == spec::name(&record.pod)
                    && spec::namespace(pod) == spec::namespace(&record.pod)
            };
            let Some(successor) = self.workload.pods.iter().find(same_name) else {
                continue;
            };
            // One that was changed while it ran is not what the file says any more.
            let is_as_made = record.pod.metadata.generation == successor.metadata.generation;
            let is_same = successor.metadata.uid == record.pod.metadata.uid && is_as_made;
            if is_same && record.deletion().is_none() {
                continue;
            }
            let name = spec::name(&record.pod);
            self.printer.note(&format!(
                "{name}: an earlier pod of that name is left from a berth that died; ending it first"
            ));
            sessions.spawn(self.end(record, None)?);
        }
        while sessions.join_next().await.is_some() {}
        Ok(())
    }

    async fn run_pods(&self) -> Result<Vec<PodState>, RunError> {
        let mut sessions = JoinSet::new();
        for (index, pod) in self.workload.pods.iter().enumerate() {
            let uid = PodUid(pod.metadata.uid.clone().unwrap_or_default());
            let desired = Desired {
                pod: Arc::new(pod.clone()),
                uid,
                objects: Arc::clone(&self.objects),
                node: Arc::clone(&self.node.facts),
                user_ids: None,
                deletion: None,
            };
            let (session, control) = self.session(desired)?;
            // It was the daemon's, perhaps, and is not from now on.
            Detached::new(&self.node.kubelet_root).remove(&session.uid);
            self.owned.keep(session.uid.clone(), Arc::clone(&self.objects));
            self.owned
                .add(session.uid.clone(), Arc::new(pod.clone()), Some(control));
            sessions.spawn(async move { (index, session.run().await) });
        }
        let mut states = Vec::new();
        while let Some(ended) = sessions.join_next().await {
            states.push(ended.map_err(RunError::Worker)?);
        }
        states.sort_by_key(|(index, _)| *index);
        Ok(states.into_iter().map(|(_, state)| state).collect())
    }

    fn ended(&self, states: &[PodState]) -> Ended {
        let interrupted = *self.patience.borrow() != Patience::Run;
        let first_failure = states
            .iter()
            .map(|state| exit_code(&state.status))
            .find(|&code| code != 0);
        let pods = states.iter().map(|state| {
            let mut pod = state.pod.as_ref().clone();
            pod.status = Some(state.status.clone());
            pod
        });
        Ended {
            exit_code: first_failure.filter(|_| !interrupted).unwrap_or(0),
            pods: pods.collect(),
        }
    }

    /// Takes a pod on, in the foreground.
    fn session(&self, desired: Desired) -> Result<(Session, PodControl), SpawnError> {
        let (sender, events) = mpsc::unbounded_channel();
        let uid = desired.uid.clone();
        let name = spec::name(&desired.pod).to_owned();
        let journal = Journal::of(&self.node, &desired);
        let engine_events = self.router.subscribe(&uid);
        let handle = spawn(Arc::clone(&self.node), desired, engine_events, sender)?;
        let mut patience = self.patience.clone();
        // What came before this pod counts for it, too.
        if *patience.borrow() != Patience::Run {
            patience.mark_changed();
        }
        let control = handle.control();
        let session = Session {
            name,
            uid,
            engine: Arc::clone(&self.node.engine),
            printer: Arc::clone(&self.printer),
            journal,
            handle,
            events,
            patience,
            followers: JoinSet::new(),
            followed: BTreeSet::new(),
            shown: Arc::default(),
        };
        Ok((session, control))
    }

    /// Takes a pod on that has only a record, and ends it. One that was the daemon's does not come back with the next one,
    /// wherever this is cut off.
    fn end(
        &self,
        record: PodRecord,
        grace: Option<Duration>,
    ) -> Result<impl Future<Output = PodState> + Send + use<>, RunError> {
        let (uid, detached) = (record.uid(), Detached::new(&self.node.kubelet_root));
        let (session, _) = self.session(ending(&self.node, record, grace))?;
        detached.end(&uid).map_err(|source| RunError::Records {
            path: self.node.kubelet_root.clone(),
            source,
        })?;
        Ok(async move {
            let state = session.run().await;
            detached.remove(&uid);
            state
        })
    }
}

/// The node's side of workers on this host.
pub(super) async fn node(host: Host) -> Node {
    let facts = facts::gather(&host).await;
    let cgroups: Arc<dyn PodCgroups> = if facts.without_cgroups {
        Arc::new(NoCgroups)
    } else {
        Arc::new(HostCgroups::new(&host.kubelet_root))
    };
    Node {
        runtime_endpoint: host.runtime_endpoint,
        cgroups,
        engine: host.engine,
        kubelet_root: host.kubelet_root,
        facts: Arc::new(facts),
        clock: Clock::system(),
        pulls: Pulls::default(),
        workers: Workers::default(),
    }
}

/// A pod that has only a record, as it is taken on to be ended.
pub(super) fn ending(node: &Node, record: PodRecord, grace: Option<Duration>) -> Desired {
    let deletion = match record.deletion() {
        // Who only goes on with it asks for nothing.
        Some(last) if grace.is_none() => last,
        Some(last) => last.asked_again(grace, &record.pod),
        None => Deletion {
            requested_at: node.clock.now(),
            grace,
        },
    };
    Desired {
        uid: record.uid(),
        user_ids: None,
        deletion: Some(deletion),
        pod: Arc::new(record.pod),
        objects: Arc::new(Objects::default()),
        node: Arc::clone(&node.facts),
    }
}
