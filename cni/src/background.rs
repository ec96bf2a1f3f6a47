//! Work that nobody waits for.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// Threads that finish what has no more effect on anybody. Dropping it waits for them.
#[derive(Debug, Default)]
pub(crate) struct Background {
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Background {
    /// Does the work on a thread of its own, which is in the caller's network namespace; here, if there can be no thread.
    pub(crate) fn run(&self, work: impl Fn() + Send + Clone + 'static) {
        let worker = thread::Builder::new().name("cni".into()).spawn(work.clone());
        let mut running = self.running();
        running.retain(|thread| !thread.is_finished());
        match worker {
            Ok(thread) => running.push(thread),
            Err(_) => work(),
        }
    }

    /// Waits for all of it.
    pub(crate) fn finish(&self) {
        let running = std::mem::take(&mut *self.running());
        for thread in running {
            // One that has panicked has said so.
            let _ = thread.join();
        }
    }

    fn running(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.finish();
    }
}
