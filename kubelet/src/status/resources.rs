//! Resources of the whole pod, as its status shows them: its own, or the sum of its containers'.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::{Form, Value};
use crate::resources::{pod_limits, pod_requests};
use crate::spec;

/// `status.resources`.
pub(super) fn of_pod(pod: &Pod) -> Option<ResourceRequirements> {
    let resources = ResourceRequirements {
        requests: requests(pod),
        limits: sums(pod, |resource| pod_limits(pod, resource)),
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
