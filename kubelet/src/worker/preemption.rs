//! Room for a critical pod: pods that end for it, and the pod that waits for their ends.

use tokio::sync::{mpsc, watch};

use super::PodState;
use super::event::EventReason;
use super::pod::Worker;
use crate::plan::{PREEMPTING, PodFailure};
use crate::status::has_ended;

/// Upstream's sentence.
const MESSAGE: &str = "Preempted in order to admit critical pod";

/// The pods that have to end before a critical one begins.
#[derive(Debug, Default)]
pub(super) struct Victims(Vec<watch::Receiver<PodState>>);

impl Victims {
    /// Tells `wake` when all of them have ended.
    pub(super) fn new(victims: Vec<watch::Receiver<PodState>>, wake: mpsc::UnboundedSender<()>) -> Self {
        if !victims.is_empty() {
            let mut left = victims.clone();
            tokio::spawn(async move {
                for victim in &mut left {
                    // A worker that is gone has ended its pod.
                    let _ = victim.wait_for(|state| has_ended(&state.status)).await;
                }
                let _ = wake.send(());
            });
        }
        Self(victims)
    }

    /// Whether any of them is still there.
    pub(super) fn remain(&mut self) -> bool {
        self.0
            .retain(|victim| victim.has_changed().is_ok() && !has_ended(&victim.borrow().status));
        !self.0.is_empty()
    }
}

impl Worker {
    /// Ends for a critical pod, with the grace period that the pod has.
    pub(super) fn preempt(&mut self) {
        self.fail_with(
            EventReason::Preempting,
            PodFailure {
                reason: PREEMPTING.to_owned(),
                message: MESSAGE.to_owned(),
                grace: None,
            },
        );
    }
}
