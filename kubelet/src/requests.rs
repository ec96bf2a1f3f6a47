//! What pods request of a node.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use crate::resources::pod_requests;
use crate::spec;

/// Requests by resource: thousandths of a CPU (`cpu`), bytes (`memory`, `ephemeral-storage`, `hugepages-<size>`), or a number of
/// things (`example.com/dongle`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests(BTreeMap<String, i64>);

impl Requests {
    /// What one pod requests, its overhead among it. A resource of which it wants nothing is not in it.
    pub fn of(pod: &Pod) -> Self {
        let spec = pod.spec.as_ref();
        let own = spec.and_then(|spec| spec.resources.as_ref());
        let containers = spec::all_containers(pod).filter_map(|(container, _)| container.resources.as_ref());
        let lists = |of: &ResourceRequirements| [of.limits.clone(), of.requests.clone()];
        let overhead = spec.and_then(|spec| spec.overhead.clone());
        let named = containers.chain(own).flat_map(lists).chain([overhead]);
        let names = named.flatten().flat_map(BTreeMap::into_keys);
        let amount = |name: &String| {
            let value = pod_requests(pod, name);
            match name.as_str() {
                "cpu" => value.as_milli(),
                _ => value.as_units(),
            }
        };
        let all: BTreeMap<String, i64> = names.map(|name| (name.clone(), amount(&name))).collect();
        Self(all.into_iter().filter(|(_, amount)| *amount > 0).collect())
    }

    /// What is requested of a resource.
    pub fn get(&self, resource: &str) -> i64 {
        self.0.get(resource).copied().unwrap_or(0)
    }

    /// The resources of which something is requested, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Nothing is requested.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The sum.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(sum) => *sum = sum.saturating_add(*amount),
                None => drop(self.0.insert(name.clone(), *amount)),
            }
        }
        self
    }
}

impl<const N: usize> From<[(&str, i64); N]> for Requests {
    fn from(all: [(&str, i64); N]) -> Self {
        Self(
            all.into_iter()
                .map(|(name, amount)| (name.to_owned(), amount))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    #[test]
    fn each_resource_in_its_unit_with_the_pod_s_overhead() {
        let pod = pod(
            r#"{"overhead":{"cpu":"10m"},"initContainers":[{"name":"i","image":"i","resources":{"requests":{"memory":"3Mi"}}}],
                "containers":[{"name":"a","image":"i","resources":{"limits":{"cpu":"1","example.com/dongle":"2"}}},
                {"name":"b","image":"i","resources":{"requests":{"memory":"2Mi","cpu":"0"}}}]}"#,
        );
        let own = Requests::of(&pod);
        let expected = [("cpu", 1010), ("memory", 3 << 20), ("example.com/dongle", 2)];
        assert_eq!(own, expected.into());
        assert_eq!((own.get("cpu"), own.get("disk")), (1010, 0));
        let both = own.clone().plus(&[("cpu", 5), ("pods", 1)].into());
        assert_eq!((both.get("cpu"), both.get("pods")), (1015, 1));
        assert!(Requests::of(&Pod::default()).is_empty());
    }
}
