//! Other resources for a pod that runs.
//!
//! A wish is given whole or not at all ([`decide`]). Then, with no step depending on when another ends: the pod's group
//! gets what both its containers as they are and as they are to be may have, each container its new limits, and the
//! group what is right for what is there then. Containers are started only when their group is wide enough.

use std::borrow::Cow;
use std::sync::Arc;

use berth_cri::{ContainerState, ContainerStatus, LinuxContainerResources, SandboxId};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::termination::{retry_at, wake};
use super::view::{View, is_running};
use super::{Desired, MemoryCuts, Observed, Plan, PodCgroup, Step, StepKey};
use crate::admission::not_enough;
use crate::requests::Requests;
use crate::resources::{container_resources, pod_milli_cpu, pod_resources};
use crate::sizes::{self, Allocation, Sizes};
use crate::spec::{RestartPolicy, Role};
use crate::{backoff, defaults, qos};

/// How far a pod's resize is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resize {
    /// The node gives the pod this from now on. The executor enters it in [`Sizes::allocated`].
    pub allocated: Option<Allocation>,
    /// The pod with what it was given, where that is not what it asks for or has just been given.
    pub effective: Option<Arc<Pod>>,
    /// What the pod asks for can't be given now.
    pub pending: Option<Pending>,
    /// What was given is not there yet.
    pub in_progress: Option<InProgress>,
}

/// Why a pod does not get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// It never will; else it may when other pods are gone.
    pub infeasible: bool,
    /// A sentence for people.
    pub message: String,
}

/// A pod is being made what it is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InProgress {
    /// What was tried and failed; it is tried again.
    pub error: Option<String>,
}

/// Whether the pod gets what it asks for.
pub(crate) fn decide(desired: &Desired, observed: &Observed) -> Resize {
    let mut resize = Resize::default();
    let Some(sizes) = &observed.sizes else {
        return resize;
    };
    let wanted = Allocation::of(&desired.pod);
    if wanted == sizes.allocated {
        return resize;
    }
    match refusal(desired, observed, sizes, &wanted) {
        None => resize.allocated = Some(wanted),
        Some(pending) => {
            resize.pending = Some(pending);
            resize.effective = Some(sizes.allocated.applied(&desired.pod));
        }
    }
    resize
}

/// The pod as it is to be now: with what the node gives it.
pub(crate) fn effective<'a>(desired: &'a Desired, resize: &Resize) -> Cow<'a, Desired> {
    match &resize.effective {
        None => Cow::Borrowed(desired),
        Some(pod) => Cow::Owned(Desired {
            pod: Arc::clone(pod),
            ..desired.clone()
        }),
    }
}

fn refusal(desired: &Desired, observed: &Observed, sizes: &Sizes, wanted: &Allocation) -> Option<Pending> {
    let infeasible = |message: String| {
        Some(Pending {
            infeasible: true,
            message,
        })
    };
    let before = sizes.allocated.applied(&desired.pod);
    if let Some(gone) = sizes.allocated.removed(wanted) {
        return infeasible(format!("{gone} can't be taken away from a pod that runs"));
    }
    let (old, new) = (qos::qos_class(&before), qos::qos_class(&desired.pod));
    if old != new {
        return infeasible(format!(
            "the pod's QoS class can't change while it runs, and would become {new} instead of {old}"
        ));
    }
    let (has, asks) = (Requests::of(&before), Requests::of(&desired.pod));
    let nothing = Requests::default();
    let others = observed.others.as_ref().unwrap_or(&nothing);
    let resources = ["memory", "cpu"].map(|name| {
        let all = desired.node.capacity(name).unwrap_or_default();
        (name, has.get(name), asks.get(name), others.get(name), all)
    });
    // A capacity that is not known forbids nothing.
    let growing = || {
        resources
            .iter()
            .filter(|(_, has, asks, _, all)| asks > has && *all > 0)
    };
    if let Some((name, _, asks, _, all)) = growing().find(|(_, _, asks, _, all)| asks > all) {
        return infeasible(format!(
            "Node didn't have enough capacity: {name}, requested: {asks}, capacity: {all}"
        ));
    }
    let (name, _, asks, used, all) =
        growing().find(|(_, _, asks, used, all)| asks.saturating_add(*used) > *all)?;
    Some(Pending {
        infeasible: false,
        message: not_enough(name, *asks, *used, *all),
    })
}

