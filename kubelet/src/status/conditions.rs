//! The pod's conditions.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::phase::Phase;
use super::{GATED, SCHEDULING_GATED, time};
use crate::plan::{PREEMPTING, Plan, Stage, View};
use crate::{annotations, spec};

/// A condition's value before its time is known.
struct Condition {
    kind: &'static str,
    met: bool,
    reason: &'static str,
    message: String,
}

impl Condition {
    fn met(kind: &'static str) -> Self {
        Self {
            kind,
            met: true,
            reason: "",
            message: String::new(),
        }
    }

    fn unmet(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            kind,
            met: false,
            reason,
            message,
        }
    }
}

/// All conditions that a node sets, each with the time of its last change.
pub(super) fn conditions(
    view: &View<'_>,
    plan: &Plan,
    phase: Phase,
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
    previous: Option<&PodStatus>,
) -> Vec<PodCondition> {
    let inits_of_spec = spec::init_containers(&view.desired.pod);
    let containers_ready = containers_ready("ContainersReady", phase, inits_of_spec, inits, containers);
    let own = annotations::conditions(&view.desired.pod);
    let ready = ready(&view.desired.pod, &containers_ready, &own);
    let all = [
        ready_to_start(view, phase),
        initialized(phase, inits_of_spec, inits, containers),
        ready,
        containers_ready,
        Condition::met("PodScheduled"),
    ];
    let restarting = spec::may_restart_all(&view.desired.pod).then(|| all_restarting(view, phase));
    all.into_iter()
        .chain(restarting)
        .chain(own_users(view))
        .chain(resizing(plan))
        .chain(disrupted(plan, phase))
        .map(|condition| timed(view, condition, previous))
        .chain(
            own.iter()
                .map(|(kind, status)| given(view, kind, status, previous)),
        )
        .collect()
}

/// Of a pod that comes to no node yet.
pub(super) fn gated(view: &View<'_>, previous: Option<&PodStatus>) -> Vec<PodCondition> {
    let blocked = Condition::unmet("PodScheduled", SCHEDULING_GATED, GATED.to_owned());
    vec![timed(view, blocked, previous)]
}

/// Of a pod that ended for another one's sake: whoever made it may make it anew.
fn disrupted(plan: &Plan, phase: Phase) -> Option<Condition> {
    let failure = plan
        .failure
        .as_ref()
        .filter(|failure| failure.reason == PREEMPTING)?;
    (phase == Phase::Failed).then(|| Condition {
        reason: "TerminationByKubelet",
        message: failure.message.clone(),
        ..Condition::met("DisruptionTarget")
    })
}

/// Of a pod that is to have other resources, until it has them or is to end.
fn resizing(plan: &Plan) -> impl Iterator<Item = Condition> {
    let runs = plan.stage == Stage::Syncing;
    let pending = plan
        .resize
        .pending
        .as_ref()
        .filter(|_| runs)
        .map(|pending| Condition {
            reason: if pending.infeasible {
                "Infeasible"
            } else {
                "Deferred"
            },
            message: pending.message.clone(),
            ..Condition::met("PodResizePending")
        });
    let progress = plan
        .resize
        .in_progress
        .as_ref()
        .filter(|_| runs)
        .map(|progress| Condition {
            reason: if progress.error.is_some() { "Error" } else { "" },
            message: progress.error.clone().unwrap_or_default(),
            ..Condition::met("PodResizeInProgress")
        });
    pending.into_iter().chain(progress)
}

/// The containers are ready, and every readiness gate's condition is `True`.
fn ready(pod: &Pod, containers: &Condition, own: &[(String, String)]) -> Condition {
    let copied = Condition {
        kind: "Ready",
        message: containers.message.clone(),
        ..*containers
    };
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_deref());
    let missing: Vec<String> = gates
        .unwrap_or_default()
        .iter()
        .filter_map(|gate| {
            let name = gate.condition_type.as_str();
            match own.iter().find(|(kind, _)| kind == name) {
                Some((_, status)) if status == "True" => None,
                Some((_, status)) => Some(format!(
                    "the status of pod readiness gate {name:?} is not \"True\", but {status}"
                )),
                None => Some(format!(
                    "corresponding condition of pod readiness gate {name:?} does not exist."
                )),
            }
        })
        .collect();
    if !containers.met || missing.is_empty() {
        return copied;
    }
    Condition::unmet("Ready", "ReadinessGatesNotReady", missing.join(", "))
}

/// The pod has users of its own: which, a field has no place for.
fn own_users(view: &View<'_>) -> Option<Condition> {
    let ids = view.desired.user_ids?;
    Some(Condition {
        message: ids.describe(),
        ..Condition::met("berth.dev/OwnUsers")
    })
}

/// A condition that the pod's annotation sets.
fn given(view: &View<'_>, kind: &str, status: &str, previous: Option<&PodStatus>) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        last_transition_time: since(kind, status, previous).or_else(|| time(view.now)),
        observed_generation: view.desired.pod.metadata.generation,
        ..PodCondition::default()
    }
}

