//! The rules for a container.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, VolumeMount};

use crate::defaults::{MAX_RESTART_RULE_EXIT_CODES, MAX_RESTART_RULES};
use crate::sizes::RESIZABLE;
use crate::spec::is_sidecar;

use super::{Errors, device, environment, names, probe, resources, security};

/// Where a container is.
pub(super) struct Place<'a> {
    /// `spec.containers[0]`
    pub(super) path: &'a str,
    /// It is one of `initContainers`.
    pub(super) init: bool,
    /// The pod that it is in.
    pub(super) spec: &'a PodSpec,
    /// The names of the pod's volumes.
    pub(super) volumes: &'a BTreeSet<&'a str>,
}

impl Place<'_> {
    /// The path of a field of the container.
    pub(super) fn field(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }
}

pub(super) fn container(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    if container.name.is_empty() {
        errors.required(&place.field("name"), "");
    } else {
        errors.check(
            &place.field("name"),
            &container.name,
            names::dns_label(&container.name),
        );
    }
    image(container, place, errors);
    restart_policy(container, place, errors);
    ports(container.ports.as_deref().unwrap_or_default(), place, errors);
    environment::environment(container, place, errors);
    volume_mounts(
        container.volume_mounts.as_deref().unwrap_or_default(),
        place,
        errors,
    );
    mount_propagation(container, place, errors);
    device::volume_devices(container, place, errors);
    probe::probes(container, place, errors);
    probe::lifecycle(container, place, errors);
    resources::resources(container, place, errors);
    resize_policy(container, place, errors);
    security::container_security(container, place, errors);
    let file = container.termination_message_path.as_deref().unwrap_or_default();
    errors.check(
        &place.field("terminationMessagePath"),
        file,
        names::path_length(file),
    );
    let policy = container.termination_message_policy.as_deref();
    errors.one_of(
        &place.field("terminationMessagePolicy"),
        policy,
        &["FallbackToLogsOnError", "File"],
    );
}

fn image(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    match container.image.as_deref().unwrap_or_default() {
        "" => errors.required(&place.field("image"), ""),
        image if image.trim() != image => {
            errors.invalid(
                &place.field("image"),
                image,
                "must not have leading or trailing whitespace",
            );
        }
        _ => {}
    }
    let policy = container.image_pull_policy.as_deref();
    errors.one_of(
        &place.field("imagePullPolicy"),
        policy,
        &["Always", "IfNotPresent", "Never"],
    );
}