/// Asks again for what could not be given: other pods may be gone then.
pub(crate) fn wake_for_pending(view: &View<'_>, plan: &mut Plan) {
    let deferred = plan
        .resize
        .pending
        .as_ref()
        .is_some_and(|pending| !pending.infeasible);
    if deferred {
        wake(plan, backoff::after(view.now, defaults::RESIZE_RETRY));
    }
}

/// Gives the pod's group what its containers need, those that run with something else among them.
pub(crate) fn sync_group(view: &View<'_>, sandbox: &SandboxId, plan: &mut Plan) {
    let Some(sizes) = &view.observed.sizes else { return };
    let target = group(view, sizes);
    if sizes.group == target {
        return;
    }
    let key = StepKey::ResizePod;
    note_progress(view, &key, plan);
    // What a container is being given at this moment may be more than it has and more than it is to have by now.
    let mut in_flight = view.observed.in_flight.iter();
    if in_flight.any(|key| matches!(key, StepKey::ResizeContainer(_))) {
        return;
    }
    if let Some(at) = retry_at(view, &key) {
        return wake(plan, at);
    }
    let pod = &view.desired.pod;
    plan.steps.push(Step::ResizePod {
        cgroup: PodCgroup {
            path: qos::pod_cgroup(
                &view.desired.node.cgroup_root,
                qos::qos_class(pod),
                &view.desired.uid,
            ),
            milli_cpu: pod_milli_cpu(pod),
            resources: target.clone(),
        },
        sandbox: sandbox.clone(),
        lowers_memory: lowers(sizes.group.memory_limit, target.memory_limit),
        cuts: cuts(view),
    });
}

/// The limits of memory that become less while the pod runs.
fn cuts(view: &View<'_>) -> MemoryCuts {
    let Some(sizes) = &view.observed.sizes else {
        return MemoryCuts::default();
    };
    let (pod, node) = (&view.desired.pod, &view.desired.node);
    let whole = pod_resources(pod, node).memory_limit;
    let path = || qos::pod_cgroup(&node.cgroup_root, qos::qos_class(pod), &view.desired.uid);
    let running = view.containers().filter_map(|(container, role)| {
        let record = view.latest(&container.name).filter(|record| is_running(record))?;
        let (actual, _) = changed(view, container, record)?;
        let in_place = !needs_restart(view, container, role, record);
        let lowers = sizes::lowers_memory(&actual, &sizes::wish(pod, container));
        let limit = container_resources(pod, container, role, node).memory_limit?;
        (in_place && lowers).then(|| (record.id.clone(), container.name.clone(), limit))
    });
    MemoryCuts {
        pod: whole
            .filter(|_| lowers(sizes.group.memory_limit, whole))
            .map(|limit| (path(), limit)),
        containers: running.collect(),
    }
}

fn lowers(from: Option<i64>, to: Option<i64>) -> bool {
    match (from, to) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(from), Some(to)) => to < from,
    }
}

/// What the pod's group is to have, with its containers as they are.
fn group(view: &View<'_>, sizes: &Sizes) -> LinuxContainerResources {
    let (pod, node) = (&view.desired.pod, &view.desired.node);
    let wanted = pod_resources(pod, node);
    let mut as_it_is = Allocation::of(pod);
    let mut differing = Vec::new();
    for (container, _) in view.containers() {
        let Some(record) = lives(view, &container.name) else {
            continue;
        };
        let actual = sizes::actual(Some(sizes), record);
        if !sizes::differences(&actual, &sizes::wish(pod, container)).is_empty() {
            as_it_is.containers.insert(container.name.clone(), actual.clone());
            differing.push(actual);
        }
    }
    if differing.is_empty() {
        return wanted;
    }
    let both = sizes::wider(&wanted, &pod_resources(&as_it_is.applied(pod), node));
    differing.iter().fold(both, sizes::widened)
}

