//! The rules for a Pod as a whole.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::container::{self, Place};
use super::metadata::validate_object_meta;
use super::{
    Errors, FieldError, kernel, names, resources, scheduling, security, security_annotations, volume,
};
use crate::annotations;
use crate::defaults::{MAX_DNS_NAMESERVERS, MAX_DNS_SEARCH_LIST_CHARS, MAX_DNS_SEARCH_PATHS};

/// All broken rules of a defaulted Pod, with the paths of the fields.
pub fn validate_pod(pod: &Pod) -> Vec<FieldError> {
    let mut errors = Errors(validate_object_meta(&pod.metadata));
    for (name, problem) in annotations::problems(pod) {
        let value = pod.metadata.annotations.as_ref().and_then(|all| all.get(&name));
        let path = format!("metadata.annotations[{name}]");
        errors.invalid(&path, value.map_or("", String::as_str), problem);
    }
    match &pod.spec {
        Some(spec) => {
            pod_spec(spec, &mut errors);
            kernel::kernel(pod, spec, &mut errors);
            volume::claims_of_ephemeral(pod, &mut errors);
            security_annotations::annotations(pod, &mut errors);
        }
        None => errors.required("spec", ""),
    }
    errors.0
}

fn pod_spec(spec: &PodSpec, errors: &mut Errors) {
    let volumes = volume::volumes(spec.volumes.as_deref().unwrap_or_default(), errors);
    containers(spec, &volumes, errors);
    errors.one_of(
        "spec.restartPolicy",
        spec.restart_policy.as_deref(),
        &["Always", "Never", "OnFailure"],
    );
    errors.not_negative(
        "spec.terminationGracePeriodSeconds",
        spec.termination_grace_period_seconds,
    );
    if let Some(seconds) = spec
        .active_deadline_seconds
        .filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        errors.invalid_number(
            "spec.activeDeadlineSeconds",
            seconds,
            "must be between 1 and 2147483647, inclusive",
        );
    }
    for (index, secret) in spec.image_pull_secrets.iter().flatten().enumerate() {
        if secret.name.is_empty() {
            errors.required(&format!("spec.imagePullSecrets[{index}].name"), "");
        }
    }
    host_names(spec, errors);
    dns(spec, errors);
    security::pod_security(spec, errors);
    host_ports(spec, errors);
    resources::pod_resources(spec, errors);
    scheduling::scheduling(spec, errors);
    if spec.os.as_ref().is_some_and(|os| os.name.is_empty()) {
        errors.required("spec.os.name", "");
    }
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = format!("spec.readinessGates[{index}].conditionType");
        errors.check(
            &path,
            &gate.condition_type,
            names::qualified_name(&gate.condition_type),
        );
    }
    if let Some(name) = spec.runtime_class_name.as_deref() {
        errors.check("spec.runtimeClassName", name, names::dns_subdomain(name));
    }
}

fn containers(spec: &PodSpec, volumes: &BTreeSet<&str>, errors: &mut Errors) {
    if spec.containers.is_empty() {
        errors.required("spec.containers", "");
    }
    let mut seen = BTreeSet::new();
    let lists: [(&str, &[Container], bool); 2] = [
        (
            "spec.initContainers",
            spec.init_containers.as_deref().unwrap_or_default(),
            true,
        ),
        ("spec.containers", &spec.containers, false),
    ];
    for (list, containers, init) in lists {
        for (index, one) in containers.iter().enumerate() {
            let path = format!("{list}[{index}]");
            if !one.name.is_empty() && !seen.insert(one.name.as_str()) {
                errors.duplicate(&format!("{path}.name"), &one.name);
            }
            container::container(
                one,
                &Place {
                    path: &path,
                    init,
                    spec,
                    volumes,
                },
                errors,
            );
        }
    }
}

fn host_names(spec: &PodSpec, errors: &mut Errors) {
    for (path, name) in [
        ("spec.hostname", &spec.hostname),
        ("spec.subdomain", &spec.subdomain),
    ] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.check(path, name, names::dns_label(name));
        }
    }
    if let Some(name) = spec.hostname_override.as_deref() {
        let too_long = (name.len() > 64).then_some("must be no more than 64 characters");
        errors.check(
            "spec.hostnameOverride",
            name,
            names::dns_subdomain(name).or(too_long),
        );
        if spec.host_network == Some(true) {
            errors.forbidden(
                "spec.hostnameOverride",
                "may not be specified when hostNetwork is true",
            );
        }
        if spec.set_hostname_as_fqdn == Some(true) {
            errors.forbidden(
                "spec.hostnameOverride",
                "may not be specified when setHostnameAsFQDN is true",
            );
        }
    }
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{index}]");
        if alias.ip.parse::<IpAddr>().is_err() {
            errors.invalid(
                &format!("{path}.ip"),
                &alias.ip,
                "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            );
        }
        for (index, name) in alias.hostnames.iter().flatten().enumerate() {
            errors.check(
                &format!("{path}.hostnames[{index}]"),
                name,
                names::dns_subdomain(name),
            );
        }
    }
}

