//! Containers of a pod that has ended that nobody saw end, or that never came to be.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus};

use crate::plan::View;
use crate::spec;

/// Gives them an end, as upstream does: `ContainerStatusUnknown`. Containers whose turn never came go on waiting.
pub(super) fn mark(view: &View<'_>, inits: &mut [ContainerStatus], mains: &mut [ContainerStatus]) {
    // A pod of which nothing was ever made was not taken on.
    if view.observed.sandboxes.is_empty() && view.observed.containers.is_empty() {
        return;
    }
    if is_initialized(view, inits, mains) {
        mains.iter_mut().for_each(end);
    }
    // The first one's turn comes at once.
    let begun = inits.iter().rposition(has_run).map_or(1, |last| last + 1);
    inits.iter_mut().take(begun).for_each(end);
}

fn end(status: &mut ContainerStatus) {
    let state = status.state.get_or_insert_default();
    if state.terminated.is_some() {
        return;
    }
    *state = ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
}

/// The main containers' turn had come.
fn is_initialized(view: &View<'_>, inits: &[ContainerStatus], mains: &[ContainerStatus]) -> bool {
    let Some((last, of_spec)) = inits.last().zip(spec::init_containers(&view.desired.pod).last()) else {
        return true;
    };
    let done = |state: &Option<ContainerState>| {
        let terminated = state.as_ref().and_then(|state| state.terminated.as_ref());
        terminated.is_some_and(|terminated| terminated.exit_code == 0)
    };
    let last_done = if spec::is_sidecar(of_spec) {
        last.started == Some(true)
    } else {
        done(&last.state) || done(&last.last_state)
    };
    last_done || mains.iter().any(has_run)
}

fn has_run(status: &ContainerStatus) -> bool {
    let not_waiting = status.state.as_ref().is_some_and(|state| state.waiting.is_none());
    not_waiting
        || status
            .last_state
            .as_ref()
            .is_some_and(|state| state.terminated.is_some())
}
