//! Waiting for a condition.

use std::time::{Duration, Instant};

/// How long anything may take before the test gives up: generous, for a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Waits up to [`PATIENCE`] for a value.
///
/// # Panics
/// Says what it waited for.
pub fn eventually<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    eventually_within(PATIENCE, what, condition)
}

/// Waits that long for a value.
///
/// # Panics
/// Says what it waited for.
pub fn eventually_within<T>(patience: Duration, what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "after {patience:?} still not so: {what}"
        );
        std::thread::sleep(LOOK_AGAIN);
    }
}
