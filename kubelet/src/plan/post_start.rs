//! postStart hooks: begun right after a container's start, and not cut off by its restart.

use berth_cri::ContainerStatus;
use k8s_openapi::api::core::v1::Container;

use super::termination::wake;
use super::view::View;
use super::{HookKind, KillReason, Plan, Step, StepKey};
use crate::backoff::after;
use crate::spec;

/// Runs a container's hook, or goes on with it, for as long as it takes.
pub(crate) fn run(container: &Container, record: &ContainerStatus, plan: &mut Plan) {
    let handler = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.clone());
    if let Some(handler) = handler {
        plan.steps.push(Step::RunHook {
            id: record.id.clone(),
            name: record.config.name.clone(),
            kind: HookKind::PostStart,
            handler,
            deadline: 0,
        });
    }
}

/// Lets a hook that runs come to its end before the container is stopped for this reason, as upstream's kubelet does, which
/// does nothing else to the pod meanwhile. Returns whether that is to be waited for.
///
/// A restart that somebody asks for may be what helps against a hook that hangs, so it waits no longer than the pod's
/// grace period.
pub(crate) fn go_on(
    view: &View<'_>,
    container: &Container,
    record: &ContainerStatus,
    reason: &KillReason,
    plan: &mut Plan,
) -> bool {
    let hook = StepKey::RunHook(record.id.clone(), HookKind::PostStart);
    let stop = StepKey::StopContainer(record.id.clone());
    let in_flight = &view.observed.in_flight;
    if !in_flight.contains(&hook) || in_flight.contains(&stop) {
        return false;
    }
    match reason {
        KillReason::Resize => {}
        KillReason::Restart => {
            let asked_at = view.observed.restarts.get(&record.id).copied();
            let until = after(
                asked_at.unwrap_or(view.now),
                spec::grace_period(&view.desired.pod),
            );
            if until <= view.now {
                return false;
            }
            wake(plan, until);
        }
        _ => return false,
    }
    run(container, record, plan);
    true
}
