//! Requests and limits as the kernel's numbers.

use std::collections::BTreeMap;

use berth_cri::LinuxContainerResources;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::defaults::{
    MAX_SHARES, MILLI_CPU_TO_CPU, MIN_QUOTA_PERIOD, MIN_SHARES, QUOTA_PERIOD, SHARES_PER_CPU,
};
use crate::plan::NodeFacts;
use crate::qos::{self, QosClass};
use crate::quantity::{Value, value_of};
use crate::spec::{self, Role};
use crate::{annotations, pod_resources};

/// `resources.limits[resource]` of a container.
pub fn limit(container: &Container, resource: &str) -> Option<Value> {
    lookup(container.resources.as_ref()?.limits.as_ref(), resource)
}

/// `resources.requests[resource]` of a container.
pub fn request(container: &Container, resource: &str) -> Option<Value> {
    lookup(container.resources.as_ref()?.requests.as_ref(), resource)
}

fn lookup(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Value> {
    list?.get(resource).map(value_of)
}

/// CFS shares of thousandths of a CPU (MilliCPUToShares).
pub fn milli_cpu_to_shares(milli: i64) -> u64 {
    let milli = u64::try_from(milli).unwrap_or(0);
    (milli.saturating_mul(SHARES_PER_CPU) / MILLI_CPU_TO_CPU).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota of thousandths of a CPU in a period of [`QUOTA_PERIOD`]; `None` for nothing (MilliCPUToQuota).
pub fn milli_cpu_to_quota(milli: i64) -> Option<i64> {
    let milli = u64::try_from(milli).ok().filter(|milli| *milli > 0)?;
    let quota = (milli.saturating_mul(QUOTA_PERIOD) / MILLI_CPU_TO_CPU).max(MIN_QUOTA_PERIOD);
    Some(i64::try_from(quota).unwrap_or(i64::MAX))
}

/// Thousandths of a CPU of a quota in a period of [`QUOTA_PERIOD`].
pub fn quota_to_milli_cpu(quota: i64) -> i64 {
    let period = i64::try_from(QUOTA_PERIOD).unwrap_or(i64::MAX);
    quota.saturating_mul(1000) / period
}

/// A container's limits for the engine.
pub fn container_resources(
    pod: &Pod,
    container: &Container,
    role: Role,
    node: &NodeFacts,
) -> LinuxContainerResources {
    let oom_score_adj = qos::oom_score_adj(pod, container, role, node.memory_capacity);
    if node.without_cgroups {
        return LinuxContainerResources {
            oom_score_adj,
            ..LinuxContainerResources::default()
        };
    }
    let limited = |resource| limit(container, resource).filter(|limit| !limit.is_zero());
    let cpu_limit = limited("cpu").or_else(|| pod_resources::default_limit(pod, "cpu"));
    let cpu_limit = cpu_limit.unwrap_or_default();
    let cpu_request = request(container, "cpu").unwrap_or(cpu_limit);
    let memory_limit = limited("memory")
        .or_else(|| pod_resources::default_limit(pod, "memory"))
        .map(Value::as_units)
        .filter(|bytes| *bytes > 0);
    let quota = milli_cpu_to_quota(cpu_limit.as_milli());
    let mut resources = LinuxContainerResources {
        cpu_shares: Some(milli_cpu_to_shares(cpu_request.as_milli())),
        cpu_quota: quota,
        cpu_period: quota.map(|_| QUOTA_PERIOD),
        memory_limit,
        // On v2 swap is a limit of its own, also where memory has none.
        memory_swap_limit: memory_limit.filter(|_| node.swap_accounting && !node.cgroup_v2_memory),
        oom_score_adj,
        hugepage_limits: hugepage_limits(pod, container, node),
        ..LinuxContainerResources::default()
    };
    let mut unified = |file: &str, value: &str| {
        resources.unified.insert(file.to_owned(), value.to_owned());
    };
    if node.cgroup_v2_memory && node.swap_accounting {
        unified("memory.swap.max", "0");
    }
    if node.cgroup_v2_memory && annotations::memory_oom_group(pod) {
        unified("memory.oom.group", "1");
    }
    node.lacking.without(resources)
}

/// Of each size that the node has: what the container may have, or else the pod, or else nothing
/// (GetHugepageLimitsFromResources).
fn hugepage_limits(pod: &Pod, container: &Container, node: &NodeFacts) -> BTreeMap<String, u64> {
    let of = |resources: Option<&ResourceRequirements>| {
        let limits = resources.and_then(|resources| resources.limits.clone());
        let pages = limits.into_iter().flatten().filter_map(|(resource, quantity)| {
            let size = hugepage_size(resource.strip_prefix("hugepages-")?)?;
            Some((size, u64::try_from(value_of(&quantity).as_units()).ok()?))
        });
        pages.collect::<Vec<_>>()
    };
    let whole = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let none = node.huge_page_sizes.iter().map(|size| (size.clone(), 0));
    none.chain(of(whole))
        .chain(of(container.resources.as_ref()))
        .collect()
}

/// Of each size that the node has or the pod asks for: what it may have as a whole, or nothing. What a container leaves behind in a
/// volume is the pod's when that container has gone.
fn pod_hugepage_limits(pod: &Pod, node: &NodeFacts) -> BTreeMap<String, u64> {
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let containers = spec::all_containers(pod).filter_map(|(container, _)| container.resources.as_ref());
    let limits = containers
        .chain(own)
        .filter_map(|resources| resources.limits.as_ref());
    let asked = limits.flat_map(BTreeMap::keys).filter_map(|resource| {
        let size = hugepage_size(resource.strip_prefix("hugepages-")?)?;
        let bytes = u64::try_from(pod_limits(pod, resource).as_units()).ok()?;
        Some((size, bytes))
    });
    let none = node.huge_page_sizes.iter().map(|size| (size.clone(), 0));
    none.chain(asked).collect()
}

/// The kernel's name of a huge page size: `2Mi` is `2MB`.
pub fn hugepage_size(quantity: &str) -> Option<String> {
    let bytes = u64::try_from(crate::quantity::parse(quantity).ok()?.as_units()).ok()?;
    let (number, unit) = match bytes {
        0 => return None,
        b if b % (1 << 30) == 0 => (b >> 30, "GB"),
        b if b % (1 << 20) == 0 => (b >> 20, "MB"),
        b if b % (1 << 10) == 0 => (b >> 10, "KB"),
        _ => return None,
    };
    Some(format!("{number}{unit}"))
}

/// Limits of the whole pod's cgroup (ResourceConfigForPod): the pod's own, or the sum of its containers' if all have
/// one; its overhead comes on top.
pub fn pod_resources(pod: &Pod, node: &NodeFacts) -> LinuxContainerResources {
    if node.without_cgroups {
        return LinuxContainerResources::default();
    }
    let every = |resource: &str| {
        spec::all_containers(pod).all(|(c, _)| limit(c, resource).is_some_and(|v| !v.is_zero()))
    };
    let total_limit = |resource: &str| {
        let own = pod_resources::default_limit(pod, resource);
        let summed = || pod_total(pod, resource, |c, r| limit(c, r).unwrap_or_default());
        let limit = own.or_else(|| every(resource).then(summed))?;
        Some(limit.plus(pod_resources::overhead(pod, resource)))
    };
    let mut resources = LinuxContainerResources {
        pids_limit: node.pod_pids_limit,
        hugepage_limits: pod_hugepage_limits(pod, node),
        ..Default::default()
    };
    match qos::qos_class(pod) {
        QosClass::BestEffort => resources.cpu_shares = Some(MIN_SHARES),
        QosClass::Guaranteed | QosClass::Burstable => {
            resources.cpu_shares = Some(milli_cpu_to_shares(pod_milli_cpu(pod)));
            resources.cpu_quota = total_limit("cpu").and_then(|limit| milli_cpu_to_quota(limit.as_milli()));
            resources.cpu_period = resources.cpu_quota.map(|_| QUOTA_PERIOD);
            resources.memory_limit = total_limit("memory").map(Value::as_units);
        }
    }
    node.lacking.without(resources)
}

/// What the pod's sandbox needs beside its containers (`spec.overhead`), for the engine.
pub fn overhead_resources(pod: &Pod) -> Option<LinuxContainerResources> {
    pod.spec
        .as_ref()?
        .overhead
        .as_ref()
        .filter(|own| !own.is_empty())?;
    let cpu = pod_resources::overhead(pod, "cpu").as_milli();
    let memory = pod_resources::overhead(pod, "memory").as_units();
    let quota = milli_cpu_to_quota(cpu);
    Some(LinuxContainerResources {
        cpu_shares: Some(milli_cpu_to_shares(cpu)),
        cpu_quota: quota,
        cpu_period: quota.map(|_| QUOTA_PERIOD),
        memory_limit: (memory > 0).then_some(memory),
        ..LinuxContainerResources::default()
    })
}

/// Thousandths of a CPU that the pod requests, its overhead among them.
pub fn pod_milli_cpu(pod: &Pod) -> i64 {
    pod_requests(pod, "cpu").as_milli()
}

/// What a pod requests of a resource, its overhead among it.
pub fn pod_requests(pod: &Pod, resource: &str) -> Value {
    let own = pod_resources::pod_request(pod, resource);
    own.unwrap_or_else(|| pod_total(pod, resource, request_or_limit))
        .plus(pod_resources::overhead(pod, resource))
}

/// What a pod may have of a resource at most, as far as its containers say so, its overhead among it.
pub fn pod_limits(pod: &Pod, resource: &str) -> Value {
    let total = pod_resources::default_limit(pod, resource)
        .unwrap_or_else(|| pod_total(pod, resource, |c, r| limit(c, r).unwrap_or_default()));
    if total.is_zero() {
        return total;
    }
    total.plus(pod_resources::overhead(pod, resource))
}

fn request_or_limit(container: &Container, resource: &str) -> Value {
    request(container, resource)
        .or_else(|| limit(container, resource))
        .unwrap_or_default()
}

/// What a pod needs at most at any time: the main containers and sidecars together, or an init container with the
/// sidecars before it (PodRequests, PodLimits).
pub fn pod_total(pod: &Pod, resource: &str, of: impl Fn(&Container, &str) -> Value) -> Value {
    let mut sidecars = Value::default();
    let mut at_init = Value::default();
    for container in spec::init_containers(pod) {
        let own = of(container, resource);
        if spec::is_sidecar(container) {
            sidecars = sidecars.plus(own);
            at_init = at_init.max(sidecars);
        } else {
            at_init = at_init.max(sidecars.plus(own));
        }
    }
    let mains = spec::containers(pod)
        .iter()
        .fold(sidecars, |sum, c| sum.plus(of(c, resource)));
    mains.max(at_init)
}

/// `resourceFieldRef`: the container's request or limit, in units of `divisor`. A limit that is not set is the node's
/// capacity; a request that is not set is 0. `None` for a resource that can't be referred to.
pub fn resource_field(
    container: &Container,
    resource: &str,
    divisor: Value,
    node: &NodeFacts,
) -> Option<String> {
    let (kind, name) = resource.split_once('.')?;
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    let value = match kind {
        _ if !known => return None,
        "requests" => request(container, name).unwrap_or_default(),
        "limits" => limit(container, name)
            .filter(|v| !v.is_zero())
            .unwrap_or_else(|| capacity(name, node)),
        _ => return None,
    };
    Some(value.divided_by(divisor).to_string())
}

fn capacity(resource: &str, node: &NodeFacts) -> Value {
    let all = node.capacity(resource).unwrap_or_default();
    match resource {
        "cpu" => Value::milli(all),
        "memory" | "ephemeral-storage" => Value::units(all),
        // Huge pages are never more than was asked for.
        _ => Value::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn of(resources: &str) -> LinuxContainerResources {
        let pod = pod(&format!(
            "{{\"containers\":[{{\"name\":\"c\",\"image\":\"i\",\"resources\":{resources}}}]}}"
        ));
        container_resources(
            &pod,
            &spec::containers(&pod)[0],
            Role::Main,
            &NodeFacts::default(),
        )
    }

    #[test]
    fn cpu() {
        for (resources, shares, quota) in [
            ("{}", 2, None),
            (r#"{"requests":{"cpu":"1m"}}"#, 2, None),
            (r#"{"requests":{"cpu":"100m"}}"#, 102, None),
            (r#"{"limits":{"cpu":"500m"}}"#, 512, Some(50_000)),
            (
                r#"{"requests":{"cpu":"1"},"limits":{"cpu":"2"}}"#,
                1024,
                Some(200_000),
            ),
            (r#"{"limits":{"cpu":"1m"}}"#, 2, Some(1000)),
            (r#"{"requests":{"cpu":"1000"}}"#, 262_144, None),
        ] {
            let resources_of = of(resources);
            assert_eq!(
                (resources_of.cpu_shares, resources_of.cpu_quota),
                (Some(shares), quota),
                "{resources}"
            );
            assert_eq!(resources_of.cpu_period, quota.map(|_| 100_000));
        }
    }

    #[test]
    fn memory_and_pages() {
        let resources = of(r#"{"limits":{"memory":"64Mi","hugepages-2Mi":"4Mi","hugepages-1Gi":"1Gi"}}"#);
        assert_eq!(resources.memory_limit, Some(64 << 20));
        assert_eq!(resources.memory_swap_limit, None);
        assert_eq!(
            resources.hugepage_limits,
            BTreeMap::from([("2MB".to_owned(), 4 << 20), ("1GB".to_owned(), 1 << 30)])
        );
    }

    #[test]
    fn huge_pages_that_nobody_asked_for_are_not_to_be_had() {
        let node = NodeFacts {
            huge_page_sizes: ["2MB", "1GB"].map(str::to_owned).into(),
            ..NodeFacts::default()
        };
        let pages = |spec: &str| {
            let pod = pod(spec);
            let of = container_resources(&pod, &spec::containers(&pod)[0], Role::Main, &node);
            of.hugepage_limits.into_iter().collect::<Vec<_>>()
        };
        let sizes = |gib: u64, mib: u64| vec![("1GB".to_owned(), gib << 30), ("2MB".to_owned(), mib << 20)];
        let own = r#"{"name":"c","image":"i","resources":{"limits":{"hugepages-2Mi":"4Mi"}}}"#;
        assert_eq!(pages(r#"{"containers":[{"name":"c","image":"i"}]}"#), sizes(0, 0));
        assert_eq!(pages(&format!("{{\"containers\":[{own}]}}")), sizes(0, 4));
        assert_eq!(
            pages(
                r#"{"resources":{"limits":{"hugepages-1Gi":"1Gi"}},"containers":[{"name":"c","image":"i"}]}"#
            ),
            sizes(1, 0)
        );
    }

    /// The containers' together, an init container's beside those of sidecars before it, and never more for one that is missing.
    #[test]
    fn a_pod_as_a_whole_has_the_huge_pages_of_its_containers() {
        let node = NodeFacts {
            huge_page_sizes: ["2MB", "1GB"].map(str::to_owned).into(),
            ..NodeFacts::default()
        };
        let of =
            |mib: u64| format!(r#"{{"image":"i","resources":{{"limits":{{"hugepages-2Mi":"{mib}Mi"}}}}"#);
        let (two, four, twelve) = (of(2), of(4), of(12));
        let bare = r#"{"name":"b","image":"i"}"#;
        for (spec, mib, gib) in [
            (format!(r#"{{"containers":[{bare}]}}"#), 0, 0),
            (
                format!(r#"{{"containers":[{two},"name":"a"}},{four},"name":"c"}},{bare}]}}"#),
                6,
                0,
            ),
            (
                format!(
                    r#"{{"initContainers":[{four},"name":"s","restartPolicy":"Always"}},{twelve},"name":"i"}}],"containers":[{two},"name":"a"}}]}}"#
                ),
                16,
                0,
            ),
            (
                format!(
                    r#"{{"resources":{{"limits":{{"hugepages-1Gi":"1Gi","hugepages-2Mi":"8Mi"}}}},"containers":[{two},"name":"a"}}]}}"#
                ),
                8,
                1,
            ),
        ] {
            let limits = pod_resources(&pod(&spec), &node).hugepage_limits;
            let expected = [("1GB".to_owned(), gib << 30), ("2MB".to_owned(), mib << 20)];
            assert_eq!(limits, BTreeMap::from(expected), "{spec}");
            // A node that takes no pages away from others limits those who ask for some.
            let limits = pod_resources(&pod(&spec), &NodeFacts::default()).hugepage_limits;
            assert_eq!(limits.contains_key("2MB"), mib > 0, "{spec}");
        }
    }

    #[test]
    fn no_container_swaps() {
        let unlimited = pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let limited =
            pod(r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"memory":"1Mi"}}}]}"#);
        for (accounted, v2, pod, together, alone) in [
            (true, true, &unlimited, None, Some("0")),
            (true, true, &limited, None, Some("0")),
            (true, false, &unlimited, None, None),
            (true, false, &limited, Some(1 << 20), None),
            (false, true, &limited, None, None),
            (false, false, &limited, None, None),
        ] {
            let node = NodeFacts {
                swap_accounting: accounted,
                cgroup_v2_memory: v2,
                ..NodeFacts::default()
            };
            let of = container_resources(pod, &spec::containers(pod)[0], Role::Main, &node);
            assert_eq!(of.memory_swap_limit, together, "{accounted} {v2}");
            assert_eq!(of.unified.get("memory.swap.max").map(String::as_str), alone);
        }
    }

    #[test]
    fn a_pod_is_its_mains_or_its_largest_init() {
        let pod = pod(r#"{"initContainers":[
                {"name":"a","image":"i","resources":{"requests":{"cpu":"900m"}}},
                {"name":"s","image":"i","restartPolicy":"Always","resources":{"requests":{"cpu":"100m"}}},
                {"name":"b","image":"i","resources":{"requests":{"cpu":"850m"}}}],
              "containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"200m"}}}]}"#);
        assert_eq!(pod_total(&pod, "cpu", request_or_limit).as_milli(), 950);
        assert_eq!(pod_resources(&pod, &NodeFacts::default()).cpu_shares, Some(972));
    }

    #[test]
    fn a_pods_limits_need_every_containers() {
        let one = r#"{"name":"a","image":"i","resources":{"limits":{"cpu":"1","memory":"1Mi"}}}"#;
        let both = pod(&format!(
            "{{\"containers\":[{one},{}]}}",
            one.replace("\"a\"", "\"b\"")
        ));
        let resources = pod_resources(&both, &NodeFacts::default());
        assert_eq!(
            (resources.cpu_quota, resources.memory_limit),
            (Some(200_000), Some(2 << 20))
        );
        let half = pod(&format!(
            "{{\"containers\":[{one},{{\"name\":\"b\",\"image\":\"i\"}}]}}"
        ));
        let resources = pod_resources(&half, &NodeFacts::default());
        assert_eq!((resources.cpu_quota, resources.memory_limit), (None, None));
    }

    #[test]
    fn resource_fields() {
        let pod = pod(
            r#"{"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"250m"},"limits":{"memory":"64Mi"}}}]}"#,
        );
        let container = &spec::containers(&pod)[0];
        let node = NodeFacts {
            cpu_capacity: 2000,
            memory_capacity: 1 << 30,
            ..NodeFacts::default()
        };
        let field =
            |name, divisor| resource_field(container, name, crate::quantity::parse(divisor).unwrap(), &node);
        assert_eq!(field("requests.cpu", "1").as_deref(), Some("1"));
        assert_eq!(field("requests.cpu", "1m").as_deref(), Some("250"));
        assert_eq!(field("limits.memory", "1Mi").as_deref(), Some("64"));
        assert_eq!(field("limits.cpu", "0").as_deref(), Some("2"));
        assert_eq!(field("requests.memory", "1").as_deref(), Some("0"));
        assert_eq!(field("limits.gpu", "1"), None);
    }
}
