//! The end of a pod: containers in their order, then sandboxes, then what is left.

use std::time::Duration;

use berth_cri::{ContainerStatus, UnixNanos};

use super::outcome::Outcome;
use super::view::{View, is_running};
use super::{HookKind, KillReason, Plan, Stage, Step, StepKey, probes};
use crate::backoff::{after, nanos_between, pause_end};
use crate::defaults::{MINIMUM_GRACE_PERIOD, SYNC_BACKOFF};
use crate::qos;
use crate::spec::{self, Role};

/// What a container's end must keep to.
#[derive(Clone, Debug)]
pub(crate) struct Kill {
    /// Why.
    pub(crate) reason: KillReason,
    /// When it must be over.
    pub(crate) deadline: UnixNanos,
    /// It gets this, however near the deadline is.
    pub(crate) least: Duration,
    /// No hook, no waiting.
    pub(crate) at_once: bool,
}

/// Ends the pod. `outcome` is how its work ended, if it did by itself.
pub(crate) fn terminate(view: &View<'_>, outcome: Option<&Outcome>, plan: &mut Plan) {
    let kill = pod_kill(view, outcome);
    plan.stage = Stage::Terminating;
    stop_containers(view, &kill, plan);
    if plan.steps.is_empty() && !is_busy(view) && !any_running(view) {
        stop_sandboxes(view, plan);
    }
    let stopped = plan.steps.is_empty() && plan.wake_at.is_none() && !is_busy(view) && !any_running(view);
    if !stopped {
        return;
    }
    plan.stage = Stage::Terminated;
    if view.desired.deletion.is_some() {
        remove(view, plan);
    }
}

fn pod_kill(view: &View<'_>, outcome: Option<&Outcome>) -> Kill {
    let pod = &view.desired.pod;
    let grace = spec::grace_period(pod);
    if let Some(deletion) = view.desired.deletion {
        let grace = deletion.grace.unwrap_or(grace);
        return Kill {
            reason: KillReason::PodDeleted,
            deadline: after(deletion.requested_at, grace),
            least: MINIMUM_GRACE_PERIOD,
            at_once: grace.is_zero(),
        };
    }
    let failure = outcome.and_then(|outcome| outcome.failure.as_ref());
    let reason = match failure {
        Some(_) => KillReason::PodFailed,
        None => KillReason::PodCompleted,
    };
    let began = outcome.map_or(view.now, |outcome| outcome.at);
    let given = failure.and_then(|failure| failure.grace);
    Kill {
        reason,
        deadline: after(began, given.unwrap_or(grace)),
        least: given.map_or(MINIMUM_GRACE_PERIOD, |_| Duration::ZERO),
        at_once: false,
    }
}

/// Main and init containers at once, then sidecars in reverse order. Every preStop hook runs at once.
fn stop_containers(view: &View<'_>, kill: &Kill, plan: &mut Plan) {
    let mut later_runs = false;
    let mut sidecars = Vec::new();
    for (container, role) in view.containers() {
        for record in view.records(&container.name).filter(|record| is_running(record)) {
            probes::while_stopping(view, container, record, plan);
            match role {
                Role::Sidecar => sidecars.push(record),
                Role::Init | Role::Main => {
                    later_runs = true;
                    stop_container(view, record, kill, plan);
                }
            }
        }
    }
    for record in unknown_containers(view) {
        later_runs = true;
        stop_container(view, record, kill, plan);
    }
    for record in sidecars.into_iter().rev() {
        let its_turn = !later_runs || view.now >= kill.deadline || kill.at_once;
        if its_turn {
            stop_container(view, record, kill, plan);
        } else {
            pre_stop(view, record, kill, plan);
            wake(plan, kill.deadline);
        }
        later_runs = true;
    }
}

/// Running containers that the specification does not name.
pub(crate) fn unknown_containers<'a>(view: &View<'a>) -> impl Iterator<Item = &'a ContainerStatus> {
    let pod = &view.desired.pod;
    let running = view
        .observed
        .containers
        .iter()
        .filter(|record| is_running(record));
    running.filter(move |record| spec::container(pod, &record.config.name).is_none())
}

/// Ends a running container: its preStop hook if there is time, then its stop signal.
pub(crate) fn stop_container(view: &View<'_>, record: &ContainerStatus, kill: &Kill, plan: &mut Plan) {
    let key = StepKey::StopContainer(record.id.clone());
    if let Some(retry_at) = retry_at(view, &key) {
        return wake(plan, retry_at);
    }
    // Once its stop signal is sent, the hook's time is over.
    let signalled = view.observed.in_flight.contains(&key);
    if !signalled && pre_stop(view, record, kill, plan) {
        return;
    }
    let left = nanos_between(view.now, kill.deadline).max(kill.least);
    plan.steps.push(Step::StopContainer {
        id: record.id.clone(),
        name: record.config.name.clone(),
        timeout: if kill.at_once { Duration::ZERO } else { left },
        deadline: kill.deadline,
        reason: kill.reason.clone(),
    });
}

