//! Kinds of documents that can't be run, and what to do with them.

use super::nearest;

/// Kinds that can.
const KNOWN: [&str; 6] = [
    "Pod",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "PersistentVolume",
    "PriorityClass",
];
const LEAVE: &str = "leave it out, or let `--lenient` do that";

/// What to do with a document of a kind that can't be run.
pub(super) struct Advice {
    /// For whoever wrote it.
    pub(super) hint: String,
    /// The pods of the other documents run without it.
    pub(super) can_be_left_out: bool,
}

/// What to do with a document of that kind.
pub(super) fn advice(version: &str, kind: &str) -> Advice {
    let advice = |hint, can_be_left_out| Advice {
        hint,
        can_be_left_out,
    };
    let (group, _) = version.split_once('/').unwrap_or(("", version));
    let template = match (group, kind) {
        ("batch", "CronJob") => Some("spec.jobTemplate.spec.template"),
        ("apps" | "extensions", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet")
        | ("batch", "Job")
        | ("", "ReplicationController") => Some("spec.template"),
        _ => None,
    };
    if let Some(template) = template {
        let hint = format!(
            "controllers make pods of it, and they come with `berth up`; what is under {template} is a Pod that `berth \
             run` runs"
        );
        return advice(hint, false);
    }
    if KNOWN.contains(&kind) {
        let version = if kind == "PriorityClass" {
            "scheduling.k8s.io/v1"
        } else {
            "v1"
        };
        return advice(format!("its apiVersion is {version}"), false);
    }
    if let Some(near) = nearest(kind, &KNOWN) {
        return advice(format!("did you mean {near:?}?"), false);
    }
    let hint = match (version, kind) {
        ("v1", "Service") => {
            format!("pods are reached at their own addresses here, and by hostPort; {LEAVE}")
        }
        ("v1", "Namespace") => format!("a pod's namespace needs none here; {LEAVE}"),
        _ => format!(
            "Pod, ConfigMap, Secret, PersistentVolumeClaim and PersistentVolume of apiVersion v1 can, and PriorityClass \
             of scheduling.k8s.io/v1 with them; {LEAVE}"
        ),
    };
    advice(hint, true)
}
