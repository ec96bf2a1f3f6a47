//! The rules for requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Errors;
use super::container::Place;
use crate::pod_resources::{POD_LEVEL, containers_request};
use crate::quantity::{self, Value};
use crate::resources::{hugepage_size, limit};

/// Resources that a node of berth's own has.
const KNOWN: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

pub(super) fn resources(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let Some(resources) = &container.resources else {
        return;
    };
    let limits = list(
        resources.limits.as_ref(),
        None,
        &place.field("resources.limits"),
        errors,
    );
    let limited = resources.limits.as_ref();
    let requests = list(
        resources.requests.as_ref(),
        limited,
        &place.field("resources.requests"),
        errors,
    );
    for (resource, request) in &requests {
        let path = place.field(&format!("resources.requests[{resource}]"));
        let text = resources
            .requests
            .as_ref()
            .and_then(|all| all.get(*resource))
            .map_or("", |text| &text.0);
        match limits.get(resource) {
            Some(limit) if request > limit => {
                let limit = resources
                    .limits
                    .as_ref()
                    .and_then(|all| all.get(*resource))
                    .map_or("", |text| &text.0);
                let why = format!("must be less than or equal to {resource} limit of {limit}");
                errors.invalid(&path, text, why);
            }
            Some(limit) if resource.starts_with("hugepages-") && request != limit => {
                errors.invalid(&path, text, format!("must be equal to {resource} limit"));
            }
            None if resource.starts_with("hugepages-") => {
                errors.required(
                    &place.field("resources.limits"),
                    "Limit must be set for non overcommitable resources",
                );
            }
            _ => {}
        }
    }
    let huge = limits.keys().any(|resource| resource.starts_with("hugepages-"));
    if huge && !requests.contains_key("cpu") && !requests.contains_key("memory") {
        errors.forbidden(&place.field("resources"), "HugePages require cpu or memory");
    }
}

/// The rules for the pod's own resources and its overhead.
pub(super) fn pod_resources(spec: &PodSpec, errors: &mut Errors) {
    list(spec.overhead.as_ref(), None, "spec.overhead", errors);
    let Some(own) = &spec.resources else { return };
    let limits = list(own.limits.as_ref(), None, "spec.resources.limits", errors);
    let requests = list(
        own.requests.as_ref(),
        own.limits.as_ref(),
        "spec.resources.requests",
        errors,
    );
    // A request that is the limit by default is not reported again.
    let asked = requests.keys().filter(|resource| !limits.contains_key(*resource));
    let all = limits.keys().map(|resource| ("limits", resource));
    for (which, resource) in all.chain(asked.map(|resource| ("requests", resource))) {
        if !resource.starts_with("hugepages-") {
            let path = format!("spec.resources.{which}[{resource}]");
            errors.one_of(&path, Some(resource), &POD_LEVEL);
        }
    }
    let text = |list: &Option<BTreeMap<String, Quantity>>, resource: &str| {
        let value = list.as_ref().and_then(|list| list.get(resource));
        value.map_or_else(String::new, |value| value.0.clone())
    };
    let pod = Pod {
        spec: Some(spec.clone()),
        ..Pod::default()
    };
    for (resource, request) in &requests {
        let path = format!("spec.resources.requests[{resource}]");
        let asked = text(&own.requests, resource);
        if limits.get(resource).is_some_and(|limit| request > limit) {
            let limit = text(&own.limits, resource);
            let why = format!("must be less than or equal to {resource} limit of {limit}");
            errors.invalid(&path, &asked, why);
        }
        let sum = containers_request(&pod, resource);
        if *request < sum {
            let sum = match *resource {
                "cpu" => format!("{}m", sum.as_milli()),
                _ => sum.as_units().to_string(),
            };
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.invalid(&path, &asked, why);
        }
    }
    let inits = spec.init_containers.iter().flatten().enumerate();
    let inits = inits.map(|(index, one)| (format!("spec.initContainers[{index}]"), one));
    let mains = spec.containers.iter().enumerate();
    let mains = mains.map(|(index, one)| (format!("spec.containers[{index}]"), one));
    for (path, container) in inits.chain(mains) {
        for (resource, most) in &limits {
            if limit(container, resource).is_some_and(|limit| limit > *most) {
                let own_limit = container
                    .resources
                    .as_ref()
                    .map(|own| text(&own.limits, resource));
                let why = format!(
                    "must be less than or equal to pod limits of {}",
                    text(&own.limits, resource)
                );
                let path = format!("{path}.resources.limits[{resource}]");
                errors.invalid(&path, &own_limit.unwrap_or_default(), why);
            }
        }
    }
}

/// The values of one list, as far as they are any. What is the same in `checked` (a request that is the limit by
/// default) is not reported again.
fn list<'a>(
    list: Option<&'a BTreeMap<String, Quantity>>,
    checked: Option<&BTreeMap<String, Quantity>>,
    path: &str,
    errors: &mut Errors,
) -> BTreeMap<&'a str, Value> {
    let mut values = BTreeMap::new();
    for (resource, quantity) in list.into_iter().flatten() {
        let path = format!("{path}[{resource}]");
        let known_bad = checked.and_then(|checked| checked.get(resource)) == Some(quantity);
        let errors = if known_bad {
            &mut Errors::default()
        } else {
            &mut *errors
        };
        let page = resource.strip_prefix("hugepages-").map(hugepage_size);
        if !KNOWN.contains(&resource.as_str()) && !matches!(page, Some(Some(_))) {
            let why =
                "this node has cpu, memory, ephemeral-storage and hugepages-<size>, and no such resource";
            errors.invalid(&path, resource, why);
            continue;
        }
        match quantity::parse(&quantity.0) {
            Err(error) => errors.invalid(&path, &quantity.0, error.to_string()),
            Ok(value) if value.is_negative() => {
                errors.invalid(&path, &quantity.0, "must be greater than or equal to 0")
            }
            Ok(value) if resource != "cpu" && !value.is_whole() => {
                errors.invalid(&path, &quantity.0, "must be an integer")
            }
            Ok(value) => {
                values.insert(resource.as_str(), value);
            }
        }
    }
    values
}
