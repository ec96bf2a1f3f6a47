//! What came of the steps of a plan, and what of it a worker has to remember.

use berth_cri::ContainerId;

use super::event::EventReason;
use super::execute::Done;
use super::pod::Worker;
use crate::defaults::IMMEDIATE_EVICTION_GRACE_PERIOD;
use crate::plan::{self, DEADLINE_EXCEEDED, HookKind, HookOutcome, Plan, PodFailure, Stage, Step, StepKey};

impl Worker {
    pub(super) fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Volumes(ready) => {
                self.memory.volumes_ready = ready;
                // What was changed while they were set up.
                if ready && self.refresh_due {
                    self.refresh_volumes();
                }
            }
            Done::Image(name, present) => {
                let pulled_at = self.node.clock.now();
                self.memory
                    .images
                    .insert(name, plan::ImageState { present, pulled_at });
            }
            Done::Group(limits) => self.group_is(limits),
            Done::Resized(id, resources) => self.container_has(id, resources),
            Done::Hook(id, kind, outcome) => {
                if (kind, &outcome) == (HookKind::PostStart, &HookOutcome::Succeeded) {
                    self.note_post_start(id.clone());
                }
                self.memory.hook_ended(id, kind, outcome);
            }
        }
    }

    pub(super) fn failed(&mut self, key: StepKey, reason: plan::Reason, message: String) {
        if let StepKey::StartContainer(..) = key {
            // The image may have been removed under us.
            self.doubtful_images.extend(self.memory.images.keys().cloned());
        }
        let now = self.node.clock.now();
        // All steps of a resize look at the memory of the whole pod first.
        let told = key.is_resize() && self.memory.has_failed_so(StepKey::is_resize, &message);
        if self.memory.failed(key.clone(), now, reason, message.clone()) {
            let event = match reason {
                _ if told => return,
                _ if key.is_resize() => EventReason::ResizeError,
                plan::Reason::FailedMount => EventReason::FailedMount,
                plan::Reason::FailedCreatePodSandBox => EventReason::FailedCreatePodSandBox,
                plan::Reason::FailedSync => EventReason::FailedSync,
                _ => EventReason::Failed,
            };
            match &key {
                // The announcer tells it with the waiting reason.
                StepKey::StartContainer(..) if reason == plan::Reason::CreateContainerConfigError => {}
                StepKey::StartContainer(name, _) => {
                    self.reporter
                        .container(event, name, format!("{reason}: {message}"));
                }
                StepKey::PullImage(image) => {
                    self.reporter.pod(
                        event,
                        format!("Failed to pull image \"{image}\": {reason}: {message}"),
                    );
                }
                _ => self.reporter.pod(event, message),
            }
        }
    }

    /// Remembers that the pod failed as a whole: a clock that is set back must not bring it to life again.
    pub(super) fn note_failure(&mut self, plan: &Plan) {
        if let (Some(failure), Some(at), None) = (&plan.failure, plan.over_since, &self.memory.failed) {
            self.memory.failed = Some((at, failure.clone()));
            self.record.failed.clone_from(&self.memory.failed);
            self.save();
            if failure.reason == DEADLINE_EXCEEDED {
                self.reporter
                    .pod(EventReason::DeadlineExceeded, failure.message.clone());
            }
        }
    }

    /// The pod takes more than it may. One that is ending anyway is left to that.
    pub(super) fn evict(&mut self, message: String) {
        self.fail_with(
            EventReason::Evicted,
            PodFailure {
                reason: "Evicted".to_owned(),
                message,
                grace: Some(IMMEDIATE_EVICTION_GRACE_PERIOD),
            },
        );
    }

    /// The pod fails as a whole, unless it ends already.
    pub(super) fn fail_with(&mut self, event: EventReason, failure: PodFailure) {
        let ends = self.state.borrow().stage > Stage::Syncing || self.desired.deletion.is_some();
        if ends || self.memory.failed.is_some() {
            return;
        }
        self.reporter.pod(event, failure.message.trim_end());
        self.memory.failed = Some((self.node.clock.now(), failure));
        self.record.failed.clone_from(&self.memory.failed);
        self.save();
    }

    /// Hooks that did not end in the grace period, so that their containers are told to end now.
    pub(super) fn tell_of_late_hooks(&self, dropped: &[StepKey], steps: &[Step]) {
        for step in steps {
            let Step::StopContainer { id, name, reason, .. } = step else {
                continue;
            };
            let is_dropped = |kind| dropped.contains(&StepKey::RunHook(id.clone(), kind));
            let tell = |event, hook: &str| {
                let message = format!("{hook} hook failed: it did not end within the grace period");
                self.reporter.container(event, name, message);
            };
            if is_dropped(HookKind::PreStop) {
                tell(EventReason::FailedPreStopHook, "PreStop");
            }
            // For any other cause its end is not waited for.
            if is_dropped(HookKind::PostStart) && *reason == plan::KillReason::Restart {
                tell(EventReason::FailedPostStartHook, "PostStart");
            }
        }
    }

    /// Remembers that a container's postStart hook has done its work, so that the next daemon does not run it again.
    fn note_post_start(&mut self, id: ContainerId) {
        let Some(all) = &mut self.record.post_started else {
            return;
        };
        if all.insert(id) {
            self.save();
        }
    }

    /// Forgets that containers were to end which are to go on now.
    pub(super) fn note_spared(&mut self, plan: &Plan) {
        if self.memory.spare(&plan.spared) {
            self.record.kill_started.clone_from(&self.memory.kill_started);
            self.save();
        }
    }

    /// Remembers when a container was first told to end.
    pub(super) fn note_kill(&mut self, step: &Step) {
        let (Step::StopContainer { id, .. }
        | Step::RunHook {
            id,
            kind: HookKind::PreStop,
            ..
        }) = step
        else {
            return;
        };
        let resized = matches!(
            step,
            Step::StopContainer {
                reason: plan::KillReason::Resize,
                ..
            }
        );
        let now = self.node.clock.now();
        if resized {
            self.memory.restarts.entry(id.clone()).or_insert(now);
            self.keep_restarts();
        }
        self.memory.kill_started.entry(id.clone()).or_insert(now);
        if self.record.kill_started != self.memory.kill_started {
            self.record.kill_started.clone_from(&self.memory.kill_started);
            self.save();
        }
    }
}
