//! Quality of service: a pod's class, its place among the cgroups, and who dies first when memory is short.

use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};

use crate::defaults::{
    BESTEFFORT_OOM_SCORE_ADJ, GUARANTEED_OOM_SCORE_ADJ, MIN_SHARES, SYSTEM_CRITICAL_PRIORITY,
};
use crate::identity::PodUid;
use crate::quantity::Value;
use crate::resources::{limit, milli_cpu_to_shares, request};
use crate::{pod_resources, spec};

/// `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    /// Every container has a limit of CPU and memory, and requests just that.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is requested or limited.
    BestEffort,
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// The class of a pod: by the pod's own resources if it has any, else by its containers'.
pub fn qos_class(pod: &Pod) -> QosClass {
    let mut any = false;
    let mut guaranteed = true;
    let mut count = |limit: Option<Value>, request: Option<Value>| {
        let positive = |value: Option<Value>| value.filter(|value| *value > Value::default());
        let limit = positive(limit);
        let request = positive(request).or(limit);
        any |= request.is_some();
        guaranteed &= limit.is_some() && limit == request;
    };
    for resource in COMPUTE {
        if pod_resources::is_set(pod) {
            count(
                pod_resources::pod_limit(pod, resource),
                pod_resources::pod_request(pod, resource),
            );
            continue;
        }
        for (container, _) in spec::all_containers(pod) {
            count(limit(container, resource), request(container, resource));
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// The pod's cgroup, relative to the root of each hierarchy: `kubepods/{,burstable/,besteffort/}pod<uid>`.
pub fn pod_cgroup(root: &Path, class: QosClass, uid: &PodUid) -> PathBuf {
    let tier = root.join("kubepods");
    let tier = match class {
        QosClass::Guaranteed => tier,
        QosClass::Burstable => tier.join("burstable"),
        QosClass::BestEffort => tier.join("besteffort"),
    };
    tier.join(format!("pod{uid}"))
}

/// CFS shares of a tier's cgroup, if the group is a tier (setCPUCgroupConfig): Burstable pods together weigh what they
/// request, BestEffort pods together get what is left.
pub fn tier_shares(tier: &Path, requested_milli_cpu: i64) -> Option<u64> {
    if tier.ends_with("kubepods/besteffort") {
        return Some(MIN_SHARES);
    }
    tier.ends_with("kubepods/burstable")
        .then(|| milli_cpu_to_shares(requested_milli_cpu))
}

/// `oom_score_adj` of a container on a node with this many bytes of memory.
pub fn oom_score_adj(pod: &Pod, container: &Container, role: spec::Role, memory_capacity: u64) -> i32 {
    let priority = pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0);
    // system-node-critical is the system's base priority and a thousand.
    if priority >= SYSTEM_CRITICAL_PRIORITY + 1000 {
        return GUARANTEED_OOM_SCORE_ADJ;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => return GUARANTEED_OOM_SCORE_ADJ,
        QosClass::BestEffort => return BESTEFFORT_OOM_SCORE_ADJ,
        QosClass::Burstable => {}
    }
    let score = |requested: i64| {
        let capacity = i128::from(memory_capacity.max(1));
        i32::try_from(1000 - 1000 * i128::from(requested) / capacity).unwrap_or(i32::MIN)
    };
    let spare = pod_resources::spare_memory(pod);
    let mut adjust = score(memory_request(container) + spare);
    if role == spec::Role::Sidecar {
        // A sidecar outlives the containers that need it.
        let least = spec::containers(pod)
            .iter()
            .map(memory_request)
            .min()
            .unwrap_or(0);
        adjust = adjust.min(score(least + spare));
    }
    adjust.clamp(1000 + GUARANTEED_OOM_SCORE_ADJ, BESTEFFORT_OOM_SCORE_ADJ - 1)
}

fn memory_request(container: &Container) -> i64 {
    request(container, "memory")
        .or_else(|| limit(container, "memory"))
        .unwrap_or_default()
        .as_units()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    const GI: u64 = 1 << 30;

    fn class(resources: &[&str]) -> QosClass {
        qos_class(&with(resources))
    }

    fn with(resources: &[&str]) -> Pod {
        let containers: Vec<String> = resources
            .iter()
            .enumerate()
            .map(|(i, resources)| format!("{{\"name\":\"c{i}\",\"image\":\"i\",\"resources\":{resources}}}"))
            .collect();
        pod(&format!("{{\"containers\":[{}]}}", containers.join(",")))
    }

    #[test]
    fn classes() {
        let full = r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"1000m","memory":"1024Mi"}}"#;
        assert_eq!(class(&["{}"]), QosClass::BestEffort);
        assert_eq!(class(&[r#"{"requests":{"cpu":"0"}}"#]), QosClass::BestEffort);
        assert_eq!(class(&[full]), QosClass::Guaranteed);
        assert_eq!(
            class(&[r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#]),
            QosClass::Guaranteed
        );
        assert_eq!(class(&[full, "{}"]), QosClass::Burstable);
        assert_eq!(class(&[r#"{"limits":{"cpu":"1"}}"#]), QosClass::Burstable);
        assert_eq!(class(&[r#"{"requests":{"memory":"1"}}"#]), QosClass::Burstable);
    }

    #[test]
    fn cgroups() {
        let uid = PodUid("u".to_owned());
        let path = |class| pod_cgroup(Path::new(""), class, &uid);
        assert_eq!(path(QosClass::Guaranteed), Path::new("kubepods/podu"));
        assert_eq!(path(QosClass::Burstable), Path::new("kubepods/burstable/podu"));
        assert_eq!(path(QosClass::BestEffort), Path::new("kubepods/besteffort/podu"));
    }

    #[test]
    fn oom_scores() {
        for (resources, expected) in [
            ("{}", 1000),
            (r#"{"limits":{"cpu":"1","memory":"1Gi"}}"#, -997),
            (r#"{"requests":{"memory":"1Gi"}}"#, 750),
            (r#"{"requests":{"memory":"1"}}"#, 999),
            (r#"{"requests":{"memory":"4Gi"}}"#, 3),
            (r#"{"requests":{"memory":"40Gi"}}"#, 3),
        ] {
            let pod = with(&[resources]);
            let score = oom_score_adj(&pod, &spec::containers(&pod)[0], spec::Role::Main, 4 * GI);
            assert_eq!(score, expected, "{resources}");
        }
    }

    #[test]
    fn a_sidecar_outlives_its_main() {
        let pod = pod(
            r#"{"initContainers":[{"name":"s","image":"i","restartPolicy":"Always"}],
                "containers":[{"name":"c","image":"i","resources":{"requests":{"memory":"1Gi"}}}]}"#,
        );
        let sidecar = &spec::init_containers(&pod)[0];
        assert_eq!(oom_score_adj(&pod, sidecar, spec::Role::Sidecar, 4 * GI), 750);
    }
}
