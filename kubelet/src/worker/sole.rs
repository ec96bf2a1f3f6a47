//! One worker for each pod.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::identity::PodUid;

/// The pods of a node that have a worker. Between processes, a pod's name is locked by who runs it, and its record tells
/// whose UID it is.
#[derive(Clone, Debug, Default)]
pub struct Workers(Arc<Mutex<BTreeSet<PodUid>>>);

/// What a worker holds as long as it lives.
#[derive(Debug)]
pub(super) struct Sole {
    workers: Workers,
    uid: PodUid,
}

impl Workers {
    /// Takes the place of the pod's worker; `None` if it is taken.
    pub(super) fn take(&self, uid: &PodUid) -> Option<Sole> {
        self.lock().insert(uid.clone()).then(|| Sole {
            workers: self.clone(),
            uid: uid.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<PodUid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Sole {
    fn drop(&mut self) {
        self.workers.lock().remove(&self.uid);
    }
}
