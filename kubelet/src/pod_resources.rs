//! Resources of the pod as a whole: `spec.resources` and `spec.overhead`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{Value, value_of};
use crate::resources::{limit, pod_total, request};
use crate::spec;

/// What `spec.resources` may name beside `hugepages-<size>`.
pub const POD_LEVEL: [&str; 2] = ["cpu", "memory"];

/// `spec.resources` says something.
pub fn is_set(pod: &Pod) -> bool {
    let there =
        |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().is_some_and(|list| !list.is_empty());
    of(pod).is_some_and(|own| there(&own.limits) || there(&own.requests))
}

fn of(pod: &Pod) -> Option<&ResourceRequirements> {
    pod.spec.as_ref()?.resources.as_ref()
}

/// `spec.resources.limits[resource]`.
pub fn pod_limit(pod: &Pod, resource: &str) -> Option<Value> {
    of(pod)?.limits.as_ref()?.get(resource).map(value_of)
}

/// `spec.resources.requests[resource]`.
pub fn pod_request(pod: &Pod, resource: &str) -> Option<Value> {
    of(pod)?.requests.as_ref()?.get(resource).map(value_of)
}

/// `spec.overhead[resource]`.
pub fn overhead(pod: &Pod, resource: &str) -> Value {
    let own = pod.spec.as_ref().and_then(|spec| spec.overhead.as_ref());
    own.and_then(|own| own.get(resource))
        .map(value_of)
        .unwrap_or_default()
}

/// What the containers request together of a resource, the largest init container counted.
pub fn containers_request(pod: &Pod, resource: &str) -> Value {
    pod_total(pod, resource, |container, resource| {
        request(container, resource)
            .or_else(|| limit(container, resource))
            .unwrap_or_default()
    })
}

/// What a container may use that has no limit of its own: all that the pod may.
pub fn default_limit(pod: &Pod, resource: &str) -> Option<Value> {
    pod_limit(pod, resource).filter(|limit| !limit.is_zero())
}

/// A container's part of the memory that the pod requests beyond what its containers do, in bytes: they may all use it.
pub fn spare_memory(pod: &Pod) -> i64 {
    let Some(whole) = pod_request(pod, "memory") else {
        return 0;
    };
    let own = containers_request(pod, "memory");
    let running = spec::all_containers(pod).filter(|(_, role)| *role != spec::Role::Init);
    let count = i64::try_from(running.count()).unwrap_or(1).max(1);
    (whole.as_units() - own.as_units()).max(0) / count
}

/// Fills in how many huge pages a pod with resources of its own may have: as many as its containers.
pub fn default_huge_pages(spec: &mut PodSpec) {
    let aside = Pod {
        spec: Some(spec.clone()),
        ..Pod::default()
    };
    let Some(own) = spec.resources.as_mut().filter(|_| is_set(&aside)) else {
        return;
    };
    let limits = spec::all_containers(&aside)
        .filter_map(|(container, _)| container.resources.as_ref()?.limits.as_ref())
        .flat_map(BTreeMap::keys);
    let sizes: BTreeSet<&String> = limits.filter(|name| name.starts_with("hugepages-")).collect();
    for size in sizes {
        let asked = own.requests.as_ref().is_some_and(|list| list.contains_key(size));
        if !asked {
            let sum = pod_total(&aside, size, |container, size| {
                limit(container, size).unwrap_or_default()
            });
            let limits = own.limits.get_or_insert_default();
            limits
                .entry(size.clone())
                .or_insert_with(|| Quantity(sum.as_units().to_string()));
        }
    }
}