/// The container's record if there is a process behind it.
fn lives<'a>(view: &View<'a>, name: &str) -> Option<&'a ContainerStatus> {
    view.latest(name)
        .filter(|record| matches!(record.state, ContainerState::Created | ContainerState::Running))
}

/// The pod's group has not got yet what a container that is to be started may need, or is being given something else at this
/// moment, which may be less.
pub(crate) fn holds_up(view: &View<'_>) -> bool {
    let Some(sizes) = &view.observed.sizes else {
        return false;
    };
    let wanted = pod_resources(&view.desired.pod, &view.desired.node);
    view.observed.in_flight.contains(&StepKey::ResizePod) || !sizes::holds(&sizes.group, &wanted)
}

/// A container that runs with something else than it is to have has to be started anew for that.
pub(crate) fn needs_restart(
    view: &View<'_>,
    container: &Container,
    role: Role,
    record: &ContainerStatus,
) -> bool {
    let Some((_, changed)) = changed(view, container, record) else {
        return false;
    };
    // One that is never started again keeps running, as upstream.
    view.policy(container, role) != RestartPolicy::Never
        && container.resize_policy.iter().flatten().any(|policy| {
            policy.restart_policy == "RestartContainer" && changed.contains(&policy.resource_name.as_str())
        })
}

/// What a running container has, and which of its resources are to be others.
fn changed(
    view: &View<'_>,
    container: &Container,
    record: &ContainerStatus,
) -> Option<(ResourceRequirements, Vec<&'static str>)> {
    let sizes = view.observed.sizes.as_ref()?;
    let actual = sizes::actual(Some(sizes), record);
    let changed = sizes::differences(&actual, &sizes::wish(&view.desired.pod, container));
    (!changed.is_empty()).then_some((actual, changed))
}

/// Gives a running container what it is to have.
pub(crate) fn sync_container(
    view: &View<'_>,
    container: &Container,
    role: Role,
    record: &ContainerStatus,
    plan: &mut Plan,
) {
    if changed(view, container, record).is_none() {
        return;
    }
    let key = StepKey::ResizeContainer(record.id.clone());
    note_progress(view, &key, plan);
    if holds_up(view) {
        return;
    }
    if let Some(at) = retry_at(view, &key) {
        return wake(plan, at);
    }
    let wish = sizes::wish(&view.desired.pod, container);
    plan.steps.push(Step::ResizeContainer {
        id: record.id.clone(),
        name: container.name.clone(),
        cuts: cuts(view),
        limits: Box::new(container_resources(
            &view.desired.pod,
            container,
            role,
            &view.desired.node,
        )),
        resources: wish,
    });
}

/// A container that is being started anew has not got yet what it is to have.
pub(crate) fn note_restart(plan: &mut Plan) {
    plan.resize.in_progress.get_or_insert_default();
}

/// The same, of one that was ended for that and does not run again yet.
pub(crate) fn note_start(
    view: &View<'_>,
    container: &Container,
    ended: Option<&ContainerStatus>,
    plan: &mut Plan,
) {
    let ended = ended.filter(|ended| view.is_restarted(ended));
    if ended.is_some_and(|ended| changed(view, container, ended).is_some()) {
        note_restart(plan);
    }
}

fn note_progress(view: &View<'_>, key: &StepKey, plan: &mut Plan) {
    let progress = plan.resize.in_progress.get_or_insert_default();
    if let Some(failure) = view.observed.failures.get(key) {
        let message = failure.message.clone();
        progress.error = Some(match progress.error.take() {
            // All steps of a resize look at the memory of the whole pod first.
            Some(error) if error.contains(&message) => error,
            None => message,
            Some(error) => format!("{error}; {message}"),
        });
    }
}

/// What a running container has, if that is not what it is to have.
pub(crate) fn actual(view: &View<'_>, container: &Container) -> Option<ResourceRequirements> {
    let record = view.latest(&container.name).filter(|record| is_running(record))?;
    changed(view, container, record).map(|(actual, _)| actual)
}
