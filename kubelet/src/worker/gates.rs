//! Scheduling gates: a pod that has any comes to no node, and has nothing of one. Whoever applies it without them lets it through.

use super::event::EventReason;
use super::pod::Worker;
use super::preemption::Victims;
use super::reporter::Reporter;
use crate::admission::{self, Verdict};
use crate::plan::Desired;
use crate::spec;

/// Says what a pod waits for.
pub(super) fn tell_of_gates(reporter: &Reporter, desired: &Desired) {
    let gates: Vec<&str> = spec::scheduling_gates(&desired.pod).collect();
    if !gates.is_empty() && desired.deletion.is_none() {
        let message = format!(
            "{} ({}): `berth apply` of the pod without them lets it run",
            crate::status::GATED,
            gates.join(", ")
        );
        reporter.pod(EventReason::SchedulingGated, message);
    }
}

impl Worker {
    /// Has the node take the pod on, if no gate is left.
    pub(super) fn go_through_gates(&mut self) {
        if spec::is_gated(&self.desired.pod) {
            return tell_of_gates(&self.reporter, &self.desired);
        }
        if self.desired.deletion.is_some() {
            return;
        }
        let now = self.node.clock.now();
        self.record.ungated_at = Some(now);
        self.memory.admitted_at = now;
        let others = || self.node.workers.others(&self.records, &self.desired.uid);
        match admission::verdict(&self.desired.pod, &self.node.facts, others) {
            Verdict::Admitted { after } => {
                self.sole.has(self.record.share());
                self.victims = Victims::new(self.node.workers.preempt(&after), self.room.sender());
            }
            Verdict::Rejected(rejection) => {
                let failed = Some((now, rejection.failure()));
                self.record.failed.clone_from(&failed);
                self.memory.failed = failed;
                let message = rejection.event();
                self.reporter
                    .pod(EventReason::Rejected(rejection.reason.into()), message);
            }
        }
    }
}
