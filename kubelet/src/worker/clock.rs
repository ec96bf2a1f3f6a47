//! The time, as the engine's records tell it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use berth_cri::UnixNanos;

/// Tells the time. Tests give one that follows tokio's paused clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixNanos + Send + Sync>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self::new(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
    }

    /// A clock of one's own.
    pub fn new(now: impl Fn() -> UnixNanos + Send + Sync + 'static) -> Self {
        Clock(Arc::new(now))
    }

    /// Nanoseconds since the Unix epoch.
    pub fn now(&self) -> UnixNanos {
        (self.0)()
    }

    /// How long it is until a moment; zero if it is over.
    pub fn until(&self, moment: UnixNanos) -> Duration {
        Duration::from_nanos(moment.saturating_sub(self.now()))
    }

    /// How long ago a moment was.
    pub fn since(&self, moment: UnixNanos) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(moment))
    }
}

impl std::fmt::Debug for Clock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}
