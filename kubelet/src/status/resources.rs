//! Resources of the whole pod, as its status shows them: its own, or the sum of its containers'.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{Form, Value};
use crate::resources::{milli_cpu_to_quota, pod_limits, pod_requests, quota_to_milli_cpu};
use crate::sizes::Sizes;
use crate::spec;

/// `status.resources`: while the pod is resized its limits are those that its group still has.
pub(super) fn of_pod(pod: &Pod, sizes: Option<&Sizes>) -> Option<ResourceRequirements> {
    let has = |resource: &str, given: Value| {
        let group = &sizes?.group;
        match resource {
            // The smallest quota there is stands for less, too.
            "cpu" if group.cpu_quota != milli_cpu_to_quota(given.as_milli()) => group
                .cpu_quota
                .map(|quota| Value::milli(quota_to_milli_cpu(quota))),
            "memory" => group.memory_limit.map(Value::units),
            _ => None,
        }
    };
    let limits = |resource: &str| {
        let given = pod_limits(pod, resource);
        has(resource, given).filter(|_| !given.is_zero()).unwrap_or(given)
    };
    let resources = ResourceRequirements {
        requests: requests(pod),
        limits: sums(pod, limits),
        ..ResourceRequirements::default()
    };
    (resources != ResourceRequirements::default()).then_some(resources)
}

/// `status.allocatedResources`.
pub(super) fn requests(pod: &Pod) -> Option<BTreeMap<String, Quantity>> {
    sums(pod, |resource| pod_requests(pod, resource))
}

fn sums(pod: &Pod, of: impl Fn(&str) -> Value) -> Option<BTreeMap<String, Quantity>> {
    let sums: BTreeMap<String, Quantity> = named(pod)
        .into_iter()
        .map(|resource| (resource.to_owned(), of(resource)))
        .filter(|(_, value)| !value.is_zero())
        .map(|(resource, value)| {
            let form = form(pod, &resource);
            (resource, Quantity(value.show(form)))
        })
        .collect();
    (!sums.is_empty()).then_some(sums)
}

/// All resources that the pod names.
fn named(pod: &Pod) -> BTreeSet<&str> {
    quantities(pod).map(|(resource, _)| resource).collect()
}

/// A sum is written as the first of its parts.
fn form(pod: &Pod, resource: &str) -> Form {
    let first = quantities(pod).find(|(name, _)| *name == resource);
    first.map_or_else(Form::default, |(_, quantity)| Form::of(quantity))
}

fn quantities(pod: &Pod) -> impl Iterator<Item = (&str, &str)> {
    let spec = pod.spec.as_ref();
    let own = spec.and_then(|spec| spec.resources.as_ref());
    let containers = spec::all_containers(pod).filter_map(|(container, _)| container.resources.as_ref());
    let lists = own.into_iter().chain(containers);
    lists
        .flat_map(|resources| [&resources.requests, &resources.limits])
        .chain(spec.map(|spec| &spec.overhead))
        .flatten()
        .flatten()
        .map(|(name, quantity)| (name.as_str(), quantity.0.as_str()))
}