fn restart_policy(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let policy = container.restart_policy.as_deref();
    errors.one_of(
        &place.field("restartPolicy"),
        policy,
        &["Always", "Never", "OnFailure"],
    );
    restart_rules(container, place, errors);
    if !place.init || policy == Some("Always") {
        return;
    }
    let of_sidecars = [
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ];
    for (field, there) in of_sidecars {
        if there {
            errors.forbidden(
                &place.field(field),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

fn resize_policy(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let never = place.spec.restart_policy.as_deref() == Some("Never");
    let mut seen = BTreeSet::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        let path = place.field(&format!("resizePolicy[{index}]"));
        let (resource, restart) = (policy.resource_name.as_str(), policy.restart_policy.as_str());
        errors.one_of(&format!("{path}.resourceName"), Some(resource), &RESIZABLE);
        let known = ["NotRequired", "RestartContainer"];
        errors.one_of(&format!("{path}.restartPolicy"), Some(restart), &known);
        if place.init && !is_sidecar(container) && restart == "RestartContainer" {
            errors.invalid(
                &format!("{path}.restartPolicy"),
                restart,
                "must not be set to 'RestartContainer' for non-sidecar initContainers",
            );
        }
        if never && restart == "RestartContainer" {
            errors.invalid(
                &format!("{path}.restartPolicy"),
                restart,
                "must be 'NotRequired' when `restartPolicy` is 'Never'",
            );
        }
        if !seen.insert(resource) {
            errors.duplicate(&path, resource);
        }
    }
}

fn restart_rules(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    if !rules.is_empty() && container.restart_policy.is_none() {
        errors.required(
            &place.field("restartPolicy"),
            "must specify restartPolicy when restart rules are used",
        );
    }
    if rules.len() > MAX_RESTART_RULES {
        errors.too_many(&place.field("restartPolicyRules"), rules.len(), MAX_RESTART_RULES);
    }
    for (index, rule) in rules.iter().enumerate() {
        let path = place.field(&format!("restartPolicyRules[{index}]"));
        errors.one_of(
            &format!("{path}.action"),
            Some(&rule.action),
            &["Restart", "RestartAllContainers"],
        );
        let Some(codes) = &rule.exit_codes else {
            errors.required(&format!("{path}.exitCodes"), "must be specified");
            continue;
        };
        errors.one_of(
            &format!("{path}.exitCodes.operator"),
            Some(&codes.operator),
            &["In", "NotIn"],
        );
        let values = codes.values.as_ref().map_or(0, Vec::len);
        if values > MAX_RESTART_RULE_EXIT_CODES {
            let path = format!("{path}.exitCodes.values");
            errors.too_many(&path, values, MAX_RESTART_RULE_EXIT_CODES);
        }
    }
}

fn ports(ports: &[ContainerPort], place: &Place<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{}.ports[{index}]", place.path);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            errors.check(&format!("{path}.name"), name, names::port_name(name));
            if !seen.insert(name) {
                errors.duplicate(&format!("{path}.name"), name);
            }
        }
        port_number(&format!("{path}.containerPort"), port.container_port, errors);
        if let Some(number) = port.host_port.filter(|number| *number != 0) {
            port_number(&format!("{path}.hostPort"), number, errors);
            if !place.init && place.spec.host_network == Some(true) && number != port.container_port {
                let why = "must match `containerPort` when `hostNetwork` is true";
                errors.invalid_number(&format!("{path}.hostPort"), number, why);
            }
        }
        if let Some(ip) = port
            .host_ip
            .as_deref()
            .filter(|ip| !ip.is_empty() && ip.parse::<IpAddr>().is_err())
        {
            errors.invalid(
                &format!("{path}.hostIP"),
                ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        errors.one_of(
            &format!("{path}.protocol"),
            port.protocol.as_deref(),
            &["SCTP", "TCP", "UDP"],
        );
    }
}

pub(super) fn port_number(path: &str, number: i32, errors: &mut Errors) {
    if !(1..=65535).contains(&number) {
        errors.invalid_number(path, number, "must be between 1 and 65535, inclusive");
    }
}

fn volume_mounts(mounts: &[VolumeMount], place: &Place<'_>, errors: &mut Errors) {
    let mut seen = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("{}.volumeMounts[{index}]", place.path);
        if mount.name.is_empty() {
            errors.required(&format!("{path}.name"), "");
        } else if !place.volumes.contains(mount.name.as_str()) {
            errors.not_found(&format!("{path}.name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            errors.required(&format!("{path}.mountPath"), "");
        } else if !seen.insert(mount.mount_path.as_str()) {
            errors.invalid(&format!("{path}.mountPath"), &mount.mount_path, "must be unique");
        }
        if mount.mount_path.split('/').any(|part| part == "..") {
            errors.invalid(
                &format!("{path}.mountPath"),
                &mount.mount_path,
                "must not contain '..'",
            );
        }
        errors.check(
            &format!("{path}.mountPath"),
            &mount.mount_path,
            names::path_length(&mount.mount_path),
        );
        sub_paths(mount, &path, errors);
        let known = ["Bidirectional", "HostToContainer", "None"];
        errors.one_of(
            &format!("{path}.mountPropagation"),
            mount.mount_propagation.as_deref(),
            &known,
        );
        recursive_read_only(mount, &path, errors);
    }
}

/// It would say less than it seems to, if the mount or what comes through it later could be written to.
fn recursive_read_only(mount: &VolumeMount, path: &str, errors: &mut Errors) {
    let path = format!("{path}.recursiveReadOnly");
    let wanted = mount.recursive_read_only.as_deref();
    errors.one_of(&path, wanted, &["Disabled", "Enabled", "IfPossible"]);
    if matches!(wanted, None | Some("Disabled")) {
        return;
    }
    if mount.read_only != Some(true) {
        errors.forbidden(&path, "may only be specified when readOnly is true");
    }
    if mount
        .mount_propagation
        .as_deref()
        .is_some_and(|kind| kind != "None")
    {
        errors.forbidden(
            &path,
            "may only be specified when mountPropagation is None or not specified",
        );
    }
}

/// Mounts that reach the host need the rights of the host.
fn mount_propagation(container: &Container, place: &Place<'_>, errors: &mut Errors) {
    let privileged = container
        .security_context
        .as_ref()
        .is_some_and(|security| security.privileged == Some(true));
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        if mount.mount_propagation.as_deref() == Some("Bidirectional") && !privileged {
            let path = format!("{}.volumeMounts[{index}].mountPropagation", place.path);
            errors.forbidden(
                &path,
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
    }
}

fn sub_paths(mount: &VolumeMount, path: &str, errors: &mut Errors) {
    let given = |text: &Option<String>| text.as_deref().filter(|text| !text.is_empty()).map(str::to_owned);
    let (plain, template) = (given(&mount.sub_path), given(&mount.sub_path_expr));
    if let Some(plain) = &plain {
        errors.check(&format!("{path}.subPath"), plain, names::local_path(plain));
    }
    if let Some(template) = &template {
        errors.check(
            &format!("{path}.subPathExpr"),
            template,
            names::local_path(template),
        );
    }
    if plain.is_some() && template.is_some() {
        errors.invalid(
            &format!("{path}.subPathExpr"),
            &template.unwrap_or_default(),
            "subPathExpr and subPath are mutually exclusive",
        );
    }
}
