//! Processor time per second, from readings of a counter.

use std::time::{Duration, Instant};

/// A rate is over at least this long: over less, the kernel's own steps show.
const SHORTEST: Duration = Duration::from_secs(1);
/// A reading that is older says nothing about now.
const LONGEST: Duration = Duration::from_secs(120);

/// The last two readings of a counter of nanoseconds. Any number of callers may read as often as they like: a reading
/// is kept only if the one before is [`SHORTEST`] old, so that nobody shortens another's window.
#[derive(Debug, Default)]
pub(super) struct Rate {
    older: Option<Reading>,
    newer: Option<Reading>,
}

#[derive(Clone, Copy, Debug)]
struct Reading {
    at: Instant,
    used: u64,
}

impl Rate {
    /// Takes a reading, and tells the nanoseconds of processor time per second since an earlier one; `None` while there
    /// is none to compare with. `age` is how long ago the counter was zero, if that is known.
    pub(super) fn take(&mut self, at: Instant, used: u64, age: Option<Duration>) -> Option<u64> {
        let now = Reading { at, used };
        // Another group took the place of the one before.
        if self.newer.is_some_and(|newer| used < newer.used) {
            *self = Self::default();
        }
        if self.newer.is_none() {
            self.newer = age
                .and_then(|age| at.checked_sub(age))
                .map(|began| Reading { at: began, used: 0 });
        }
        let since = [self.newer, self.older]
            .into_iter()
            .flatten()
            .find(|reading| (SHORTEST..=LONGEST).contains(&now.since(reading)));
        let keep = self.newer.is_none_or(|newer| now.since(&newer) >= SHORTEST);
        if keep {
            self.older = self.newer.replace(now);
        }
        since.map(|reading| per_second(used - reading.used, now.since(&reading)))
    }
}

impl Reading {
    fn since(&self, earlier: &Self) -> Duration {
        self.at.saturating_duration_since(earlier.at)
    }
}

fn per_second(used: u64, over: Duration) -> u64 {
    let rate = u128::from(used) * 1_000_000_000 / over.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Readings at (milliseconds, milliseconds of processor time), and the rates in thousandths of a processor.
    fn rates(readings: &[(u64, u64)]) -> Vec<Option<u64>> {
        let begin = Instant::now();
        let mut rate = Rate::default();
        let take = |&(at, used): &(u64, u64)| {
            let taken = rate.take(begin + Duration::from_millis(at), used * MS, None);
            taken.map(|nanos| nanos / MS)
        };
        readings.iter().map(take).collect()
    }

    #[test]
    fn between_two_readings() {
        assert_eq!(
            rates(&[(0, 500), (10_000, 5500), (20_000, 5500)]),
            [None, Some(500), Some(0)]
        );
        assert_eq!(
            rates(&[(0, 0), (2000, 6000)]),
            [None, Some(3000)],
            "three processors"
        );
    }

    #[test]
    fn frequent_callers_do_not_shorten_the_window() {
        let readings = [
            (0, 0),
            (400, 400),
            (1000, 1000),
            (1400, 1000),
            (1800, 1000),
            (2000, 1000),
        ];
        let expected = [None, None, Some(1000), Some(714), Some(555), Some(0)];
        assert_eq!(rates(&readings), expected);
    }

    #[test]
    fn what_is_old_or_of_another_group_does_not_count() {
        assert_eq!(
            rates(&[(0, 0), (200_000, 1000), (201_000, 1500)]),
            [None, None, Some(500)]
        );
        assert_eq!(
            rates(&[(0, 9000), (5000, 100), (6000, 200)]),
            [None, None, Some(100)]
        );
    }

    #[test]
    fn a_beginning_is_a_reading() {
        let now = Instant::now() + Duration::from_secs(600);
        let first = |age: u64| Rate::default().take(now, 1000 * MS, Some(Duration::from_secs(age)));
        assert_eq!(first(4), Some(250 * MS));
        assert_eq!(first(0), None);
        assert_eq!(
            first(500),
            None,
            "an average over so long is not what it uses now"
        );
    }
}
