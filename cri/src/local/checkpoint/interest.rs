//! Whether the caller of a checkpoint still waits for it: decided once, so that no file appears of which the caller has
//! heard that it failed.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Working,
    Abandoned,
    Published,
}

/// What the caller and the worker share.
#[derive(Clone, Debug)]
pub(super) struct Interest(watch::Sender<Stage>);

impl Interest {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Stage::Working))
    }

    /// The caller waits no longer. `false` if it is too late for that, and the result is there in a moment.
    pub(super) fn abandon(&self) -> bool {
        self.leave_working(Stage::Abandoned)
    }

    /// The result is about to be seen by all. `false` if nobody waits for it.
    pub(super) fn publish(&self) -> bool {
        self.leave_working(Stage::Published)
    }

    fn leave_working(&self, to: Stage) -> bool {
        self.0.send_if_modified(|stage| {
            let working = *stage == Stage::Working;
            if working {
                *stage = to;
            }
            working
        })
    }

    /// Whether the caller has gone.
    pub(super) fn is_lost(&self) -> bool {
        *self.0.borrow() == Stage::Abandoned
    }

    /// Waits for the caller to go.
    pub(super) async fn lost(&self) {
        let mut stage = self.0.subscribe();
        // The sender is this one, so that there is always one.
        let _ = stage.wait_for(|stage| *stage == Stage::Abandoned).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_decided_once() {
        let interest = Interest::new();
        assert!(!interest.is_lost());
        assert!(interest.publish());
        assert!(!interest.abandon() && !interest.is_lost());
        let interest = Interest::new();
        assert!(interest.abandon());
        assert!(interest.is_lost() && !interest.publish());
        interest.lost().await;
    }
}
