//! Who writes into a pod's volumes and who removes them do not meet. Each pod for itself: a server that does not answer may
//! hold up the removal of one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::PodDir;

static OF_PODS: Mutex<BTreeMap<PathBuf, Weak<Mutex<()>>>> = Mutex::new(BTreeMap::new());

/// What is to be held while a pod's volumes are written to or removed.
pub(super) struct Presence(Arc<Mutex<()>>);

impl Presence {
    pub(super) fn of(dir: &PodDir) -> Self {
        let mut all = OF_PODS.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, one| one.strong_count() > 0);
        if let Some(known) = all.get(dir.path()).and_then(Weak::upgrade) {
            return Self(known);
        }
        let new = Arc::new(Mutex::new(()));
        all.insert(dir.path().to_owned(), Arc::downgrade(&new));
        Self(new)
    }

    pub(super) fn hold(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::identity::PodUid;

    #[test]
    fn one_pod_does_not_wait_for_another() {
        let dir = |uid: &str| PodDir::new(Path::new("/nonexistent"), &PodUid(uid.into()));
        let (one, again, other) = (
            Presence::of(&dir("a")),
            Presence::of(&dir("a")),
            Presence::of(&dir("b")),
        );
        let _held = one.hold();
        assert!(again.0.try_lock().is_err());
        assert!(other.0.try_lock().is_ok());
    }
}
