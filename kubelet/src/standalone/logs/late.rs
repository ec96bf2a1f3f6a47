//! When the log of a container that has ended is complete.

use std::future::pending;
use std::time::Duration;

use tokio::time::Instant;

/// Another runtime tells a container's end before it has written the last of what was in the pipes. A follower that has seen
/// the end come looks again until nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);
/// Something else may change all the time.
const LONGEST_DRAIN: Duration = Duration::from_secs(2);

/// Whether an ended container's log may still grow.
#[derive(Clone, Copy, Debug)]
pub(super) enum LateLines {
    /// It was complete when it was first looked at, or nothing has come for long enough.
    NoneExpected,
    /// The container has not ended yet.
    Expected,
    /// It has; nobody waits for its last lines after that.
    Until(Instant),
}

impl LateLines {
    pub(super) fn may_come(self) -> bool {
        match self {
            Self::NoneExpected => false,
            Self::Expected => true,
            Self::Until(end) => Instant::now() < end,
        }
    }

    /// Something has changed while the container ran, or after its end.
    pub(super) fn expect(&mut self, ended: bool) {
        *self = match *self {
            Self::Until(end) => Self::Until(end),
            _ if ended => Self::Until(Instant::now() + LONGEST_DRAIN),
            _ => Self::Expected,
        };
    }

    /// Resolves when nothing more is to be expected of a container that has ended.
    pub(super) async fn quiet(&mut self, ended: bool) {
        if !ended {
            return pending().await;
        }
        tokio::time::sleep(QUIET).await;
        *self = Self::NoneExpected;
    }
}
