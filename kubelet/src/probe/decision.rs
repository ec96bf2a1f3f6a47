//! When a row of probe results becomes a verdict.

use k8s_openapi::api::core::v1::Probe;

use crate::defaults::{PROBE_FAILURE_THRESHOLD, PROBE_SUCCESS_THRESHOLD};
use crate::plan::ProbeKind;

/// How one probe went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It answered as it should.
    Success,
    /// It did not answer, or not as it should.
    Failure,
}

/// Counts results of one probe of one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Threshold {
    success: u32,
    failure: u32,
    last: Option<Outcome>,
    in_a_row: u32,
    verdict: Option<bool>,
}

impl Threshold {
    /// For a probe of a container. A readiness probe begins with "not ready", a liveness probe with "alive"; a startup
    /// probe has no verdict at first. `known` is a verdict from before a restart of the daemon.
    pub fn new(probe: &Probe, kind: ProbeKind, known: Option<bool>) -> Self {
        let at_least_one =
            |value: Option<i32>, default: i32| u32::try_from(value.unwrap_or(default)).unwrap_or(1).max(1);
        let initial = match kind {
            ProbeKind::Readiness => Some(false),
            ProbeKind::Liveness => Some(true),
            ProbeKind::Startup => None,
        };
        Self {
            success: at_least_one(probe.success_threshold, PROBE_SUCCESS_THRESHOLD),
            failure: at_least_one(probe.failure_threshold, PROBE_FAILURE_THRESHOLD),
            last: None,
            in_a_row: 0,
            verdict: known.or(initial),
        }
    }

    /// What is known so far.
    pub fn verdict(self) -> Option<bool> {
        self.verdict
    }

    /// Counts a result; returns the verdict if it is not what it was.
    #[must_use]
    pub fn observe(&mut self, outcome: Outcome) -> Option<bool> {
        self.in_a_row = if self.last == Some(outcome) {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(outcome);
        let (needed, verdict) = match outcome {
            Outcome::Success => (self.success, true),
            Outcome::Failure => (self.failure, false),
        };
        if self.in_a_row < needed || self.verdict == Some(verdict) {
            return None;
        }
        self.verdict = Some(verdict);
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: ProbeKind, success: i32, failure: i32, results: &str) -> String {
        let probe = Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        };
        let mut threshold = Threshold::new(&probe, kind, None);
        let step = |c| {
            threshold.observe(if c == '+' {
                Outcome::Success
            } else {
                Outcome::Failure
            })
        };
        results
            .chars()
            .map(step)
            .map(|change| match change {
                None => '.',
                Some(true) => 'T',
                Some(false) => 'F',
            })
            .collect()
    }

    #[test]
    fn verdicts() {
        for (kind, success, failure, results, changes) in [
            (ProbeKind::Readiness, 1, 3, "+---+", "T..FT"),
            (ProbeKind::Readiness, 1, 3, "+--+--+---", "T........F"),
            (ProbeKind::Readiness, 2, 1, "++-+-++", ".TF...T"),
            (ProbeKind::Readiness, 1, 1, "-", "."),
            (ProbeKind::Liveness, 1, 3, "+--", "..."),
            (ProbeKind::Liveness, 1, 3, "---", "..F"),
            (ProbeKind::Startup, 1, 2, "-+", ".T"),
            (ProbeKind::Startup, 1, 2, "--", ".F"),
        ] {
            assert_eq!(
                run(kind, success, failure, results),
                changes,
                "{kind:?} {success}/{failure} {results}"
            );
        }
    }

    #[test]
    fn a_verdict_from_before_is_kept() {
        let mut threshold = Threshold::new(&Probe::default(), ProbeKind::Readiness, Some(true));
        assert_eq!(threshold.verdict(), Some(true));
        assert_eq!(threshold.observe(Outcome::Success), None);
        assert_eq!(threshold.observe(Outcome::Failure), None);
    }
}
