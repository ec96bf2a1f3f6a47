//! One worker for each pod, and what the pods of a node request together.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::record::Records;
use crate::identity::PodUid;
use crate::requests::Requests;
use crate::status::has_ended;

/// The pods of a node that have a worker, and what each requests. Between processes, a pod's name is locked by who runs it, and its
/// record tells whose UID it is.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Mutex<BTreeMap<PodUid, Requests>>>);

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
        all.insert(uid.clone(), Requests::default());
        Some(Sole {
            workers: self.clone(),
            uid: uid.clone(),
        })
    }

    /// What all other pods request that have not ended. Of those that other programs run, their records tell: one that can't be
    /// read counts nothing.
    pub(super) fn others(&self, records: &Records, own: &PodUid) -> Requests {
        let (here, sum) = {
            let all = self.lock();
            let others = all.iter().filter(|(uid, _)| *uid != own);
            let sum = others.fold(Requests::default(), |sum, (_, requests)| sum.plus(requests));
            (all.clone(), sum)
        };
        let elsewhere = records.uids().into_iter();
        let elsewhere = elsewhere.filter(|uid| !here.contains_key(uid) && uid != own);
        elsewhere
            .filter(|uid| !records.load_status(uid).is_some_and(|status| has_ended(&status)))
            .filter_map(|uid| records.load(&uid).ok()?)
            .fold(sum, |sum, record| sum.plus(&record.requests()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodUid, Requests>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sole {
    /// The pod requests this from now on.
    pub(super) fn requests(&self, requests: Requests) {
        self.workers.lock().insert(self.uid.clone(), requests);
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        self.workers.lock().remove(&self.uid);
    }
}
