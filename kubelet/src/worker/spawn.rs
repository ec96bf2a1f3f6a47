//! How a pod comes to have a worker: its record is written or read first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use berth_cri::EngineEvent;
use tokio::sync::{mpsc, oneshot, watch};

use super::announce::Announcer;
use super::event::{EventReason, PodEvent};
use super::gates::tell_of_gates;
use super::inbox::Inbox;
use super::memory::Memory;
use super::pod::Worker;
use super::preemption::Victims;
use super::record::{PodRecord, Records};
use super::reporter::Reporter;
use super::room::RoomWatch;
use super::sole::Reach;
use super::storage::StorageWatch;
use super::tasks::Tasks;
use super::{Node, PodHandle, PodState};
use crate::admission::{Rejection, Verdict};
use crate::plan::{Desired, NodeFacts, Stage};
use crate::user_ids::{ClaimError, Claims, UserIds, wants_own};
use crate::volumes::PodDir;
use crate::{admission, spec};

/// Why a pod can't be taken on.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its record can't be read or written.
    #[error("The record of pod {pod} can't be kept: {source}.")]
    Record {
        /// The pod.
        pod: String,
        /// Why.
        source: std::io::Error,
    },
    /// It gets no ids of its own (`hostUsers: false`).
    #[error("Pod {pod} can't have users of its own: {source}.")]
    UserIds {
        /// The pod.
        pod: String,
        /// Why.
        source: ClaimError,
    },
    /// There is a worker for it already.
    #[error("Pod {0} is being run already.")]
    Running(String),
    /// Its UID is another pod's.
    #[error("Pod {pod} has the UID of pod {other}; give it another metadata.uid, or none.")]
    Uid {
        /// The pod.
        pod: String,
        /// The one that has a record.
        other: String,
    },
    /// Another runtime runs it.
    #[error("Pod {pod} is run by {}, not by {}; end it there first: berth stop finds the way.", runtime(.theirs), runtime(.ours))]
    Runtime {
        /// The pod.
        pod: String,
        /// The endpoint of the runtime that runs it; `None` is the built-in one.
        theirs: Option<String>,
        /// The endpoint of this node's runtime.
        ours: Option<String>,
    },
}

fn runtime(endpoint: &Option<String>) -> String {
    match endpoint {
        Some(endpoint) => format!("the runtime at {endpoint}"),
        None => "the built-in runtime".to_owned(),
    }
}

