//! `--tail` and `--since`: which of the lines that are there already are wanted.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::LogOptions;
use crate::logs::LogLine;

/// What is there at first, of which not all may be wanted.
pub(super) struct Begin {
    lines: VecDeque<LogLine>,
    tail: Option<usize>,
    since: Option<Timestamp>,
}

impl Begin {
    pub(super) fn new(options: &LogOptions) -> Self {
        Self {
            lines: VecDeque::new(),
            tail: options.tail,
            since: options.since,
        }
    }

    /// Takes a line; gives it back if it can be told already that it is wanted.
    pub(super) fn push(&mut self, line: LogLine) -> Option<LogLine> {
        let is_early = |since| line.time.parse::<Timestamp>().is_ok_and(|time| time < since);
        if self.since.is_some_and(is_early) {
            return None;
        }
        let Some(tail) = self.tail else { return Some(line) };
        self.lines.push_back(line);
        if self.lines.len() > tail {
            self.lines.pop_front();
        }
        None
    }

    /// The last lines of what was there. What is pushed from now on is wanted.
    pub(super) fn end(&mut self) -> impl Iterator<Item = LogLine> + use<> {
        self.tail = None;
        std::mem::take(&mut self.lines).into_iter()
    }
}
