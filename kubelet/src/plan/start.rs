//! The start of one container: its pause, its image, its configuration.

use std::time::Duration;

use berth_cri::{ContainerState, ContainerStatus, PodSandboxStatus};
use k8s_openapi::api::core::v1::Container;

use super::images::ready_image;
use super::termination::wake;
use super::view::{View, has_ended, round_of};
use super::{Plan, Reason, StartContainer, Step, StepFailure, StepKey, Waiting, resize};
use crate::annotations;
use crate::backoff::{Backoff, after, pause_end, restarts_in_a_row};
use crate::config::{ContainerRequest, to_start_container};
use crate::defaults::SYNC_BACKOFF;
use crate::env::ConfigError;
use crate::spec::{self, RestartAction, Role};

/// Plans what brings the container to run in the sandbox, and says why it does not run yet.
pub(crate) fn start(
    view: &View<'_>,
    container: &Container,
    role: Role,
    sandbox: &PodSandboxStatus,
    plan: &mut Plan,
) {
    resize::note_start(view, container, last_ended(view, container), plan);
    let waiting = match try_start(view, container, role, sandbox, plan) {
        Ok(step) => {
            let failure = view.observed.failures.get(&StepKey::StartContainer(
                container.name.clone(),
                attempt(view, container),
            ));
            plan.steps.push(Step::StartContainer(Box::new(step)));
            failure.map_or_else(creating, from_failure)
        }
        Err(waiting) => waiting,
    };
    plan.waiting.insert(container.name.clone(), waiting);
}

fn creating() -> Waiting {
    Waiting {
        reason: Reason::ContainerCreating,
        message: String::new(),
    }
}

fn from_failure(failure: &StepFailure) -> Waiting {
    Waiting {
        reason: failure.reason,
        message: failure.message.clone(),
    }
}

/// A container that was created but never started is started under its own number.
fn attempt(view: &View<'_>, container: &Container) -> u32 {
    match view.latest_here(&container.name) {
        Some(record) if record.state == ContainerState::Created => record.config.attempt,
        _ => view.next_attempt(&container.name),
    }
}

fn try_start(
    view: &View<'_>,
    container: &Container,
    role: Role,
    sandbox: &PodSandboxStatus,
    plan: &mut Plan,
) -> Result<StartContainer, Waiting> {
    let before = last_ended(view, container);
    // One that was ended for another's sake, or because somebody wants it to be started anew, did not crash.
    let crashed =
        |ended: &ContainerStatus| round_of(ended) == view.round() || asked_for_restart(container, ended);
    let before = before.filter(|ended| !view.is_restarted(ended));
    if let Some(ended) = before.filter(|ended| crashed(ended)) {
        crash_pause(view, container, ended, plan)?;
    }
    let attempt = attempt(view, container);
    failure_pause(view, container, attempt, plan)?;
    let image = ready_image(view, container, plan)?;
    if !view.observed.volumes_ready || resize::holds_up(view) {
        return Err(creating());
    }
    let restarts_in_a_row = match before {
        Some(ended) if crashed(ended) => backoff(view).next_in_a_row(ended),
        Some(ended) => restarts_in_a_row(&ended.config.annotations),
        None => 0,
    };
    let request = ContainerRequest {
        container,
        role,
        attempt,
        restarts_in_a_row,
        round: view.round(),
        sandbox,
        image,
        env_files: &view.observed.env_files,
    };
    to_start_container(view.desired, request).map_err(|error| {
        if matches!(error, ConfigError::EnvFile(_)) {
            // Another container may write it yet, and nothing tells when.
            wake(plan, after(view.now, SYNC_BACKOFF));
        }
        Waiting {
            reason: Reason::CreateContainerConfigError,
            message: error.to_string(),
        }
    })
}

/// The newest record of the container that has run.
pub(crate) fn last_ended<'a>(view: &View<'a>, container: &Container) -> Option<&'a ContainerStatus> {
    view.records(&container.name)
        .filter(|record| has_ended(record))
        .max_by_key(|record| record.config.attempt)
}

/// `CrashLoopBackOff`: the pause after a container ended. A new sandbox is no reason to pause.
fn crash_pause(
    view: &View<'_>,
    container: &Container,
    ended: &ContainerStatus,
    plan: &mut Plan,
) -> Result<(), Waiting> {
    let delay = backoff(view).delay(ended);
    let Some(until) = pause_end(ended.finished_at, delay, view.now) else {
        return Ok(());
    };
    if view.observed.in_flight.contains(&start_key(view, container)) {
        return Ok(());
    }
    wake(plan, until);
    let message = format!(
        "back-off {} restarting failed container={} pod={}",
        go_duration(delay),
        container.name,
        spec::describe(&view.desired.pod)
    );
    Err(Waiting {
        reason: Reason::CrashLoopBackOff,
        message,
    })
}

/// Its own end was what restarted all containers of the pod.
fn asked_for_restart(container: &Container, ended: &ContainerStatus) -> bool {
    spec::restart_rule(container, ended.exit_code) == Some(RestartAction::RestartAllContainers)
}

/// The pauses of the pod's containers.
fn backoff(view: &View<'_>) -> Backoff {
    annotations::restart_backoff(&view.desired.pod, view.desired.node.restart_backoff)
}

fn start_key(view: &View<'_>, container: &Container) -> StepKey {
    StepKey::StartContainer(container.name.clone(), attempt(view, container))
}

/// The pause after the engine could not make or start the container.
fn failure_pause(
    view: &View<'_>,
    container: &Container,
    attempt: u32,
    plan: &mut Plan,
) -> Result<(), Waiting> {
    let key = StepKey::StartContainer(container.name.clone(), attempt);
    let Some(failure) = view.observed.failures.get(&key) else {
        return Ok(());
    };
    let Some(retry_at) = pause_end(failure.at, SYNC_BACKOFF, view.now) else {
        return Ok(());
    };
    if view.observed.in_flight.contains(&key) {
        return Ok(());
    }
    wake(plan, retry_at);
    Err(from_failure(failure))
}

/// A duration as Go writes it: `40s`, `2m40s`, `1h0m0s`, `1.5s`.
fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, _) => format!("{duration:?}"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}
