//! What a worker knows of its pod beside the engine's records.

use std::collections::{BTreeMap, BTreeSet};

use berth_cri::{ContainerId, ContainerState, ContainerStatus, PodSandboxStatus, UnixNanos};

use super::record::PodRecord;
use crate::plan::{
    HookKind, HookOutcome, ImageState, Observed, PodFailure, ProbeKind, ProbeResults, Reason, StepFailure,
    StepKey,
};
use crate::sizes::Sizes;

/// Everything that a plan is made from and that no list of the engine tells.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) admitted_at: UnixNanos,
    pub(super) volumes_ready: bool,
    pub(super) images: BTreeMap<String, ImageState>,
    pub(super) probes: BTreeMap<ContainerId, ProbeResults>,
    hooks: BTreeMap<(ContainerId, HookKind), HookOutcome>,
    pub(super) kill_started: BTreeMap<ContainerId, UnixNanos>,
    /// Containers that somebody wants to be started anew, and since when.
    pub(super) restarts: BTreeMap<ContainerId, UnixNanos>,
    pub(super) failed: Option<(UnixNanos, PodFailure)>,
    pub(super) sizes: Option<Sizes>,
    failures: BTreeMap<StepKey, StepFailure>,
    pub(super) termination_messages: BTreeMap<ContainerId, String>,
}

impl Memory {
    /// What an earlier daemon left behind.
    pub(super) fn recall(record: &PodRecord) -> Self {
        Memory {
            admitted_at: record.began_at(),
            probes: record.probes(),
            kill_started: record.kill_started.clone(),
            restarts: record.restarts.iter().map(|id| (id.clone(), 0)).collect(),
            failed: record.failed.clone(),
            sizes: record.sizes.clone(),
            ..Memory::default()
        }
    }

    /// The hooks of containers that run already were run by the daemon that started them, as far as its record says: one
    /// that was cut off with it is run again.
    pub(super) fn adopt(
        &mut self,
        containers: &[ContainerStatus],
        post_started: Option<&BTreeSet<ContainerId>>,
    ) {
        let had_it = |id: &ContainerId| post_started.is_none_or(|all| all.contains(id));
        let running = containers.iter().filter(|c| c.state == ContainerState::Running);
        for container in running.filter(|container| had_it(&container.id)) {
            let key = (container.id.clone(), HookKind::PostStart);
            self.hooks.entry(key).or_insert(HookOutcome::Succeeded);
        }
    }

    /// Forgets containers that are not there any more.
    pub(super) fn retain(&mut self, containers: &[ContainerStatus]) {
        let there: BTreeSet<&ContainerId> = containers.iter().map(|container| &container.id).collect();
        self.probes.retain(|id, _| there.contains(id));
        self.hooks.retain(|(id, _), _| there.contains(id));
        self.kill_started.retain(|id, _| there.contains(id));
        self.restarts.retain(|id, _| there.contains(id));
        self.termination_messages.retain(|id, _| there.contains(id));
        if let Some(sizes) = &mut self.sizes {
            sizes.containers.retain(|id, _| there.contains(id));
        }
    }

    /// Containers that somebody wants to be started anew, as the record keeps them.
    pub(super) fn to_restart(&self) -> BTreeSet<ContainerId> {
        self.restarts.keys().cloned().collect()
    }

    /// Another wish is tried at once, whatever became of the last one.
    pub(super) fn forget_failed_resizes(&mut self) {
        self.failures.retain(|key, _| !key.is_resize());
    }

    pub(super) fn succeeded(&mut self, key: &StepKey) {
        self.failures.remove(key);
    }

    /// Enters a failure. Returns whether it says something that the last one of this step did not.
    pub(super) fn failed(&mut self, key: StepKey, at: UnixNanos, reason: Reason, message: String) -> bool {
        let last = self.failures.get(&key);
        let count = last.map_or(1, |last| last.count.saturating_add(1));
        let new = last.is_none_or(|last| last.message != message);
        self.failures.insert(
            key,
            StepFailure {
                count,
                at,
                reason,
                message,
            },
        );
        new
    }

    /// A step of this kind has failed, and its last try said the same.
    pub(super) fn has_failed_so(&self, kind: impl Fn(&StepKey) -> bool, message: &str) -> bool {
        let mut failures = self.failures.iter();
        failures.any(|(key, failure)| kind(key) && failure.message == message)
    }

    /// These containers go on: whatever was begun to end one of them is forgotten. Returns whether anything was.
    pub(super) fn spare(&mut self, containers: &[ContainerId]) -> bool {
        let mut any = false;
        for id in containers {
            any |= self.kill_started.remove(id).is_some();
            self.hooks.remove(&(id.clone(), HookKind::PreStop));
        }
        any
    }

    pub(super) fn hook_ended(&mut self, id: ContainerId, kind: HookKind, outcome: HookOutcome) {
        self.hooks.insert((id, kind), outcome);
    }

    /// Enters a probe's verdict. Returns whether it is new.
    pub(super) fn probed(&mut self, id: &ContainerId, kind: ProbeKind, verdict: Option<bool>) -> bool {
        let results = self.probes.entry(id.clone()).or_default();
        let slot = match kind {
            ProbeKind::Startup => &mut results.startup,
            ProbeKind::Readiness => &mut results.readiness,
            ProbeKind::Liveness => &mut results.liveness,
        };
        let new = *slot != verdict;
        *slot = verdict;
        new
    }

    pub(super) fn verdict(&self, id: &ContainerId, kind: ProbeKind) -> Option<bool> {
        let results = self.probes.get(id)?;
        match kind {
            ProbeKind::Startup => results.startup,
            ProbeKind::Readiness => results.readiness,
            ProbeKind::Liveness => results.liveness,
        }
    }

    /// The pod as it is.
    pub(super) fn observed(
        &self,
        sandboxes: Vec<PodSandboxStatus>,
        containers: Vec<ContainerStatus>,
    ) -> Observed {
        Observed {
            admitted_at: self.admitted_at,
            sandboxes,
            containers,
            volumes_ready: self.volumes_ready,
            images: self.images.clone(),
            probes: self.probes.clone(),
            hooks: self.hooks.clone(),
            kill_started: self.kill_started.clone(),
            restarts: self.restarts.clone(),
            failed: self.failed.clone(),
            sizes: self.sizes.clone(),
            failures: self.failures.clone(),
            termination_messages: self.termination_messages.clone(),
            ..Observed::default()
        }
    }
}
