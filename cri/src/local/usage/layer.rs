//! How much a container has written into its writable layer.
//!
//! A layer is walked in the background, one at a time, and only when somebody asks for it and the last count is old: a list
//! call with hundreds of containers tells what is known, and no walk is made for nobody.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::super::disk::{self, Usage};
use super::super::{Container, lock, now};
use crate::types::UnixNanos;

/// A count is good for this long: a little less than the ten seconds (containerd's `stats_collect_period`) after which callers
/// ask again, so that each call has a new one made…
const FRESH: Duration = Duration::from_secs(9);
/// …and for this many times what it took: a layer of a million files is not walked without end.
const REST: u32 = 20;
/// A call that would have nothing to tell of some container waits this long, in all, for first counts.
const FIRST_COUNT: Duration = Duration::from_millis(25);

/// A container's last count.
#[derive(Debug, Default)]
pub(super) struct Known {
    last: Option<Count>,
    queued: bool,
}

/// What was counted, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count {
    pub(super) usage: Usage,
    pub(super) at: UnixNanos,
    done: Instant,
    took: Duration,
}

impl Known {
    pub(super) fn last(&self) -> Option<Count> {
        self.last
    }

    /// Whether a walk should be made; if so, it counts as queued. Nothing changes after the container's end.
    fn claim(&mut self, ended_at: Option<UnixNanos>) -> bool {
        let fresh = self.last.is_some_and(|last| {
            last.done.elapsed() < FRESH.max(last.took * REST) || ended_at.is_some_and(|ended| last.at > ended)
        });
        let wanted = !fresh && !self.queued;
        self.queued |= wanted;
        wanted
    }
}

/// Walks layers in the background.
#[derive(Default)]
pub(in crate::local) struct Meter {
    queue: Mutex<Queue>,
    drained: Notify,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<(PathBuf, Weak<Container>)>,
    working: bool,
}

impl Meter {
    /// Has the layers counted whose last count is old. Each container comes with its layer's directory, and the time of
    /// its end.
    pub(super) async fn refresh(
        self: &Arc<Self>,
        containers: impl Iterator<Item = (PathBuf, Option<UnixNanos>, Arc<Container>)>,
    ) {
        // From here on, the end of the work is not missed.
        let drained = self.drained.notified();
        let mut unknown = false;
        let mut due = Vec::new();
        for (directory, ended_at, container) in containers {
            let mut known = lock(&container.usage.layer);
            unknown |= known.last.is_none();
            if known.claim(ended_at) {
                due.push((directory, Arc::downgrade(&container)));
            }
        }
        let (idle, working) = {
            let mut queue = lock(&self.queue);
            queue.waiting.extend(due);
            let idle = !queue.waiting.is_empty() && !queue.working;
            queue.working |= idle;
            (idle, queue.working)
        };
        if idle {
            let meter = Arc::clone(self);
            tokio::task::spawn_blocking(move || meter.work());
        }
        if unknown && working {
            // What is not counted by then is told next time.
            let _ = tokio::time::timeout(FIRST_COUNT, drained).await;
        }
    }

    fn work(&self) {
        while let Some((directory, container)) = self.next() {
            let Some(container) = container.upgrade() else {
                continue;
            };
            let (begin, at) = (Instant::now(), now());
            let usage = disk::of(&directory);
            let mut known = lock(&container.usage.layer);
            known.queued = false;
            match usage {
                Ok(usage) => {
                    known.last = Some(Count {
                        usage,
                        at,
                        done: Instant::now(),
                        took: begin.elapsed(),
                    });
                }
                Err(error) => tracing::debug!("The layer {} can't be counted: {error}.", directory.display()),
            }
        }
        self.drained.notify_waiters();
    }

    fn next(&self) -> Option<(PathBuf, Weak<Container>)> {
        let mut queue = lock(&self.queue);
        let next = queue.waiting.pop_front();
        queue.working = next.is_some();
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_kept_until_it_is_old() {
        let mut known = Known::default();
        assert!(known.claim(None));
        assert!(!known.claim(None), "it is queued");
        let count = |age: u64, took: u64| {
            let done = Instant::now() - Duration::from_secs(age);
            Some(Count {
                usage: Usage::default(),
                at: 100,
                done,
                took: Duration::from_secs(took),
            })
        };
        let claim = |last: Option<Count>, ended_at| Known { last, queued: false }.claim(ended_at);
        assert!(!claim(count(5, 0), None));
        assert!(claim(count(15, 0), None));
        assert!(!claim(count(15, 1), None), "it took long, and rests longer");
        assert!(!claim(count(15, 0), Some(99)), "nothing changes after the end");
        assert!(claim(count(15, 0), Some(101)));
    }
}
