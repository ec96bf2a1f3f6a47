//! One worker for each pod, and what the pods of a node have together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, watch};

use super::record::Records;
use super::{Command, PodState};
use crate::admission::Share;
use crate::identity::PodUid;
use crate::requests::Requests;
use crate::status::has_ended;

/// The pods of a node that have a worker, and what each has of the node: nothing before its admission and after its end. Between
/// processes, a pod's name is locked by who runs it, and its record tells whose UID it is.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Mutex<BTreeMap<PodUid, Place>>>);

/// A pod's place among the others.
#[derive(Clone, Debug, Default)]
struct Place {
    share: Option<Share>,
    reach: Option<Reach>,
}

/// How a pod's worker is told to make room, and how its end is seen.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub(super) commands: mpsc::UnboundedSender<Command>,
    pub(super) state: watch::Receiver<PodState>,
}

/// What a worker holds as long as it lives.
#[derive(Debug)]
pub(super) struct Sole {
    workers: Workers,
    uid: PodUid,
}

impl Workers {
    /// Takes the place of the pod's worker; `None` if it is taken.
    pub(super) fn take(&self, uid: &PodUid) -> Option<Sole> {
        let mut all = self.lock();
        if all.contains_key(uid) {
            return None;
        }
        all.insert(uid.clone(), Place::default());
        Some(Sole {
            workers: self.clone(),
            uid: uid.clone(),
        })
    }

    /// What all other pods have that have not ended.
    pub(super) fn others(&self, records: &Records, own: &PodUid) -> Vec<Share> {
        let mut all = Vec::new();
        self.each_other(records, own, |share, may_be_ended| {
            all.push(Share {
                may_be_ended,
                ..share.clone()
            })
        });
        all
    }

    /// What all other pods request that have not ended.
    pub(super) fn requested(&self, records: &Records, own: &PodUid) -> Requests {
        let mut sum = Requests::default();
        self.each_other(records, own, |share, _| {
            sum = std::mem::take(&mut sum).plus(&share.requests);
        });
        sum
    }

    /// Each with whether it may be ended. Of pods that other programs run, their records tell: one that can't be read counts
    /// nothing.
    fn each_other(&self, records: &Records, own: &PodUid, mut see: impl FnMut(&Share, bool)) {
        let here: BTreeSet<PodUid> = {
            let all = self.lock();
            let others = all.iter().filter(|(uid, _)| *uid != own);
            for (_, place) in others {
                if let Some(share) = &place.share {
                    see(share, place.reach.is_some());
                }
            }
            all.keys().cloned().collect()
        };
        let elsewhere = records.uids().into_iter();
        elsewhere
            .filter(|uid| !here.contains(uid) && uid != own)
            .filter(|uid| !records.load_status(uid).is_some_and(|status| has_ended(&status)))
            .filter_map(|uid| records.load(&uid).ok()??.share())
            .for_each(|share| see(&share, false));
    }

    /// Has pods end for a more important one; what tells of their ends.
    pub(super) fn preempt(&self, victims: &[PodUid]) -> Vec<watch::Receiver<PodState>> {
        let all = self.lock();
        let reached = victims.iter().filter_map(|uid| all.get(uid)?.reach.as_ref());
        // A worker that is gone has ended its pod.
        let told = reached.filter(|reach| reach.commands.send(Command::Preempt).is_ok());
        told.map(|reach| reach.state.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sole {
    /// The pod has this of the node from now on.
    pub(super) fn has(&self, share: Option<Share>) {
        if let Some(place) = self.workers.lock().get_mut(&self.uid) {
            place.share = share;
        }
    }

    /// The pod can be told to make room from now on.
    pub(super) fn reached_by(&self, reach: Reach) {
        if let Some(place) = self.workers.lock().get_mut(&self.uid) {
            place.reach = Some(reach);
        }
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        self.workers.lock().remove(&self.uid);
    }
}
