//! How long a registry is waited for in all, however it spends that time.
//!
//! Each request has its own limits. A server that answers each just in time, or sends a byte now and then, keeps them all
//! and never ends; so the time that is spent waiting for it is added up, and counted anew when something came of it.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many bytes are progress.
const PROGRESS: u64 = 64 << 10;

/// The time that a pull has for its registry.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: Option<Duration>,
    spent: Mutex<Spent>,
}

impl Patience {
    /// Patience that ends after `limit` of waiting without progress; `None` is for ever.
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let spent = Spent::new(Instant::now());
        Self {
            limit,
            spent: Mutex::new(spent),
        }
    }

    /// Waits for what the registry does. Time that others need (the disk) is none of its.
    pub(crate) async fn wait<T>(&self, something: impl Future<Output = T>) -> T {
        let _waiting = Waiting::begin(self);
        something.await
    }

    /// So many bytes came.
    pub(crate) fn received(&self, bytes: usize) {
        self.spent().received(bytes as u64, Instant::now());
    }

    /// Something was finished.
    pub(crate) fn progressed(&self) {
        self.spent().begin_anew(Instant::now());
    }

    /// Ends when patience does: with the time that it was.
    pub(crate) async fn end(&self) -> Duration {
        let Some(limit) = self.limit else {
            return std::future::pending().await;
        };
        loop {
            let left = limit.saturating_sub(self.spent().until(Instant::now()));
            if left.is_zero() {
                return limit;
            }
            tokio::time::sleep(left).await;
        }
    }

    fn spent(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who waits, until dropped.
struct Waiting<'a>(&'a Patience);

impl<'a> Waiting<'a> {
    fn begin(patience: &'a Patience) -> Self {
        patience.spent().begin(Instant::now());
        Self(patience)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.spent().end(Instant::now());
    }
}

/// The time since there was progress.
#[derive(Debug)]
struct Spent {
    /// How many wait for something to come.
    waiting: usize,
    /// When the first of them began to.
    since: Instant,
    /// How long there was somebody before.
    before: Duration,
    /// What came meanwhile.
    bytes: u64,
}

impl Spent {
    fn new(now: Instant) -> Self {
        Self {
            waiting: 0,
            since: now,
            before: Duration::ZERO,
            bytes: 0,
        }
    }

    fn until(&self, now: Instant) -> Duration {
        match self.waiting {
            0 => self.before,
            _ => self.before + now.saturating_duration_since(self.since),
        }
    }

    fn begin(&mut self, now: Instant) {
        if self.waiting == 0 {
            self.since = now;
        }
        self.waiting += 1;
    }

    fn end(&mut self, now: Instant) {
        self.before = self.until(now);
        self.since = now;
        self.waiting -= 1;
    }

    fn received(&mut self, bytes: u64, now: Instant) {
        self.bytes += bytes;
        if self.bytes >= PROGRESS {
            self.begin_anew(now);
        }
    }

    fn begin_anew(&mut self, now: Instant) {
        self.since = now;
        self.before = Duration::ZERO;
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_secs(10);

    /// The longest time without progress when chunks of that size come, each after a step of waiting and one of unpacking.
    fn longest(chunk: u64) -> Duration {
        let mut now = Instant::now();
        let mut spent = Spent::new(now);
        let mut longest = Duration::ZERO;
        for _ in 0..100 {
            spent.begin(now);
            now += STEP;
            spent.end(now);
            longest = longest.max(spent.until(now));
            spent.received(chunk, now);
            now += STEP;
            longest = longest.max(spent.until(now));
        }
        longest
    }

    #[test]
    fn a_trickle_is_no_progress_and_slowness_is_some() {
        assert_eq!(longest(1), STEP * 100);
        assert_eq!(longest(PROGRESS / 4), STEP * 4);
        assert_eq!(longest(PROGRESS), STEP);
    }

    #[test]
    fn those_that_wait_at_once_wait_once() {
        let start = Instant::now();
        let mut spent = Spent::new(start);
        spent.begin(start);
        spent.begin(start + STEP);
        spent.end(start + STEP * 2);
        assert_eq!(spent.until(start + STEP * 3), STEP * 3);
        spent.end(start + STEP * 3);
        assert_eq!(spent.until(start + STEP * 9), STEP * 3);
        spent.begin_anew(start + STEP * 9);
        assert_eq!(spent.until(start + STEP * 10), Duration::ZERO);
    }
}
