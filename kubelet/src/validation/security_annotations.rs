//! The rules for the annotations that said what a container may do before there were fields for it.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use super::Errors;
use super::security::apparmor;
use crate::spec;

/// What comes before the container's name in the annotation that names its AppArmor profile.
pub(crate) const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
/// What named seccomp profiles: the pod's, and before a container's name.
const SECCOMP: [&str; 2] = [
    "seccomp.security.alpha.kubernetes.io/pod",
    "container.seccomp.security.alpha.kubernetes.io/",
];

/// The profile that an annotation names; `None` if that is not the name of one.
fn profile_of_annotation(text: &str) -> Option<AppArmorProfile> {
    let (kind, file) = match text {
        "unconfined" => ("Unconfined", None),
        "runtime/default" => ("RuntimeDefault", None),
        _ => ("Localhost", Some(text.strip_prefix("localhost/")?.to_owned())),
    };
    Some(AppArmorProfile {
        type_: kind.to_owned(),
        localhost_profile: file,
    })
}

/// The profile that a pod's annotations name for a container, if they do and it has the form of one.
pub(crate) fn annotated_profile(pod: &Pod, container: &str) -> Option<AppArmorProfile> {
    let mut broken = Errors::default();
    let profile = profile_of_annotation(annotation_of(pod, container)?)?;
    apparmor(&profile, "", &mut broken);
    broken.0.is_empty().then_some(profile)
}

/// What a pod's annotations say of the profile of a container.
fn annotation_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a str> {
    let all = pod.metadata.annotations.as_ref()?;
    all.get(&format!("{APP_ARMOR_ANNOTATION}{container}"))
        .map(String::as_str)
}

pub(super) fn annotations(pod: &Pod, errors: &mut Errors) {
    let names: Vec<&str> = spec::all_containers(pod)
        .map(|(one, _)| one.name.as_str())
        .collect();
    for (name, text) in pod.metadata.annotations.iter().flatten() {
        let path = format!("metadata.annotations[{name}]");
        if SECCOMP.iter().any(|seccomp| name.starts_with(seccomp)) {
            let why = "no kubelet has read it since Kubernetes 1.27: use `securityContext.seccompProfile`";
            errors.forbidden(&path, why);
        }
        let Some(container) = name.strip_prefix(APP_ARMOR_ANNOTATION) else {
            continue;
        };
        if !names.contains(&container) {
            errors.invalid(&path, container, "container not found");
        }
        if !text.is_empty() && profile_of_annotation(text).is_none() {
            errors.invalid(&path, text, "is not the name of an AppArmor profile");
        }
    }
    for (list, containers) in [
        ("initContainers", spec::init_containers(pod)),
        ("containers", spec::containers(pod)),
    ] {
        for (index, container) in containers.iter().enumerate() {
            let path = format!("spec.{list}[{index}].securityContext.appArmorProfile");
            contradiction(pod, container, &path, errors);
        }
    }
}

/// An annotation and the field that say different things.
fn contradiction(pod: &Pod, container: &Container, path: &str, errors: &mut Errors) {
    let of_pod = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.security_context.as_ref())
        .and_then(|security| security.app_armor_profile.as_ref());
    let own = container
        .security_context
        .as_ref()
        .and_then(|security| security.app_armor_profile.as_ref());
    let (Some(field), Some(text)) = (own.or(of_pod), annotation_of(pod, &container.name)) else {
        return;
    };
    let said = profile_of_annotation(text);
    if said.as_ref().map(|said| said.type_.as_str()) != Some(&field.type_) {
        let why = "apparmor type in annotation and field must match";
        errors.forbidden(&format!("{path}.type"), why);
    } else if said.is_some_and(|said| said.localhost_profile != field.localhost_profile) {
        let why = "apparmor profile in annotation and field must match";
        errors.forbidden(&format!("{path}.localhostProfile"), why);
    }
}
