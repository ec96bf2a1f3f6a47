//! A pod's status, as `kubectl get pod -o yaml` shows it, computed from what there is of the pod.

mod conditions;
mod container;
mod lost;
mod phase;
mod resources;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, HostIP, PodIP, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use berth_cri::UnixNanos;

use crate::defaults::MAX_POD_TERMINATION_MESSAGE_LOG_LENGTH;
use crate::plan::{Desired, Observed, Plan, Stage, View, effective};
use crate::qos;
use crate::spec::{self, Role};

/// The pod has ended for good: `status.phase` is `Succeeded` or `Failed`.
pub fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// Why a pod with scheduling gates is not scheduled.
pub(crate) const SCHEDULING_GATED: &str = "SchedulingGated";
/// Upstream's sentence about a pod with scheduling gates.
pub(crate) const GATED: &str = "Scheduling is blocked due to non-empty scheduling gates";

/// The pod's status. `previous` is the one before it: a condition keeps the time of its last change.
pub fn pod_status(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    previous: Option<&PodStatus>,
    now: UnixNanos,
) -> PodStatus {
    let generation = desired.pod.metadata.generation;
    let desired = &*effective(desired, &plan.resize);
    let view = View {
        desired,
        observed,
        now,
    };
    let pod = &desired.pod;
    if spec::is_gated(pod) {
        return PodStatus {
            phase: Some(phase::Phase::Pending.to_string()),
            conditions: Some(conditions::gated(&view, previous)),
            qos_class: Some(qos::qos_class(pod).to_string()),
            observed_generation: generation,
            ..PodStatus::default()
        };
    }
    let of = |wanted: fn(Role) -> bool| -> Vec<_> {
        let chosen = view.containers().filter(|(_, role)| wanted(*role));
        chosen
            .map(|(container, role)| container::status(&view, plan, container, role, previous))
            .collect()
    };
    let mut containers = of(|role| role == Role::Main);
    let mut inits = of(|role| role != Role::Main);
    share_messages(containers.iter_mut().chain(&mut inits).collect());
    let ephemeral: Vec<ContainerStatus> = spec::ephemeral_containers(pod)
        .iter()
        .map(|(container, _)| ContainerStatus {
            ready: false,
            ..container::status(&view, plan, container, Role::Main, previous)
        })
        .collect();
    let phase = phase::phase(&view, plan, &inits, &containers, previous);
    let conditions = conditions::conditions(&view, plan, phase, &inits, &containers, previous);
    if plan.stage >= Stage::Terminated {
        lost::mark(&view, &mut inits, &mut containers);
    }
    let ips = pod_ips(&view, previous);
    let host_ips: Vec<String> = desired.node.host_ips.iter().map(ToString::to_string).collect();
    PodStatus {
        phase: Some(phase.to_string()),
        conditions: Some(conditions),
        message: plan.failure.as_ref().map(|failure| failure.message.clone()),
        reason: plan.failure.as_ref().map(|failure| failure.reason.clone()),
        host_ip: host_ips.first().cloned(),
        host_ips: (!host_ips.is_empty()).then(|| host_ips.into_iter().map(|ip| HostIP { ip }).collect()),
        pod_ip: ips.first().cloned(),
        pod_ips: (!ips.is_empty()).then(|| ips.into_iter().map(|ip| PodIP { ip }).collect()),
        start_time: time(observed.admitted_at),
        init_container_statuses: (!inits.is_empty()).then_some(inits),
        container_statuses: Some(containers),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        qos_class: Some(qos::qos_class(pod).to_string()),
        observed_generation: generation,
        allocated_resources: resources::requests(pod),
        resources: resources::of_pod(pod, observed.sizes.as_ref()),
        ..PodStatus::default()
    }
}

/// Termination messages share [`MAX_POD_TERMINATION_MESSAGE_LOG_LENGTH`]: each container may have its part of it.
fn share_messages(containers: Vec<&mut ContainerStatus>) {
    let most = MAX_POD_TERMINATION_MESSAGE_LOG_LENGTH / containers.len().max(1);
    for container in containers {
        let states = [&mut container.state, &mut container.last_state];
        let ended = states
            .into_iter()
            .flatten()
            .filter_map(|state| state.terminated.as_mut());
        for message in ended.filter_map(|terminated| terminated.message.as_mut()) {
            message.truncate(message.floor_char_boundary(most));
        }
    }
}

/// A pod that has ended keeps the addresses that it had.
fn pod_ips(view: &View<'_>, previous: Option<&PodStatus>) -> Vec<String> {
    let Some(sandbox) = view.sandbox() else {
        let before = previous
            .and_then(|status| status.pod_ips.as_deref())
            .unwrap_or_default();
        return before.iter().map(|ip| ip.ip.clone()).collect();
    };
    let host_network = view.desired.pod.spec.as_ref().is_some_and(spec::host_network);
    let ips = if host_network {
        &view.desired.node.host_ips
    } else {
        &sandbox.ips
    };
    ips.iter().map(ToString::to_string).collect()
}

/// A moment as the API writes it; none for 0.
fn time(nanos: UnixNanos) -> Option<Time> {
    if nanos == 0 {
        return None;
    }
    Timestamp::from_nanosecond(i128::from(nanos)).ok().map(Time)
}

#[cfg(test)]
mod tests;
