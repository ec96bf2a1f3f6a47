//! The probes of a pod's containers: which ones run, and what they say.

use std::sync::Arc;

use super::event::EventReason;
use super::observe::pod_ip;
use super::pod::Worker;
use crate::plan::{self, Observed, ProbeWanted};
use crate::prober::{self, ProbeReport, RunningProbe};
use crate::{annotations, spec};

impl Worker {
    /// Starts probes that are wanted and stops those that are not.
    pub(super) fn run_probes(&mut self, wanted: &[ProbeWanted], observed: &Observed) {
        self.probes.retain(|probe, task| {
            let keep = wanted.contains(probe);
            if !keep {
                task.abort();
            }
            keep
        });
        for probe in wanted {
            if self.probes.contains_key(probe) {
                continue;
            }
            let Some(running) = self.probe(probe, observed) else {
                continue;
            };
            let engine = Arc::clone(&self.node.engine);
            let task = tokio::spawn(prober::run(running, engine, self.probe_sender.clone()));
            self.probes.insert(probe.clone(), task.abort_handle());
        }
    }

    pub(super) fn probe(&self, wanted: &ProbeWanted, observed: &Observed) -> Option<RunningProbe> {
        let (container, _) = spec::container(&self.desired.pod, &wanted.name)?;
        let status = observed
            .containers
            .iter()
            .find(|container| container.id == wanted.id)?;
        let probe = match wanted.kind {
            plan::ProbeKind::Startup => container.startup_probe.clone(),
            plan::ProbeKind::Readiness => container.readiness_probe.clone(),
            plan::ProbeKind::Liveness => container.liveness_probe.clone(),
        }?;
        Some(RunningProbe {
            id: wanted.id.clone(),
            kind: wanted.kind,
            probe,
            container: container.clone(),
            ip: pod_ip(observed, &self.node.facts.host_ips),
            period: annotations::probe_period(&self.desired.pod, &wanted.name, wanted.kind),
            running_for: self.node.clock.since(status.started_at),
            verdict: self.memory.verdict(&wanted.id, wanted.kind),
        })
    }

    /// Returns whether the probe says something else than before.
    pub(super) fn probed(&mut self, report: ProbeReport) -> bool {
        let kind = format!("{:?}", report.kind);
        match &report.outcome {
            prober::Outcome::Success => {}
            prober::Outcome::Warning(message) => {
                let message = format!("{kind} probe warning: {message}");
                self.reporter
                    .container(EventReason::ProbeWarning, &report.container, message);
            }
            prober::Outcome::Failure(message) => {
                let message = format!("{kind} probe failed: {message}");
                self.reporter
                    .container(EventReason::Unhealthy, &report.container, message);
            }
            prober::Outcome::Error(message) => {
                let message = format!("{kind} probe errored and resulted in unknown state: {message}");
                self.reporter
                    .container(EventReason::Unhealthy, &report.container, message);
            }
        }
        let first = self.memory.verdict(&report.id, report.kind).is_none();
        if first && report.kind == plan::ProbeKind::Readiness && report.verdict == Some(false) {
            let message = format!("Container {} is not ready", report.container);
            self.reporter
                .container(EventReason::NotReady, &report.container, message);
        }
        let new = self.memory.probed(&report.id, report.kind, report.verdict);
        if new && self.record.set_probes(&self.memory.probes) {
            self.save();
        }
        new
    }
}
