//! Whether the OOM killer hit a container, from hints and counts.

use std::time::{Duration, Instant};

/// v1 gives its hint before the kill: looks after it, each later than the one before.
const RECHECKS: [Duration; 3] = [
    Duration::from_millis(5),
    Duration::from_millis(50),
    Duration::from_millis(500),
];

/// What is known of a container's OOM kills.
#[derive(Default)]
pub(crate) struct OomState {
    first: u64,
    seen: u64,
    rechecks_left: usize,
    next: Option<Instant>,
}

impl OomState {
    /// The count of a cgroup that is about to be used.
    pub(crate) fn starting_at(count: u64) -> Self {
        Self {
            first: count,
            seen: count,
            ..Self::default()
        }
    }

    /// Whether the count says that there were kills since the last look. After a hint that came too early it looks
    /// again later.
    pub(crate) fn check(&mut self, count: Option<u64>, hinted: bool, now: Instant) -> bool {
        if hinted {
            self.rechecks_left = RECHECKS.len();
        }
        let hit = count.is_some_and(|count| count > self.seen);
        self.seen = self.seen.max(count.unwrap_or(0));
        if hit {
            self.rechecks_left = 0;
        }
        self.next = RECHECKS
            .iter()
            .rev()
            .nth(self.rechecks_left.wrapping_sub(1))
            .map(|pause| now + *pause);
        self.rechecks_left = self.rechecks_left.saturating_sub(1);
        hit
    }

    /// When to look again without a hint.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Whether there was any kill, by the last count that there will be.
    pub(crate) fn was_ever_hit(&self, count: Option<u64>) -> bool {
        count.unwrap_or(self.seen).max(self.seen) > self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_that_comes_before_the_kill_is_followed_up() {
        let now = Instant::now();
        let mut oom = OomState::starting_at(3);
        assert!(!oom.check(Some(3), true, now));
        assert_eq!(oom.deadline(), Some(now + RECHECKS[0]));
        assert!(!oom.check(Some(3), false, now));
        assert_eq!(oom.deadline(), Some(now + RECHECKS[1]));
        assert!(oom.check(Some(4), false, now));
        assert_eq!(oom.deadline(), None);
        assert!(oom.was_ever_hit(None));
    }

    #[test]
    fn a_hint_without_a_kill_is_let_go() {
        let now = Instant::now();
        let mut oom = OomState::starting_at(0);
        oom.check(Some(0), true, now);
        for _ in RECHECKS {
            assert!(oom.deadline().is_some());
            assert!(!oom.check(Some(0), false, now));
        }
        assert_eq!(oom.deadline(), None);
        assert!(!oom.was_ever_hit(Some(0)));
    }
}
