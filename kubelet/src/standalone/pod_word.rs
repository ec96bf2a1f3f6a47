//! The word that a list has for how a pod is.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, Pod, PodCondition, PodStatus};

use crate::spec;
use crate::status::{SCHEDULING_GATED, has_ended};

/// The STATUS column as kubectl has it: what init containers are at, why a container waits or ended, else the phase.
pub(super) fn word(pod: &Pod, status: &PodStatus, ends: bool) -> String {
    if ends && !has_ended(status) {
        return "Terminating".to_owned();
    }
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    let whole = status.reason.clone().unwrap_or(phase);
    let is_gated = |condition: &PodCondition| {
        condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some(SCHEDULING_GATED)
    };
    if status.conditions.iter().flatten().any(is_gated) {
        return SCHEDULING_GATED.to_owned();
    }
    let is_true = |kind: &str| {
        let mut conditions = status.conditions.iter().flatten();
        conditions.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    if !is_true("Initialized")
        && let Some(word) = init_word(pod, status)
    {
        return word;
    }
    let containers = || status.container_statuses.iter().flatten();
    // The first container that has one tells it.
    let reason = containers().find_map(|container| {
        let state = container.state.as_ref()?;
        let waits = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waits.or_else(|| state.terminated.as_ref().map(ended_word))
    });
    let runs = |state: &ContainerState| state.running.is_some();
    let has_running = containers().any(|one| one.ready && one.state.as_ref().is_some_and(runs));
    match reason {
        Some(reason) if reason == "Completed" && has_running => match is_true("Ready") {
            true => "Running".to_owned(),
            false => "NotReady".to_owned(),
        },
        // Why the whole pod failed says more than how its containers ended.
        Some(reason) => status.reason.clone().unwrap_or(reason),
        None => whole,
    }
}

/// What the init containers are at; `None` if all are done.
fn init_word(pod: &Pod, status: &PodStatus) -> Option<String> {
    let all = spec::init_containers(pod);
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        let sidecar = all
            .iter()
            .any(|one| one.name == container.name && spec::is_sidecar(one));
        let state = container.state.clone().unwrap_or_default();
        let word = match (state.terminated, state.waiting.and_then(|waiting| waiting.reason)) {
            (Some(ended), _) if ended.exit_code == 0 => continue,
            _ if sidecar && container.started == Some(true) => continue,
            (Some(ended), _) => ended_word(&ended),
            (None, Some(reason)) if reason != "PodInitializing" && reason != "ContainerCreating" => reason,
            _ => format!("{index}/{}", all.len()),
        };
        return Some(format!("Init:{word}"));
    }
    None
}

fn ended_word(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.clone().filter(|reason| !reason.is_empty());
    reason.unwrap_or_else(|| match ended.signal {
        Some(signal) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", ended.exit_code),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing;

    #[test]
    fn the_status_is_kubectl_s_word() {
        let pod = testing::pod(
            r#"{"initContainers":[{"name":"one","image":"i"},{"name":"side","image":"i","restartPolicy":"Always"}],
                "containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}"#,
        );
        let of = |name: &str, state: Value| {
            let ready = state.get("running").is_some();
            json!({ "name": name, "image": "i", "imageID": "", "ready": ready, "started": ready, "restartCount": 0, "state": state })
        };
        let running = json!({ "running": {} });
        let waiting = |reason: &str| json!({ "waiting": { "reason": reason } });
        let ended = |code: i32, reason: &str| json!({ "terminated": { "exitCode": code, "reason": reason } });
        let said = |inits: [Value; 2], mains: [Value; 2], more: Value| {
            let mut status = json!({
                "phase": "Running",
                "initContainerStatuses": [of("one", inits[0].clone()), of("side", inits[1].clone())],
                "containerStatuses": [of("a", mains[0].clone()), of("b", mains[1].clone())],
            });
            status
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            word(&pod, &serde_json::from_value(status).unwrap(), false)
        };
        let begun = [ended(0, "Completed"), running.clone()];
        let pending = [waiting("PodInitializing"), waiting("PodInitializing")];
        let ready = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        for (inits, mains, more, expected) in [
            (
                [running.clone(), waiting("PodInitializing")],
                pending.clone(),
                json!({}),
                "Init:0/2",
            ),
            (
                [ended(0, "Completed"), waiting("PodInitializing")],
                pending.clone(),
                json!({}),
                "Init:1/2",
            ),
            (
                [ended(1, "Error"), waiting("PodInitializing")],
                pending.clone(),
                json!({}),
                "Init:Error",
            ),
            (
                [ended(3, ""), waiting("PodInitializing")],
                pending.clone(),
                json!({}),
                "Init:ExitCode:3",
            ),
            (
                [waiting("CrashLoopBackOff"), waiting("PodInitializing")],
                pending.clone(),
                json!({}),
                "Init:CrashLoopBackOff",
            ),
            (begun.clone(), pending, json!({}), "PodInitializing"),
            (
                begun.clone(),
                [running.clone(), running.clone()],
                json!({}),
                "Running",
            ),
            (
                begun.clone(),
                [running.clone(), waiting("ImagePullBackOff")],
                json!({}),
                "ImagePullBackOff",
            ),
            (
                begun.clone(),
                [running.clone(), ended(0, "Completed")],
                json!({}),
                "NotReady",
            ),
            (begun.clone(), [running, ended(0, "Completed")], ready, "Running"),
            (
                begun,
                [ended(137, "Error"), ended(0, "Completed")],
                json!({ "phase": "Failed", "reason": "Evicted" }),
                "Evicted",
            ),
        ] {
            assert_eq!(said(inits, mains, more), expected);
        }
        assert_eq!(word(&pod, &PodStatus::default(), true), "Terminating");
        let gated = json!({ "phase": "Pending", "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "SchedulingGated" }] });
        assert_eq!(
            word(&pod, &serde_json::from_value(gated).unwrap(), false),
            "SchedulingGated"
        );
    }
}
