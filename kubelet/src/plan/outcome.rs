//! Whether a pod's work is over: done, failed, or out of time.

use berth_cri::{ContainerStatus, UnixNanos};
use k8s_openapi::api::core::v1::Container;

use super::PodFailure;
use super::view::{View, exit_code, has_ended, is_running};
use crate::backoff::after;
use crate::spec::{self, RestartPolicy, Role};

/// Why a pod failed that ran for longer than its `activeDeadlineSeconds`.
pub(crate) const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";

/// How a pod's work ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// When.
    pub(crate) at: UnixNanos,
    /// The pod failed as a whole.
    pub(crate) failure: Option<PodFailure>,
}

/// How the pod's work ended; `None` while there is something left to do.
pub(crate) fn outcome(view: &View<'_>) -> Option<Outcome> {
    if let Some((at, failure)) = &view.observed.failed {
        return Some(Outcome {
            at: *at,
            failure: Some(failure.clone()),
        });
    }
    if spec::is_gated(&view.desired.pod) {
        return None;
    }
    let ended = ended(view);
    let Some(limit) = spec::active_deadline(&view.desired.pod) else {
        return ended;
    };
    let deadline = after(view.observed.admitted_at, limit);
    let deleted_before = view
        .desired
        .deletion
        .is_some_and(|deletion| deletion.requested_at <= deadline);
    if view.now < deadline || deleted_before || ended.as_ref().is_some_and(|ended| ended.at <= deadline) {
        return ended;
    }
    let message = "Pod was active on the node longer than the specified deadline".to_owned();
    Some(Outcome {
        at: deadline,
        failure: Some(PodFailure {
            reason: DEADLINE_EXCEEDED.to_owned(),
            message,
            grace: None,
        }),
    })
}

/// The moment at which the pod is out of time, if there is one.
pub(crate) fn deadline(view: &View<'_>) -> Option<UnixNanos> {
    spec::active_deadline(&view.desired.pod).map(|limit| after(view.observed.admitted_at, limit))
}

fn ended(view: &View<'_>) -> Option<Outcome> {
    init_failed(view)
        .or_else(|| mains_ended(view))
        .or_else(|| sandbox_lost_for_good(view))
}

/// An init container failed and is not to be restarted.
fn init_failed(view: &View<'_>) -> Option<Outcome> {
    let failed = view
        .containers()
        .filter(|(_, role)| *role == Role::Init)
        .find_map(|(init, role)| {
            let last = view.current(&init.name)?;
            (is_over(view, init, role, last) && exit_code(last) != 0).then_some(last)
        })?;
    Some(Outcome {
        at: failed.finished_at,
        failure: None,
    })
}

/// Every main container ended and none is to be restarted.
fn mains_ended(view: &View<'_>) -> Option<Outcome> {
    let mut at = 0;
    for main in spec::containers(&view.desired.pod) {
        let last = view.current(&main.name)?;
        if !is_over(view, main, Role::Main, last) {
            return None;
        }
        at = at.max(last.finished_at);
    }
    Some(Outcome { at, failure: None })
}

/// A pod that restarts nothing gets no second sandbox once a main container was made in the first.
fn sandbox_lost_for_good(view: &View<'_>) -> Option<Outcome> {
    let mains = spec::containers(&view.desired.pod);
    let made: Vec<&ContainerStatus> = mains.iter().filter_map(|main| view.current(&main.name)).collect();
    let restarts = mains.iter().any(|main| {
        view.policy(main, Role::Main) != RestartPolicy::Never || main.restart_policy_rules.is_some()
    });
    // Of a pod that is being deleted the sandbox is stopped before anything else says that it is over.
    if view.desired.deletion.is_some() {
        return None;
    }
    if restarts || made.is_empty() || view.sandbox().is_some() {
        return None;
    }
    if made.iter().any(|record| is_running(record)) {
        return None;
    }
    let message = "The pod's sandbox was lost, and its restartPolicy is Never".to_owned();
    Some(Outcome {
        at: made
            .iter()
            .map(|record| record.finished_at)
            .max()
            .unwrap_or(view.now),
        failure: Some(PodFailure {
            reason: "PodSandboxLost".to_owned(),
            message,
            grace: None,
        }),
    })
}

fn is_over(view: &View<'_>, container: &Container, role: Role, record: &ContainerStatus) -> bool {
    has_ended(record) && !view.is_restarted(record) && !view.restarts(container, role, exit_code(record))
}
