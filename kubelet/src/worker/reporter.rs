//! The voice of one pod's worker and its steps.

use tokio::sync::mpsc;

use super::clock::Clock;
use super::event::{EventReason, PodEvent};
use crate::identity::PodUid;

/// Sends a pod's events to whoever listens.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    pub(super) uid: PodUid,
    pub(super) clock: Clock,
    pub(super) events: mpsc::UnboundedSender<PodEvent>,
}

impl Reporter {
    /// Something happened to the pod.
    pub(super) fn pod(&self, reason: EventReason, message: impl Into<String>) {
        self.send(reason, None, message.into());
    }

    /// Something happened to a container.
    pub(super) fn container(&self, reason: EventReason, container: &str, message: impl Into<String>) {
        self.send(reason, Some(container.to_owned()), message.into());
    }

    fn send(&self, reason: EventReason, container: Option<String>, message: String) {
        let event = PodEvent {
            uid: self.uid.clone(),
            time: self.clock.now(),
            reason,
            container,
            message,
        };
        // Nobody need listen.
        let _ = self.events.send(event);
    }
}
