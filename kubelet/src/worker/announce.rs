//! Telling what changed between two looks at a pod.

use std::collections::BTreeMap;

use berth_cri::{ContainerId, ContainerState, ContainerStatus, PodSandboxStatus};
use k8s_openapi::api::core::v1::PodStatus;

use super::event::EventReason;
use super::execute::sandbox_message;
use super::reporter::Reporter;
use crate::plan::{Pending, Plan, Reason, Resize};

/// What was said last.
#[derive(Debug, Default)]
pub(super) struct Announcer {
    containers: BTreeMap<ContainerId, ContainerState>,
    waiting: BTreeMap<String, Reason>,
    /// Why the pod could not be looked at, or its record not be removed.
    trouble: Option<String>,
    /// Why no sandbox can be asked for.
    no_sandbox: Option<String>,
    ready: BTreeMap<String, bool>,
    pod_ready: bool,
    phase: String,
    pending: Option<Pending>,
    resizing: bool,
}

impl Announcer {
    /// Containers that an earlier daemon left: what ended before is not news.
    pub(super) fn adopt(
        &mut self,
        reporter: &Reporter,
        sandboxes: &[PodSandboxStatus],
        containers: &[ContainerStatus],
    ) {
        for sandbox in sandboxes.iter().filter(|sandbox| sandbox.ready) {
            reporter.pod(
                EventReason::SandboxReady,
                sandbox_message("Sandbox was taken over", &sandbox.ips),
            );
        }
        for container in containers {
            self.containers.insert(container.id.clone(), container.state);
            if container.state == ContainerState::Running {
                let name = &container.config.name;
                reporter.container(
                    EventReason::Adopted,
                    name,
                    format!("Container {name} is running already"),
                );
            }
        }
    }

    /// How far a change of the pod's resources is. One that is given up with its pod is not completed.
    pub(super) fn resize(
        &mut self,
        reporter: &Reporter,
        resize: &Resize,
        runs: bool,
        generation: Option<i64>,
    ) {
        let message = |what: &str, why: &str| {
            let generation = generation.map_or_else(String::new, |number| format!(" (generation {number})"));
            format!("Pod resize {what}{generation}{why}")
        };
        if resize.allocated.is_some() {
            reporter.pod(EventReason::ResizeStarted, message("started", ""));
        }
        if resize.pending != self.pending {
            if let Some(pending) = &resize.pending {
                let (reason, what) = if pending.infeasible {
                    (EventReason::ResizeInfeasible, "infeasible")
                } else {
                    (EventReason::ResizeDeferred, "deferred")
                };
                reporter.pod(reason, message(what, &format!(": {}", pending.message)));
            }
            self.pending.clone_from(&resize.pending);
        }
        let resizing = resize.in_progress.is_some();
        if runs && self.resizing && !resizing && resize.allocated.is_none() {
            reporter.pod(EventReason::ResizeCompleted, message("completed", ""));
        }
        self.resizing = resizing;
    }

    /// Containers that ended since the last look.
    pub(super) fn containers(&mut self, reporter: &Reporter, containers: &[ContainerStatus]) {
        for container in containers {
            let before = self.containers.insert(container.id.clone(), container.state);
            let ended = |state| matches!(state, ContainerState::Exited | ContainerState::Unknown);
            if ended(container.state) && !before.is_some_and(ended) {
                reporter.container(
                    EventReason::Exited,
                    &container.config.name,
                    exit_message(container),
                );
            }
        }
        self.containers
            .retain(|id, _| containers.iter().any(|container| container.id == *id));
    }

    /// Containers that have begun to wait for their next try, or for a sandbox that the pod can't have as it is.
    pub(super) fn waiting(&mut self, reporter: &Reporter, plan: &Plan) {
        self.no_sandbox(reporter, plan);
        let waiting: BTreeMap<String, Reason> = plan
            .waiting
            .iter()
            .map(|(name, waiting)| (name.clone(), waiting.reason))
            .collect();
        for (name, waiting) in &plan.waiting {
            let backs_off = matches!(
                waiting.reason,
                Reason::CrashLoopBackOff | Reason::ImagePullBackOff
            );
            // Failures of steps were told when they happened; these come from the plan alone.
            let hopeless = matches!(
                waiting.reason,
                Reason::ErrImageNeverPull | Reason::CreateContainerConfigError
            );
            if self.waiting.get(name) == Some(&waiting.reason) {
                continue;
            }
            if backs_off {
                reporter.container(EventReason::BackOff, name, waiting.message.clone());
            } else if hopeless {
                let message = format!("{}: {}", waiting.reason, waiting.message);
                reporter.container(EventReason::Failed, name, message);
            }
        }
        self.waiting = waiting;
    }

    /// All containers wait for the pod's sandbox, and it is told as the pod's.
    fn no_sandbox(&mut self, reporter: &Reporter, plan: &Plan) {
        let mut waiting = plan.waiting.values();
        let why = waiting
            .find(|waiting| waiting.reason == Reason::FailedCreatePodSandBox)
            .map(|waiting| waiting.message.clone());
        if let Some(why) = why.as_ref().filter(|_| why != self.no_sandbox) {
            let message = format!("Failed to create pod sandbox: {why}");
            reporter.pod(EventReason::FailedCreatePodSandBox, message);
        }
        self.no_sandbox = why;
    }

    /// What keeps the worker from its work, which it tries again and again.
    pub(super) fn trouble(&mut self, reporter: &Reporter, message: String) {
        if self.trouble.as_ref() != Some(&message) {
            reporter.pod(EventReason::FailedSync, message.clone());
            self.trouble = Some(message);
        }
    }

    /// The pod could be looked at.
    pub(super) fn no_trouble(&mut self) {
        self.trouble = None;
    }

    /// Readiness and phase.
    pub(super) fn status(&mut self, reporter: &Reporter, status: &PodStatus) {
        let init = status.init_container_statuses.iter().flatten();
        let all = status.container_statuses.iter().flatten().chain(init);
        for container in all {
            let running = container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some());
            // An init container that has done its work is called ready; nobody cares.
            let ready = container.ready && running;
            let before = self.ready.insert(container.name.clone(), ready).unwrap_or(false);
            // A container that ended has said so already.
            if ready != before && (ready || running) {
                let (reason, word) = said(ready);
                reporter.container(
                    reason,
                    &container.name,
                    format!("Container {} is {word}", container.name),
                );
            }
        }
        let pod_ready = is_true(status, "Ready");
        if pod_ready != self.pod_ready {
            self.pod_ready = pod_ready;
            let (reason, word) = said(pod_ready);
            reporter.pod(reason, format!("Pod is {word}"));
        }
        let phase = status.phase.clone().unwrap_or_default();
        if phase != self.phase {
            reporter.pod(EventReason::Phase, format!("Pod is {phase}"));
            self.phase = phase;
        }
    }
}

fn said(ready: bool) -> (EventReason, &'static str) {
    if ready {
        (EventReason::Ready, "ready")
    } else {
        (EventReason::NotReady, "not ready")
    }
}

fn is_true(status: &PodStatus, condition: &str) -> bool {
    let mut conditions = status.conditions.iter().flatten();
    conditions.any(|c| c.type_ == condition && c.status == "True")
}

fn exit_message(container: &ContainerStatus) -> String {
    let name = &container.config.name;
    let mut message = format!("Container {name} ended with exit code {}", container.exit_code);
    if !matches!(container.reason.as_str(), "" | "Completed" | "Error") {
        message.push_str(&format!(" ({})", container.reason));
    }
    if !container.message.is_empty() {
        message.push_str(&format!(": {}", container.message));
    }
    message
}
