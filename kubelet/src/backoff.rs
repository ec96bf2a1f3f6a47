//! Pauses that double: 10 s, 20 s, 40 s, up to 300 s.
//!
//! How often a container was restarted in a row is written in its engine record, so that a restart of the daemon
//! forgets no pause.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cri::{ContainerStatus, UnixNanos};

use crate::defaults::{
    CONTAINER_BACKOFF_INITIAL, CONTAINER_BACKOFF_RESET, IMAGE_BACKOFF_INITIAL, MAX_CONTAINER_BACKOFF,
    MAX_IMAGE_BACKOFF,
};

/// The annotation of a container that holds how many restarts in a row led to it.
pub const RESTARTS_IN_A_ROW: &str = "berth.container.restarts-in-a-row";

/// The pause before the next start of a container that ended.
pub fn crash_delay(ended: &ContainerStatus) -> Duration {
    if ran_long(ended) {
        return Duration::ZERO;
    }
    // The first restart comes at once: upstream only begins to count with it.
    match restarts_in_a_row(&ended.config.annotations) {
        0 => Duration::ZERO,
        n => doubled(CONTAINER_BACKOFF_INITIAL, n - 1, MAX_CONTAINER_BACKOFF),
    }
}

/// What the container that comes after this one is to have as its [`RESTARTS_IN_A_ROW`].
pub fn next_in_a_row(ended: &ContainerStatus) -> u32 {
    if ran_long(ended) {
        1
    } else {
        restarts_in_a_row(&ended.config.annotations).saturating_add(1)
    }
}

/// The pause after an image could not be pulled this often in a row.
pub fn image_delay(failures: u32) -> Duration {
    doubled(
        IMAGE_BACKOFF_INITIAL,
        failures.saturating_sub(1),
        MAX_IMAGE_BACKOFF,
    )
}

fn restarts_in_a_row(annotations: &BTreeMap<String, String>) -> u32 {
    annotations
        .get(RESTARTS_IN_A_ROW)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn ran_long(ended: &ContainerStatus) -> bool {
    let began = if ended.started_at == 0 {
        ended.created_at
    } else {
        ended.started_at
    };
    nanos_between(began, ended.finished_at) > CONTAINER_BACKOFF_RESET
}

fn doubled(initial: Duration, times: u32, max: Duration) -> Duration {
    initial.saturating_mul(2_u32.saturating_pow(times)).min(max)
}

/// The time from one moment to a later one; none if it is not later.
pub fn nanos_between(from: UnixNanos, to: UnixNanos) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}

/// A moment and a while.
pub fn after(moment: UnixNanos, duration: Duration) -> UnixNanos {
    moment.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_pauses_double_to_five_minutes() {
        let seconds: Vec<u64> = (1..=8).map(|n| image_delay(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(image_delay(u32::MAX).as_secs(), 300);
    }
}
