//! Pauses that grow: by upstream's numbers 10 s, 20 s, 40 s, up to 300 s.
//!
//! How often a container was restarted in a row is written in its engine record, so that a restart of the daemon
//! forgets no pause. The numbers of containers' pauses are the node's and may be the pod's; those of images are fixed.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use berth_cri::{ContainerStatus, UnixNanos};

use crate::defaults::{
    CONTAINER_BACKOFF_FACTOR, CONTAINER_BACKOFF_INITIAL, CONTAINER_BACKOFF_RESET, IMAGE_BACKOFF_INITIAL,
    MAX_CONTAINER_BACKOFF, MAX_IMAGE_BACKOFF,
};
use crate::duration::parse_duration;

/// The annotation of a container that holds how many restarts in a row led to it.
pub const RESTARTS_IN_A_ROW: &str = "berth.container.restarts-in-a-row";

/// The pauses between two runs of a container.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first pause. The first restart of all comes without one, as upstream's.
    pub initial: Duration,
    /// What each pause is of the one before it, at least 1.
    pub factor: f64,
    /// No pause is longer.
    pub max: Duration,
    /// A container that ran for longer than this begins again without a pause.
    pub reset: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff {
            initial: CONTAINER_BACKOFF_INITIAL,
            factor: CONTAINER_BACKOFF_FACTOR,
            max: MAX_CONTAINER_BACKOFF,
            reset: CONTAINER_BACKOFF_RESET,
        }
    }
}

impl Backoff {
    /// These pauses but for what `text` says: `initial=1s,factor=2,max=30s,reset=1m`, in any order, each at most once. A
    /// first pause that is longer than the longest one is an error if both are said, and else gives way to it.
    ///
    /// # Errors
    /// What is wrong with the text, without an end.
    pub fn with(self, text: &str) -> Result<Self, String> {
        let mut new = self;
        let mut seen = Vec::new();
        for entry in text.split(',').map(str::trim) {
            let (name, value) = entry
                .split_once('=')
                .ok_or_else(|| format!("{entry:?} is not like initial=10s"))?;
            if seen.contains(&name) {
                return Err(format!("{name:?} is there twice"));
            }
            match name {
                "initial" => new.initial = parse_duration(value)?,
                "max" => new.max = parse_duration(value)?,
                "reset" => new.reset = parse_duration(value)?,
                "factor" => new.factor = factor(value)?,
                other => return Err(format!("{other:?} is not initial, factor, max or reset")),
            }
            seen.push(name);
        }
        if new.initial > new.max {
            if seen.contains(&"initial") {
                return Err(format!(
                    "the first pause, {:?}, is longer than the longest, {:?}",
                    new.initial, new.max
                ));
            }
            new.initial = new.max;
        }
        Ok(new)
    }

    /// The pause before the next start of a container that ended.
    pub fn delay(self, ended: &ContainerStatus) -> Duration {
        if self.ran_long(ended) {
            return Duration::ZERO;
        }
        // The first restart comes at once: upstream only begins to count with it.
        match restarts_in_a_row(&ended.config.annotations) {
            0 => Duration::ZERO,
            n => grown(self.initial, self.factor, n - 1, self.max),
        }
    }

    /// What the container that comes after this one is to have as its [`RESTARTS_IN_A_ROW`].
    pub fn next_in_a_row(self, ended: &ContainerStatus) -> u32 {
        if self.ran_long(ended) {
            1
        } else {
            restarts_in_a_row(&ended.config.annotations).saturating_add(1)
        }
    }

    fn ran_long(self, ended: &ContainerStatus) -> bool {
        let began = if ended.started_at == 0 {
            ended.created_at
        } else {
            ended.started_at
        };
        nanos_between(began, ended.finished_at) > self.reset
    }
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::default().with(text)
    }
}

fn factor(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok();
    number
        .filter(|factor| (1.0..=100.0).contains(factor))
        .ok_or_else(|| format!("{text:?} is not a factor between 1 and 100"))
}

/// The pause after an image could not be pulled this often in a row.
pub fn image_delay(failures: u32) -> Duration {
    grown(
        IMAGE_BACKOFF_INITIAL,
        CONTAINER_BACKOFF_FACTOR,
        failures.saturating_sub(1),
        MAX_IMAGE_BACKOFF,
    )
}

