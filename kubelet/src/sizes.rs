//! What a pod may have of the node: what it asks for, what it was given, and what its containers run with.
//!
//! A pod's resources may change while it runs. What its specification says then is a wish; the node gives it
//! ([`Allocation`]), all of it or nothing, and after that the containers and the pod's group are made to have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_cri::{ContainerId, ContainerStatus, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::{Deserialize, Serialize};

use crate::quantity::{Value, value_of};
use crate::resources::milli_cpu_to_quota;
use crate::spec;

/// The annotation of a container that holds what it was made with, as JSON of `resources`.
pub const MADE_WITH: &str = "berth.container.resources";

/// What can be changed while a container runs.
pub const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Resources of a pod and of its containers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Allocation {
    /// `spec.resources`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<ResourceRequirements>,
    /// `resources` of containers and init containers, by name.
    pub containers: BTreeMap<String, ResourceRequirements>,
}

/// What became of the resources of a pod that was resized at least once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sizes {
    /// What the node has given the pod.
    pub allocated: Allocation,
    /// What the pod's group has.
    pub group: LinuxContainerResources,
    /// What containers that were resized run with; others have what they were made with.
    pub containers: BTreeMap<ContainerId, ResourceRequirements>,
}

impl Allocation {
    /// What a pod's specification asks for.
    pub fn of(pod: &Pod) -> Self {
        let own = |(container, _): (&Container, _)| {
            let resources = container.resources.clone().unwrap_or_default();
            (container.name.clone(), resources)
        };
        Self {
            pod: pod.spec.as_ref().and_then(|spec| spec.resources.clone()),
            containers: spec::all_containers(pod).map(own).collect(),
        }
    }

    /// The pod with these resources.
    pub fn applied(&self, pod: &Arc<Pod>) -> Arc<Pod> {
        if *self == Self::of(pod) {
            return Arc::clone(pod);
        }
        let mut changed = pod.as_ref().clone();
        if let Some(spec) = &mut changed.spec {
            spec.resources.clone_from(&self.pod);
            let inits = spec.init_containers.iter_mut().flatten();
            for container in inits.chain(&mut spec.containers) {
                if let Some(resources) = self.containers.get(&container.name) {
                    container.resources = Some(resources.clone());
                }
            }
        }
        Arc::new(changed)
    }

    /// A request or limit that this has and `after` has not, by its path.
    pub fn removed(&self, after: &Self) -> Option<String> {
        let gone = |place: &str, before: &ResourceRequirements, after: Option<&ResourceRequirements>| {
            let lists = [
                ("limits", &before.limits, after.map(|after| &after.limits)),
                ("requests", &before.requests, after.map(|after| &after.requests)),
            ];
            lists.into_iter().find_map(|(list, before, after)| {
                let has = |name: &String| {
                    let after = after.and_then(Option::as_ref);
                    after.is_some_and(|after| after.contains_key(name))
                };
                let mut names = before.iter().flat_map(BTreeMap::keys);
                names
                    .find(|name| RESIZABLE.contains(&name.as_str()) && !has(name))
                    .map(|name| format!("{place}.{list}[{name}]"))
            })
        };
        let of_pod = self.pod.as_ref();
        of_pod
            .and_then(|pod| gone("spec.resources", pod, after.pod.as_ref()))
            .or_else(|| {
                self.containers.iter().find_map(|(name, resources)| {
                    let place = format!("the resources of container {name}");
                    gone(&place, resources, after.containers.get(name))
                })
            })
    }
}

/// A limit or request of one resource.
fn value(list: Option<&BTreeMap<String, Quantity>>, resource: &str) -> Option<Value> {
    list?.get(resource).map(value_of)
}

/// The resources that can be changed and are not the same in both.
pub fn differences(one: &ResourceRequirements, other: &ResourceRequirements) -> Vec<&'static str> {
    let differs = |resource: &&str| {
        value(one.limits.as_ref(), resource) != value(other.limits.as_ref(), resource)
            || value(one.requests.as_ref(), resource) != value(other.requests.as_ref(), resource)
    };
    RESIZABLE.into_iter().filter(differs).collect()
}

/// The limit of memory becomes less than it is.
pub fn lowers_memory(from: &ResourceRequirements, to: &ResourceRequirements) -> bool {
    let limit = |of: &ResourceRequirements| value(of.limits.as_ref(), "memory").filter(|v| !v.is_zero());
    match (limit(from), limit(to)) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(from), Some(to)) => to < from,
    }
}

/// What a container runs with.
pub fn actual(sizes: Option<&Sizes>, record: &ContainerStatus) -> ResourceRequirements {
    let resized = sizes.and_then(|sizes| sizes.containers.get(&record.id));
    resized.cloned().unwrap_or_else(|| made_with(record))
}