/// When the condition got the status that it has.
fn since(kind: &str, status: &str, previous: Option<&PodStatus>) -> Option<Time> {
    let before = previous.and_then(|previous| previous.conditions.as_ref());
    let known = before.into_iter().flatten();
    known
        .filter(|known| known.type_ == kind && known.status == status)
        .find_map(|known| known.last_transition_time.clone())
}

/// Of a pod whose containers may all be restarted together.
fn all_restarting(view: &View<'_>, phase: Phase) -> Condition {
    let kind = "AllContainersRestarting";
    match phase {
        Phase::Succeeded => Condition::unmet(kind, "PodCompleted", String::new()),
        Phase::Failed => Condition::unmet(kind, "PodFailed", String::new()),
        _ if view.restart_all_trigger().is_some() => Condition {
            reason: "RestartAllContainersStarted",
            message: "container exited with restart policy rule".to_owned(),
            ..Condition::met(kind)
        },
        _ => Condition::unmet(kind, "", String::new()),
    }
}

fn ready_to_start(view: &View<'_>, phase: Phase) -> Condition {
    let met = view.sandbox().is_some() && phase <= Phase::Running;
    Condition {
        met,
        ..Condition::met("PodReadyToStartContainers")
    }
}

fn initialized(
    phase: Phase,
    of_spec: &[Container],
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Condition {
    let main_began = containers.iter().any(began);
    let incomplete: Vec<&str> = of_spec
        .iter()
        .zip(inits)
        .filter(|(init, status)| {
            if spec::is_sidecar(init) {
                status.started != Some(true)
            } else {
                !status.ready
            }
        })
        .map(|(init, _)| init.name.as_str())
        .collect();
    match phase {
        Phase::Succeeded => Condition {
            reason: "PodCompleted",
            ..Condition::met("Initialized")
        },
        _ if main_began || incomplete.is_empty() => Condition::met("Initialized"),
        _ => Condition::unmet(
            "Initialized",
            "ContainersNotInitialized",
            format!("containers with incomplete status: {}", go_list(&incomplete)),
        ),
    }
}

/// The container has run.
fn began(status: &ContainerStatus) -> bool {
    let ran = |state: &k8s_openapi::api::core::v1::ContainerState| {
        state.running.is_some() || state.terminated.is_some()
    };
    status.state.as_ref().is_some_and(ran) || status.last_state.as_ref().is_some_and(ran)
}

fn containers_ready(
    kind: &'static str,
    phase: Phase,
    of_spec: &[Container],
    inits: &[ContainerStatus],
    containers: &[ContainerStatus],
) -> Condition {
    let sidecars = of_spec
        .iter()
        .zip(inits)
        .filter(|(init, _)| spec::is_sidecar(init))
        .map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(containers)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    match phase {
        Phase::Succeeded => Condition::unmet(kind, "PodCompleted", String::new()),
        Phase::Failed => Condition::unmet(kind, "PodFailed", String::new()),
        _ if unready.is_empty() => Condition::met(kind),
        _ => {
            let message = format!("containers with unready status: {}", go_list(&unready));
            Condition::unmet(kind, "ContainersNotReady", message)
        }
    }
}

/// A list as Go prints one: `[a b]`.
fn go_list(names: &[&str]) -> String {
    format!("[{}]", names.join(" "))
}

fn timed(view: &View<'_>, condition: Condition, previous: Option<&PodStatus>) -> PodCondition {
    let status = if condition.met { "True" } else { "False" };
    let filled = |text: String| (!text.is_empty()).then_some(text);
    let new = PodCondition {
        type_: condition.kind.to_owned(),
        status: status.to_owned(),
        reason: filled(condition.reason.to_owned()),
        message: filled(condition.message),
        last_transition_time: since(condition.kind, status, previous).or_else(|| time(view.now)),
        last_probe_time: None,
        observed_generation: view.desired.pod.metadata.generation,
    };
    match condition.kind {
        "PodResizePending" | "PodResizeInProgress" => probed(view, new, previous),
        _ => new,
    }
}

/// The conditions of a resize say when they were found so, and another reason is a change.
fn probed(view: &View<'_>, new: PodCondition, previous: Option<&PodStatus>) -> PodCondition {
    let before = previous.and_then(|previous| previous.conditions.as_ref());
    let known = before
        .into_iter()
        .flatten()
        .find(|known| known.type_ == new.type_ && known.reason == new.reason);
    let Some(known) = known else {
        return PodCondition {
            last_transition_time: time(view.now),
            last_probe_time: time(view.now),
            ..new
        };
    };
    let same = known.message == new.message && known.observed_generation == new.observed_generation;
    PodCondition {
        last_probe_time: known
            .last_probe_time
            .clone()
            .filter(|_| same)
            .or_else(|| time(view.now)),
        ..new
    }
}