/// Fills in what a pod with limits of its own requests: what its containers request, or else its limit.
pub fn default_requests(spec: &mut PodSpec) {
    let limits = spec.resources.as_ref().and_then(|own| own.limits.clone());
    let Some(limits) = limits.filter(|limits| !limits.is_empty()) else {
        return;
    };
    let aside = Pod {
        spec: Some(spec.clone()),
        ..Pod::default()
    };
    let asked = |resource: &str| {
        spec::all_containers(&aside).any(|(container, _)| request(container, resource).is_some())
    };
    let Some(own) = &mut spec.resources else { return };
    let requests = own.requests.get_or_insert_default();
    for resource in POD_LEVEL.into_iter().filter(|resource| asked(resource)) {
        let total = containers_request(&aside, resource);
        let value = match resource {
            "cpu" => format!("{}m", total.as_milli()),
            _ => total.as_units().to_string(),
        };
        requests.entry(resource.to_owned()).or_insert(Quantity(value));
    }
    for (resource, limit) in limits {
        requests.entry(resource).or_insert(limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::NodeFacts;
    use crate::qos::{QosClass, oom_score_adj, qos_class};
    use crate::resources::{container_resources, pod_resources};
    use crate::testing::pod;

    fn defaulted(spec: &str) -> Pod {
        let mut pod = pod(spec);
        crate::defaulting::default_pod(&mut pod);
        pod
    }

    #[test]
    fn requests_come_from_the_containers_or_the_limit() {
        let pod = defaulted(
            r#"{"resources":{"limits":{"cpu":"2","memory":"1Gi"}},
                "containers":[{"name":"a","image":"i","resources":{"requests":{"cpu":"250m"}}},{"name":"b","image":"i"}]}"#,
        );
        assert_eq!(pod_request(&pod, "cpu").unwrap().as_milli(), 250);
        assert_eq!(pod_request(&pod, "memory").unwrap().as_units(), 1 << 30);
        assert_eq!(qos_class(&pod), QosClass::Burstable);
    }

    #[test]
    fn the_pod_s_own_resources_make_its_class_and_its_group() {
        let pod = defaulted(
            r#"{"resources":{"limits":{"cpu":"2","memory":"1Gi"}},"containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}"#,
        );
        assert_eq!(qos_class(&pod), QosClass::Guaranteed);
        let node = NodeFacts::default();
        let group = pod_resources(&pod, &node);
        assert_eq!(
            (group.cpu_shares, group.cpu_quota, group.memory_limit),
            (Some(2048), Some(200_000), Some(1 << 30))
        );
        // A container without limits may use what the pod may, and weighs as much, as upstream.
        let own = container_resources(&pod, &spec::containers(&pod)[0], spec::Role::Main, &node);
        assert_eq!(
            (own.cpu_shares, own.cpu_quota, own.memory_limit),
            (Some(2048), Some(200_000), Some(1 << 30))
        );
    }

    #[test]
    fn a_limit_of_the_pod_is_enough_for_its_group() {
        let pod = defaulted(
            r#"{"resources":{"limits":{"memory":"1Gi"}},"containers":[{"name":"a","image":"i","resources":{"limits":{"memory":"64Mi"}}}]}"#,
        );
        let group = pod_resources(&pod, &NodeFacts::default());
        assert_eq!((group.memory_limit, group.cpu_quota), (Some(1 << 30), None));
    }

    #[test]
    fn overhead_is_added_to_what_the_pod_has() {
        let pod = defaulted(
            r#"{"overhead":{"cpu":"250m","memory":"32Mi"},"containers":[{"name":"a","image":"i",
                "resources":{"limits":{"cpu":"500m","memory":"32Mi"}}}]}"#,
        );
        let group = pod_resources(&pod, &NodeFacts::default());
        assert_eq!(
            (group.cpu_shares, group.cpu_quota, group.memory_limit),
            (Some(768), Some(75_000), Some(64 << 20))
        );
        let bare = defaulted(r#"{"overhead":{"cpu":"250m"},"containers":[{"name":"a","image":"i"}]}"#);
        // What is not limited stays so.
        assert_eq!(pod_resources(&bare, &NodeFacts::default()).cpu_quota, None);
    }

    #[test]
    fn spare_memory_is_shared() {
        let pod = defaulted(
            r#"{"resources":{"requests":{"memory":"3Gi"}},"containers":[
                {"name":"a","image":"i","resources":{"requests":{"memory":"1Gi"}}},{"name":"b","image":"i"}]}"#,
        );
        let score =
            |index: usize| oom_score_adj(&pod, &spec::containers(&pod)[index], spec::Role::Main, 4 << 30);
        assert_eq!((score(0), score(1)), (500, 750));
    }

    #[test]
    fn a_container_without_a_request_weighs_what_the_pod_may_use() {
        let shares = |own: &str| {
            let pod = pod(&format!(
                r#"{{"resources":{{"limits":{{"cpu":"500m"}}}},"containers":[{{"name":"c","image":"i","resources":{own}}}]}}"#
            ));
            let container = &spec::containers(&pod)[0];
            container_resources(&pod, container, spec::Role::Main, &NodeFacts::default()).cpu_shares
        };
        assert_eq!(shares("{}"), Some(512));
        assert_eq!(shares(r#"{"requests":{"cpu":"50m"}}"#), Some(51));
        assert_eq!(shares(r#"{"limits":{"cpu":"250m"}}"#), Some(256));
    }
}