fn made_with(record: &ContainerStatus) -> ResourceRequirements {
    let text = record.config.annotations.get(MADE_WITH);
    // Only berth writes it; one that was made before there was such an annotation is set anew once.
    text.and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// What a container is to run with: its own resources, and where it has no limit, the pod's.
pub fn wish(pod: &Pod, container: &Container) -> ResourceRequirements {
    let mut wish = container.resources.clone().unwrap_or_default();
    let own = pod.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let of_pod = own.and_then(|own| own.limits.as_ref());
    for (resource, limit) in of_pod.into_iter().flatten() {
        let is_limited = value(wish.limits.as_ref(), resource).is_some_and(|own| !own.is_zero());
        if RESIZABLE.contains(&resource.as_str()) && !is_limited {
            wish.limits
                .get_or_insert_default()
                .insert(resource.clone(), limit.clone());
        }
    }
    wish
}

/// The value of [`MADE_WITH`] for a container; none if it has no resources.
pub fn note(pod: &Pod, container: &Container) -> Option<String> {
    let wish = wish(pod, container);
    if wish.limits.is_none() && wish.requests.is_none() {
        return None;
    }
    serde_json::to_string(&wish).ok()
}

/// The limits that let a container have these resources, too.
pub fn widened(mut limits: LinuxContainerResources, to: &ResourceRequirements) -> LinuxContainerResources {
    let limit = |resource: &str| value(to.limits.as_ref(), resource).filter(|limit| !limit.is_zero());
    let at_least = |now: Option<i64>, own: Option<i64>| now.map(|now| now.max(own.unwrap_or(now)));
    limits.memory_limit = at_least(limits.memory_limit, limit("memory").map(Value::as_units));
    let quota = limit("cpu").and_then(|limit| milli_cpu_to_quota(limit.as_milli()));
    limits.cpu_quota = at_least(limits.cpu_quota, quota);
    limits
}

/// The limits that hold both.
pub fn wider(one: &LinuxContainerResources, other: &LinuxContainerResources) -> LinuxContainerResources {
    let most = |one: Option<i64>, other: Option<i64>| Some(one?.max(other?));
    LinuxContainerResources {
        memory_limit: most(one.memory_limit, other.memory_limit),
        cpu_quota: most(one.cpu_quota, other.cpu_quota),
        cpu_period: one.cpu_period.and(other.cpu_period),
        cpu_shares: one.cpu_shares.max(other.cpu_shares),
        ..one.clone()
    }
}

/// Whatever `inner` allows is within `outer`.
pub fn holds(outer: &LinuxContainerResources, inner: &LinuxContainerResources) -> bool {
    let within = |outer: Option<i64>, inner: Option<i64>| match (outer, inner) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(outer), Some(inner)) => inner <= outer,
    };
    within(outer.memory_limit, inner.memory_limit) && within(outer.cpu_quota, inner.cpu_quota)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn of(resources: &str) -> ResourceRequirements {
        serde_json::from_str(resources).unwrap()
    }

    #[test]
    fn quantities_are_compared_not_their_texts() {
        let one = of(r#"{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"500m"}}"#);
        let same = of(r#"{"limits":{"cpu":"1000m","memory":"1024Mi"},"requests":{"cpu":"0.5"}}"#);
        assert!(differences(&one, &same).is_empty());
        let more = of(r#"{"limits":{"cpu":"1","memory":"2Gi"},"requests":{"cpu":"1"}}"#);
        assert_eq!(differences(&one, &more), ["cpu", "memory"]);
        assert!(lowers_memory(&more, &one) && !lowers_memory(&one, &more));
        assert!(lowers_memory(&of("{}"), &one), "a first limit is less than none");
    }

    #[test]
    fn a_pod_is_given_what_was_allocated() {
        let wanted = Arc::new(pod(
            r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"2"}}}]}"#,
        ));
        let given = Arc::new(pod(
            r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}}}]}"#,
        ));
        assert_eq!(Allocation::of(&given).applied(&wanted), given);
        assert!(Arc::ptr_eq(&Allocation::of(&wanted).applied(&wanted), &wanted));
        let none = pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        assert_eq!(
            Allocation::of(&given).removed(&Allocation::of(&none)).as_deref(),
            Some("the resources of container c.limits[cpu]")
        );
        assert_eq!(Allocation::of(&none).removed(&Allocation::of(&given)), None);
    }

    #[test]
    fn no_limit_is_the_widest() {
        let limits = |memory: Option<i64>, quota: Option<i64>| LinuxContainerResources {
            memory_limit: memory,
            cpu_quota: quota,
            ..LinuxContainerResources::default()
        };
        let wide = wider(&limits(Some(1), Some(5)), &limits(Some(2), None));
        assert_eq!((wide.memory_limit, wide.cpu_quota), (Some(2), None));
        assert!(holds(&wide, &limits(Some(2), Some(9))) && !holds(&wide, &limits(None, None)));
    }
}