/// How many restarts in a row led to a container, by its annotations.
pub fn restarts_in_a_row(annotations: &BTreeMap<String, String>) -> u32 {
    annotations
        .get(RESTARTS_IN_A_ROW)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn grown(initial: Duration, factor: f64, times: u32, max: Duration) -> Duration {
    let seconds = initial.as_secs_f64() * factor.powi(i32::try_from(times).unwrap_or(i32::MAX));
    // What is no duration (too long, or no number at all) is longer than any.
    Duration::try_from_secs_f64(seconds).map_or(max, |pause| pause.min(max))
}

/// The time from one moment to a later one; none if it is not later.
pub fn nanos_between(from: UnixNanos, to: UnixNanos) -> Duration {
    Duration::from_nanos(to.saturating_sub(from))
}

/// A moment and a while.
pub fn after(moment: UnixNanos, duration: Duration) -> UnixNanos {
    moment.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
}

/// The end of a pause that began at this moment, if it is still to come. A beginning that is still to come was told by a
/// clock that has been set back since. How much of the pause is over nobody knows then: a step back of no more than the pause makes
/// it that much longer, so that it is never shorter than it should be; after a longer one, which may be of hours, nobody waits.
pub fn pause_end(began: UnixNanos, pause: Duration, now: UnixNanos) -> Option<UnixNanos> {
    let end = after(began, pause);
    (now < end && began <= after(now, pause)).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn image_pauses_double_to_five_minutes() {
        let seconds: Vec<u64> = (1..=8).map(|n| image_delay(n).as_secs()).collect();
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(image_delay(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn pauses_grow_as_they_are_told() {
        let backoff: Backoff = "initial=100ms, factor=3,max=5s".parse().unwrap();
        let millis: Vec<u128> = (0..6)
            .map(|n| grown(backoff.initial, backoff.factor, n, backoff.max).as_millis())
            .collect();
        assert_eq!(millis, [100, 300, 900, 2700, 5000, 5000]);
        let even: Backoff = "initial=0s,factor=1".parse().unwrap();
        assert_eq!(
            grown(even.initial, even.factor, u32::MAX, even.max),
            Duration::ZERO
        );
        assert_eq!(grown(Duration::from_secs(1), 100.0, u32::MAX, even.max), even.max);
    }

    #[test]
    fn what_is_not_said_stays() {
        let node: Backoff = "max=1m,reset=2m".parse().unwrap();
        let pod = node.with("factor=1.5").unwrap();
        assert_eq!((pod.initial.as_secs(), pod.max.as_secs()), (10, 60));
        assert_eq!(node.with("max=2s").unwrap().initial, Duration::from_secs(2));
    }

    #[test]
    fn mistakes_are_sentences() {
        for (text, why) in [
            ("", "\"\" is not like initial=10s"),
            ("10s", "\"10s\" is not like initial=10s"),
            ("start=1s", "\"start\" is not initial, factor, max or reset"),
            ("max=1s,max=2s", "\"max\" is there twice"),
            ("factor=0.5", "\"0.5\" is not a factor between 1 and 100"),
            ("factor=NaN", "\"NaN\" is not a factor between 1 and 100"),
            (
                "initial=6m",
                "the first pause, 360s, is longer than the longest, 300s",
            ),
        ] {
            assert_eq!(text.parse::<Backoff>(), Err(why.to_owned()), "{text}");
        }
    }
    /// What counts is how long its program ran; of one that never did, how long it was there.
    #[test]
    fn a_long_run_ends_a_row() {
        const SECOND: u64 = 1_000_000_000;
        let backoff = Backoff::default();
        for (created, started, finished, delay, next) in [
            (100, 100, 700, 20, 3),
            (100, 100, 701, 0, 1),
            (100, 650, 701, 20, 3),
            (100, 0, 701, 0, 1),
            (900, 0, 901, 20, 3),
            (900, 900, 800, 20, 3),
        ] {
            let ended = ContainerStatus {
                created_at: created * SECOND,
                started_at: started * SECOND,
                finished_at: finished * SECOND,
                ..ended(2)
            };
            let found = (backoff.delay(&ended).as_secs(), backoff.next_in_a_row(&ended));
            assert_eq!(found, (delay, next), "{created} {started} {finished}");
        }
    }

    #[test]
    fn a_pause_that_began_far_in_the_future_is_over() {
        let minute = Duration::from_nanos(60);
        for (now, end) in [
            (39, None),
            (40, Some(160)),
            (99, Some(160)),
            (100, Some(160)),
            (159, Some(160)),
            (160, None),
            (500, None),
        ] {
            assert_eq!(pause_end(100, minute, now), end, "{now}");
        }
        assert_eq!(pause_end(100, Duration::ZERO, 100), None);
    }

    fn ended(in_a_row: u32) -> ContainerStatus {
        let annotation = (RESTARTS_IN_A_ROW.to_owned(), in_a_row.to_string());
        ContainerStatus {
            state: berth_cri::ContainerState::Exited,
            exit_code: 1,
            ..testing::created(berth_cri::ContainerConfig {
                annotations: [annotation].into(),
                ..testing::config("c", 0)
            })
        }
    }
}