/// Plans the preStop hook if it has not ended and there is time for it.
fn pre_stop(view: &View<'_>, record: &ContainerStatus, kill: &Kill, plan: &mut Plan) -> bool {
    let container = spec::container(&view.desired.pod, &record.config.name).map(|(container, _)| container);
    let handler = container.and_then(|container| container.lifecycle.as_ref()?.pre_stop.as_ref());
    let Some(handler) = handler else { return false };
    let ended = view.hook(&record.id, HookKind::PreStop).is_some();
    if ended || kill.at_once || view.now >= kill.deadline {
        return false;
    }
    plan.steps.push(Step::RunHook {
        id: record.id.clone(),
        name: record.config.name.clone(),
        kind: HookKind::PreStop,
        handler: handler.clone(),
        deadline: kill.deadline,
    });
    wake(plan, kill.deadline);
    true
}

/// Something is being made that must not be left behind, or being stopped: the engine may show the end of that early.
fn is_busy(view: &View<'_>) -> bool {
    view.observed.in_flight.iter().any(|key| {
        matches!(
            key,
            StepKey::RunSandbox(_)
                | StepKey::StartContainer(..)
                | StepKey::SetUpVolumes
                | StepKey::StopSandbox(_)
                | StepKey::StopContainer(_)
        )
    })
}

/// The engine is still removing something, though it may not show it any more.
fn is_removing(view: &View<'_>) -> bool {
    let mut keys = view.observed.in_flight.iter();
    keys.any(|key| matches!(key, StepKey::RemoveSandbox(_) | StepKey::RemoveContainer(_)))
}

fn any_running(view: &View<'_>) -> bool {
    view.observed.containers.iter().any(is_running)
}

fn stop_sandboxes(view: &View<'_>, plan: &mut Plan) {
    for sandbox in view.observed.sandboxes.iter().filter(|sandbox| sandbox.ready) {
        push_unless_failed(
            view,
            Step::StopSandbox {
                id: sandbox.id.clone(),
            },
            plan,
        );
    }
}

/// Removes what is left of a deleted pod that is stopped.
fn remove(view: &View<'_>, plan: &mut Plan) {
    plan.stage = Stage::Removing;
    for sandbox in &view.observed.sandboxes {
        push_unless_failed(
            view,
            Step::RemoveSandbox {
                id: sandbox.id.clone(),
            },
            plan,
        );
    }
    let alone = |record: &&ContainerStatus| {
        !view
            .observed
            .sandboxes
            .iter()
            .any(|sandbox| sandbox.id == record.sandbox)
    };
    for record in view.observed.containers.iter().filter(alone) {
        push_unless_failed(view, remove_container(record), plan);
    }
    if !view.observed.sandboxes.is_empty() || !view.observed.containers.is_empty() || is_removing(view) {
        return;
    }
    if view.observed.directory_exists {
        return push_unless_failed(view, Step::TearDownVolumes, plan);
    }
    if view.observed.in_flight.contains(&StepKey::TearDownVolumes) {
        return;
    }
    if view.observed.cgroup_exists {
        let pod = &view.desired.pod;
        let path = qos::pod_cgroup(
            &view.desired.node.cgroup_root,
            qos::qos_class(pod),
            &view.desired.uid,
        );
        return push_unless_failed(view, Step::RemoveCgroup { path }, plan);
    }
    plan.stage = Stage::Gone;
}

/// Removes a container that has ended.
pub(crate) fn remove_container(record: &ContainerStatus) -> Step {
    Step::RemoveContainer {
        id: record.id.clone(),
        name: record.config.name.clone(),
    }
}

/// Plans a step, or a later look if it has just failed.
pub(crate) fn push_unless_failed(view: &View<'_>, step: Step, plan: &mut Plan) {
    match retry_at(view, &step.key()) {
        Some(at) => wake(plan, at),
        None => plan.steps.push(step),
    }
}

/// When a step that failed may be tried again, if that is not yet.
pub(crate) fn retry_at(view: &View<'_>, key: &StepKey) -> Option<UnixNanos> {
    let failure = view.observed.failures.get(key)?;
    pause_end(failure.at, SYNC_BACKOFF, view.now).filter(|_| !view.observed.in_flight.contains(key))
}

/// Asks for another look at this time at the latest, if it is still to come.
pub(crate) fn wake(plan: &mut Plan, at: UnixNanos) {
    plan.wake_at = Some(plan.wake_at.map_or(at, |known| known.min(at)));
}