fn dns(spec: &PodSpec, errors: &mut Errors) {
    let known = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
    errors.one_of("spec.dnsPolicy", spec.dns_policy.as_deref(), &known);
    let config = spec.dns_config.as_ref();
    let servers = config
        .and_then(|config| config.nameservers.as_deref())
        .unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") && servers.is_empty() {
        errors.required(
            "spec.dnsConfig.nameservers",
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    if servers.len() > MAX_DNS_NAMESERVERS {
        let why = format!("must not have more than {MAX_DNS_NAMESERVERS} nameservers");
        errors.invalid("spec.dnsConfig.nameservers", &servers.join(","), why);
    }
    for (index, server) in servers.iter().enumerate() {
        if server.parse::<IpAddr>().is_err() {
            let why = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
            errors.invalid(&format!("spec.dnsConfig.nameservers[{index}]"), server, why);
        }
    }
    let searches = config
        .and_then(|config| config.searches.as_deref())
        .unwrap_or_default();
    if searches.len() > MAX_DNS_SEARCH_PATHS || searches.join(" ").len() > MAX_DNS_SEARCH_LIST_CHARS {
        let why = format!(
            "must not have more than {MAX_DNS_SEARCH_PATHS} search paths and {MAX_DNS_SEARCH_LIST_CHARS} characters"
        );
        errors.invalid("spec.dnsConfig.searches", &searches.join(","), why);
    }
    for (index, search) in searches.iter().enumerate() {
        let name = search.strip_suffix('.').unwrap_or(search);
        if search != "." {
            let name = name.replace('_', "-");
            errors.check(
                &format!("spec.dnsConfig.searches[{index}]"),
                search,
                names::dns_subdomain(&name),
            );
        }
    }
    for (index, option) in config
        .and_then(|config| config.options.as_deref())
        .unwrap_or_default()
        .iter()
        .enumerate()
    {
        let path = format!("spec.dnsConfig.options[{index}]");
        let name = option.name.as_deref().unwrap_or_default();
        let value = option.value.as_deref().unwrap_or_default();
        if name.is_empty() {
            errors.required(&path, "must not be empty");
        }
        // It becomes a line of a file.
        if [name, value]
            .iter()
            .any(|text| text.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            errors.invalid(
                &path,
                &format!("{name}:{value}"),
                "must not contain spaces or control characters",
            );
        }
    }
}

/// Two containers can't have one port of the host. Init containers that end run one by one.
fn host_ports(spec: &PodSpec, errors: &mut Errors) {
    distinct(ports_of_host(spec), errors);
    for (index, one) in spec.init_containers.iter().flatten().enumerate() {
        if !crate::spec::is_sidecar(one) {
            distinct(ports_of(one, &format!("spec.initContainers[{index}]")), errors);
        }
    }
}

fn distinct(ports: Vec<(String, HostPort<'_>)>, errors: &mut Errors) {
    let mut seen: Vec<HostPort<'_>> = Vec::new();
    for (path, port) in ports {
        if seen.iter().any(|other| other.collides(&port)) {
            errors.duplicate(&path, &port.to_string());
        }
        seen.push(port);
    }
}

/// A port of the host that a container asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort<'a> {
    protocol: &'a str,
    ip: &'a str,
    number: i32,
}

impl HostPort<'_> {
    /// The port's number.
    pub fn number(&self) -> i32 {
        self.number
    }

    /// Both can't be had: one of them is of every address of the host, or both are of the same.
    pub fn collides(&self, other: &Self) -> bool {
        let every = |ip: &str| matches!(ip, "" | "0.0.0.0" | "::");
        self.protocol == other.protocol
            && self.number == other.number
            && (self.ip == other.ip || every(self.ip) || every(other.ip))
    }
}

impl fmt::Display for HostPort<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.protocol, self.ip, self.number)
    }
}

/// The ports of the host that a pod asks for, with the paths of the fields. Init containers that end have none.
pub fn ports_of_host(spec: &PodSpec) -> Vec<(String, HostPort<'_>)> {
    let init = spec.init_containers.iter().flatten().enumerate();
    let sidecars = init.filter(|(_, one)| crate::spec::is_sidecar(one));
    let sidecars = sidecars.map(|(index, one)| (format!("spec.initContainers[{index}]"), one));
    let mains = spec
        .containers
        .iter()
        .enumerate()
        .map(|(index, one)| (format!("spec.containers[{index}]"), one));
    let all = sidecars.chain(mains);
    all.flat_map(|(path, one)| ports_of(one, &path)).collect()
}

fn ports_of<'a>(container: &'a Container, path: &str) -> Vec<(String, HostPort<'a>)> {
    let mut found = Vec::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let Some(number) = port.host_port.filter(|number| *number != 0) else {
            continue;
        };
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let ip = port.host_ip.as_deref().unwrap_or_default();
        found.push((
            format!("{path}.ports[{index}].hostPort"),
            HostPort { protocol, ip, number },
        ));
    }
    found
}