/// Takes a pod on: writes its record, then starts its worker. A pod that has a record is adopted with all that is there
/// of it. `engine_events` are the pod's, from before this call; `events` is told what happens.
pub fn spawn(
    node: Arc<Node>,
    mut desired: Desired,
    engine_events: mpsc::UnboundedReceiver<EngineEvent>,
    events: mpsc::UnboundedSender<PodEvent>,
) -> Result<PodHandle, SpawnError> {
    let sole = node.workers.take(&desired.uid);
    let sole = sole.ok_or_else(|| SpawnError::Running(spec::describe(&desired.pod)))?;
    let records = Records::new(&node.kubelet_root);
    let failed = |source| SpawnError::Record {
        pod: spec::describe(&desired.pod),
        source,
    };
    let known = records.load(&desired.uid).map_err(failed)?;
    let is_known = known.is_some();
    let mut record = known.unwrap_or_else(|| {
        let cgroup_root = node.facts.cgroup_root.clone();
        let mut record = PodRecord::new(desired.pod.as_ref().clone(), node.clock.now(), cgroup_root);
        record.runtime_endpoint.clone_from(&node.runtime_endpoint);
        record
    });
    let is_gated = spec::is_gated(&desired.pod);
    let is_lifted = is_known && !is_gated && spec::is_gated(&record.pod);
    if is_lifted {
        record.pod = desired.pod.as_ref().clone();
        record.ungated_at = Some(node.clock.now());
    }
    let mut rejected = None;
    let mut victims = Vec::new();
    if is_lifted || !(is_known || is_gated) {
        let others = || node.workers.others(&records, &desired.uid);
        match admission::verdict(&desired.pod, &node.facts, others) {
            Verdict::Admitted { after } => victims = after,
            Verdict::Rejected(rejection) => rejected = Some(rejection),
        }
        let failure = rejected.as_ref().map(Rejection::failure);
        record.failed = failure.map(|failure| (node.clock.now(), failure));
    }
    if record.failed.is_none() {
        // From now on, not from its first status: the next pod may be admitted before that.
        sole.has(record.share());
    }
    let full_name = |pod| (spec::namespace(pod).to_owned(), spec::name(pod).to_owned());
    if full_name(&record.pod) != full_name(&desired.pod) {
        return Err(SpawnError::Uid {
            pod: spec::describe(&desired.pod),
            other: spec::describe(&record.pod),
        });
    }
    if record.runtime_endpoint != node.runtime_endpoint {
        // Nothing of it would be found here, and it would be taken for gone.
        return Err(SpawnError::Runtime {
            pod: spec::describe(&desired.pod),
            theirs: record.runtime_endpoint,
            ours: node.runtime_endpoint.clone(),
        });
    }
    if record.cgroup_root != desired.node.cgroup_root {
        // The pod stays in the cgroup that it was made in.
        let cgroup_root = record.cgroup_root.clone();
        desired.node = Arc::new(NodeFacts {
            cgroup_root,
            ..desired.node.as_ref().clone()
        });
    }
    desired.deletion = desired.deletion.or_else(|| record.deletion());
    record.set_deletion(desired.deletion);
    records.save(&record).map_err(failed)?;
    desired.pod = spec::with_added(desired.pod, &record.pod);
    desired.user_ids = user_ids(&node, &desired, &records, &mut record)?;
    let (commands, command_receiver) = mpsc::unbounded_channel();
    let first = PodState {
        pod: Arc::clone(&desired.pod),
        status: k8s_openapi::api::core::v1::PodStatus::default(),
        stage: Stage::Syncing,
    };
    let (state, state_receiver) = watch::channel(first);
    let (logs, logs_released) = oneshot::channel();
    let (probe_sender, probe_reports) = mpsc::unbounded_channel();
    let reporter = Reporter {
        uid: desired.uid.clone(),
        clock: node.clock.clone(),
        events,
    };
    let (storage, exceeded) = StorageWatch::new(&desired.pod);
    let (room, room_changes) = RoomWatch::new();
    sole.reached_by(Reach {
        commands: commands.clone(),
        state: state_receiver.clone(),
    });
    // Its record is there: should this program die now, the pod comes when it is back.
    let victims = Victims::new(node.workers.preempt(&victims), room.sender());
    if let Some(rejection) = rejected {
        let message = rejection.event();
        reporter.pod(EventReason::Rejected(rejection.reason.into()), message);
    }
    tell_of_gates(&reporter, &desired);
    let worker = Worker {
        recalled: records.load_status(&desired.uid),
        dir: PodDir::new(&node.kubelet_root, &desired.uid),
        memory: Memory::recall(&record),
        node,
        desired,
        records,
        record,
        tasks: Tasks::default(),
        probes: BTreeMap::new(),
        probe_sender,
        inbox: Inbox {
            engine: Some(engine_events),
            commands: Some(command_receiver),
            probes: probe_reports,
            exceeded,
            room: room_changes,
        },
        storage,
        room,
        doubtful_images: BTreeSet::new(),
        state,
        reporter,
        announcer: Announcer::default(),
        adopted: false,
        restart_asked: BTreeSet::new(),
        refresh_due: false,
        refreshes: Arc::default(),
        logs_released: Some(logs_released),
        sole,
        victims,
    };
    let _task = tokio::spawn(worker.run());
    Ok(PodHandle {
        commands,
        state: state_receiver,
        logs: Some(logs),
        #[cfg(test)]
        worker: _task,
    })
}

/// The ids of a pod that has its own: those of its record, or else new ones. The record is on the disk before they are
/// claimed, and says them before anything uses them.
fn user_ids(
    node: &Node,
    desired: &Desired,
    records: &Records,
    record: &mut PodRecord,
) -> Result<Option<UserIds>, SpawnError> {
    let ends = desired.deletion.is_some() || record.failed.is_some();
    if !wants_own(&desired.pod) || (ends && record.user_ids.is_none()) {
        return Ok(None);
    }
    let claims = Claims::new(&node.kubelet_root);
    if let Some(ids) = record.user_ids {
        return match claims.keep(&desired.uid, ids) {
            Err(source) if !ends => Err(SpawnError::UserIds {
                pod: spec::describe(&desired.pod),
                source,
            }),
            _ => Ok(Some(ids)),
        };
    }
    match claims.claim(&desired.uid) {
        Ok(ids) => record.user_ids = Some(ids),
        Err(source) => {
            // Nothing was made of it.
            let _ = records.remove(&desired.uid);
            return Err(SpawnError::UserIds {
                pod: spec::describe(&desired.pod),
                source,
            });
        }
    }
    records.save(record).map_err(|source| SpawnError::Record {
        pod: spec::describe(&desired.pod),
        source,
    })?;
    Ok(record.user_ids)
}
