//! Kinds that make pods, which a controller would have to look after.

/// What to do with a document of that kind, if it is one that people try.
pub(super) fn hint(version: &str, kind: &str) -> Option<&'static str> {
    let is_workload = matches!(
        (version, kind),
        (
            "apps/v1",
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet"
        ) | ("batch/v1", "Job" | "CronJob")
    );
    is_workload.then_some(
        "controllers make pods of it, and they come with `berth up`; what is under spec.template is a Pod that \
         `berth run` runs",
    )
}
