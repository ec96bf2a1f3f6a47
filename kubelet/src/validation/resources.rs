//! The rules for requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Errors;
use super::container::Place;
use super::names::extended_resource;
use crate::pod_resources::{POD_LEVEL, containers_request};
use crate::quantity::{self, Value};
use crate::resources::{hugepage_size, limit};

/// Resources that Kubernetes names, beside huge pages.
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
            Some(limit) if is_not_shared(resource) && request != limit => {
                errors.invalid(&path, text, format!("must be equal to {resource} limit"));
            }
            None if is_not_shared(resource) => {
                errors.required(
                    &place.field("resources.limits"),
                    "Limit must be set for non overcommitable resources",
                );
            }
            _ => {}
        }
    }
    huge_pages(resources, &place.field("resources"), errors);
}

/// Whoever has some of it has it alone (not IsOvercommitAllowed).
fn is_not_shared(resource: &str) -> bool {
    !KNOWN.contains(&resource)
}

/// Huge pages alone would be a pod of no class.
fn huge_pages(resources: &ResourceRequirements, path: &str, errors: &mut Errors) {
    let names: Vec<&String> = [&resources.limits, &resources.requests]
        .into_iter()
        .flatten()
        .flat_map(BTreeMap::keys)
        .collect();
    let huge = names.iter().any(|name| name.starts_with("hugepages-"));
    if huge && !names.iter().any(|name| POD_LEVEL.contains(&name.as_str())) {
        errors.forbidden(path, "HugePages require cpu or memory");
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
    huge_pages(own, "spec.resources", errors);
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
        if resource.starts_with("hugepages-") {
            match limits.get(resource) {
                Some(limit) if limit != request => {
                    errors.invalid(&path, &asked, format!("must be equal to {resource} limit"));
                }
                Some(_) => {}
                None => errors.required(
                    "spec.resources.limits",
                    "Limit must be set for non overcommitable resources",
                ),
            }
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
    // Those of init containers may be larger: the pod's are what counts then.
    for (index, container) in spec.containers.iter().enumerate() {
        let path = format!("spec.containers[{index}]");
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

/// Whether it is a number of huge pages of the resource's size.
fn is_multiple(value: Value, resource: &str) -> bool {
    let size = resource.strip_prefix("hugepages-").map(quantity::parse);
    matches!(size, Some(Ok(size)) if value.is_multiple_of(size))
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
        let is_own = KNOWN.contains(&resource.as_str()) || matches!(page, Some(Some(_)));
        if let Some(why) = extended_resource(resource).filter(|_| !is_own) {
            errors.invalid(&path, resource, why);
            continue;
        }
        match quantity::parse(&quantity.0) {
            Err(error) => errors.invalid(&path, &quantity.0, error.to_string()),
            Ok(value) if value.is_negative() => {
                errors.invalid(&path, &quantity.0, "must be greater than or equal to 0")
            }
            Ok(value) if matches!(page, Some(Some(_))) && !is_multiple(value, resource) => {
                let why = format!("{} is not positive integer multiple of {resource}", quantity.0);
                errors.invalid(&path, &quantity.0, why);
            }
            Ok(value) if !is_own && !value.is_whole() => {
                errors.invalid(&path, &quantity.0, "must be an integer")
            }
            Ok(value) => {
                values.insert(resource.as_str(), value);
            }
        }
    }
    values
}
