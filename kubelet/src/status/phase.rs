//! The pod's phase.

use std::fmt;

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodStatus};

use crate::plan::{Plan, Stage, View, has_ended};
use crate::spec::{self, Role};

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Not every container was made yet.
    Pending,
    /// Something runs, or will run again.
    Running,
    /// Every container ended well, for good.
    Succeeded,
    /// Every container ended, one of them badly.
    Failed,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How a container stands, for the phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Running,
    Ended(i32),
}

/// The phase. A pod that has ended stays so.
pub(super) fn phase(
    view: &View<'_>,
    plan: &Plan,
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
    previous: Option<&PodStatus>,
) -> Phase {
    match previous.and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => return Phase::Succeeded,
        Some("Failed") => return Phase::Failed,
        _ => {}
    }
    let found = from_containers(view, plan, inits, containers);
    // Once a pod ran it is never pending again.
    match previous.and_then(|status| status.phase.as_deref()) {
        Some("Running") => found.max(Phase::Running),
        _ => found,
    }
}

fn from_containers(
    view: &View<'_>,
    plan: &Plan,
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Phase {
    let over = plan.stage >= Stage::Terminated;
    if over && plan.failure.is_some() {
        return Phase::Failed;
    }
    if let Some(early) = init_phase(view, inits, containers, over) {
        return early;
    }
    let standings: Vec<Standing> = containers.iter().map(standing).collect();
    let any = |wanted: fn(&Standing) -> bool| standings.iter().any(wanted);
    if any(|s| *s == Standing::Waiting) {
        return if over { Phase::Failed } else { Phase::Pending };
    }
    if any(|s| *s == Standing::Running) {
        return Phase::Running;
    }
    let ended_badly = any(|s| !matches!(s, Standing::Ended(0)));
    let restarted = containers.iter().zip(spec::containers(&view.desired.pod)).any(|(status, container)| {
        matches!(standing(status), Standing::Ended(code) if view.restarts(container, Role::Main, code))
    });
    // Sidecars are still being stopped, or something starts again.
    if !over && (restarted || plan.stage == Stage::Syncing || sidecar_runs(view, inits)) {
        return Phase::Running;
    }
    if ended_badly {
        Phase::Failed
    } else {
        Phase::Succeeded
    }
}

/// The phase while init containers decide it.
fn init_phase(
    view: &View<'_>,
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
    over: bool,
) -> Option<Phase> {
    let any_main_made = containers
        .iter()
        .any(|status| standing(status) != Standing::Waiting);
    if any_main_made {
        return None;
    }
    for (init, status) in spec::init_containers(&view.desired.pod).iter().zip(inits) {
        let sidecar = spec::is_sidecar(init);
        match standing(status) {
            Standing::Ended(code) if code != 0 && !sidecar => {
                let never = !view.restarts(init, Role::Init, code) && !ended_for_a_restart(view, &init.name);
                return Some(if never || over {
                    Phase::Failed
                } else {
                    Phase::Pending
                });
            }
            Standing::Running if sidecar && status.started == Some(true) => {}
            Standing::Ended(0) if !sidecar => {}
            Standing::Waiting | Standing::Running | Standing::Ended(_) => {
                return Some(if over { Phase::Failed } else { Phase::Pending });
            }
        }
    }
    None
}

/// Somebody ended its last run so that another one begins.
fn ended_for_a_restart(view: &View<'_>, name: &str) -> bool {
    let ended = view.records(name).filter(|record| has_ended(record));
    let last = ended.max_by_key(|record| record.config.attempt);
    last.is_some_and(|record| view.is_restarted(record))
}

fn sidecar_runs(view: &View<'_>, inits: &[ContainerStatus]) -> bool {
    let sidecars = spec::init_containers(&view.desired.pod).iter().zip(inits);
    sidecars
        .filter(|(init, _)| spec::is_sidecar(init))
        .any(|(_, status)| standing(status) == Standing::Running)
}

/// A container that waits to run again counts as its last end does.
fn standing(status: &ContainerStatus) -> Standing {
    let of = |state: &Option<ContainerState>| {
        let state = state.as_ref()?;
        if state.running.is_some() {
            return Some(Standing::Running);
        }
        state
            .terminated
            .as_ref()
            .map(|terminated| Standing::Ended(terminated.exit_code))
    };
    of(&status.state)
        .or_else(|| of(&status.last_state))
        .unwrap_or(Standing::Waiting)
}
