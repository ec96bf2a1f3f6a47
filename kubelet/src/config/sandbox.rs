//! A pod's sandbox, as the engine is asked for it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use berth_cri::{NamespaceOptions, PodSandboxConfig, PortMapping, Protocol};
use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use super::{labels, pod_dns};
use crate::defaults::{FQDN_MAX_LEN, HOSTNAME_MAX_LEN};
use crate::identity::PodUid;
use crate::plan::{Desired, NodeFacts};
use crate::resources::{overhead_resources, pod_resources};
use crate::spec::{self, Role};
use crate::user_ids::UserIds;
use crate::{env::ConfigError, qos};

/// The configuration of the pod's sandbox number `attempt`.
///
/// # Errors
/// A value that validation lets through only in a pod that it did not see.
pub fn to_sandbox_config(desired: &Desired, attempt: u32) -> Result<PodSandboxConfig, ConfigError> {
    let (pod, uid, node) = (&*desired.pod, &desired.uid, &*desired.node);
    let security = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let sysctls = security
        .and_then(|security| security.sysctls.as_deref())
        .unwrap_or_default();
    Ok(PodSandboxConfig {
        name: spec::name(pod).to_owned(),
        namespace: spec::namespace(pod).to_owned(),
        uid: uid.0.clone(),
        attempt,
        hostname: shown_hostname(pod, node)?,
        log_directory: log_directory(pod, uid, node),
        dns: pod_dns(pod, node),
        port_mappings: port_mappings(pod)?,
        labels: pod_labels(pod, uid),
        annotations: pod.metadata.annotations.clone().unwrap_or_default(),
        cgroup_parent: qos::pod_cgroup(&node.cgroup_root, qos::qos_class(pod), uid),
        sysctls: sysctls
            .iter()
            .map(|sysctl| (sysctl.name.replace('/', "."), sysctl.value.clone()))
            .collect(),
        namespaces: namespace_options(pod),
        runtime_handler: spec::runtime_handler(pod).to_owned(),
        privileged: has_privileged_container(pod),
        overhead: overhead_resources(pod),
        resources: Some(pod_resources(pod, node)),
        user_namespace: desired.user_ids.map(UserIds::user_namespace),
        security: super::security::sandbox_security(pod, node)?,
    })
}

fn log_directory(pod: &Pod, uid: &PodUid, node: &NodeFacts) -> PathBuf {
    node.log_root
        .join(format!("{}_{}_{uid}", spec::namespace(pod), spec::name(pod)))
}

fn has_privileged_container(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.filter_map(|container| container.security_context.as_ref())
        .any(|security| security.privileged == Some(true))
}

fn pod_labels(pod: &Pod, uid: &PodUid) -> BTreeMap<String, String> {
    let mut all = pod.metadata.labels.clone().unwrap_or_default();
    all.insert(labels::POD_NAME.to_owned(), spec::name(pod).to_owned());
    all.insert(labels::POD_NAMESPACE.to_owned(), spec::namespace(pod).to_owned());
    all.insert(labels::POD_UID.to_owned(), uid.0.clone());
    all
}

/// Which namespaces the pod shares.
pub fn namespace_options(pod: &Pod) -> NamespaceOptions {
    let Some(spec) = &pod.spec else {
        return NamespaceOptions::default();
    };
    NamespaceOptions {
        host_network: spec::host_network(spec),
        host_pid: spec.host_pid == Some(true),
        host_ipc: spec.host_ipc == Some(true),
        shared_pid: spec.share_process_namespace == Some(true),
    }
}

/// The pod's host name: `hostnameOverride`, `hostname`, or its name cut to what the kernel takes.
pub fn hostname(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let given = spec.and_then(|spec| spec.hostname_override.as_deref().or(spec.hostname.as_deref()));
    if let Some(given) = given.filter(|name| !name.is_empty()) {
        return given.to_owned();
    }
    let name = spec::name(pod);
    let cut = name.get(..HOSTNAME_MAX_LEN).unwrap_or(name);
    cut.trim_end_matches(['-', '.']).to_owned()
}

/// The domain of a pod with a `subdomain`: `<subdomain>.<namespace>.svc.<cluster domain>`.
pub(super) fn domain(pod: &Pod, node: &NodeFacts) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.hostname_override.is_some() {
        return None;
    }
    let subdomain = spec.subdomain.as_deref().filter(|name| !name.is_empty())?;
    let domain = format!("{subdomain}.{}.svc.{}", spec::namespace(pod), node.cluster_domain);
    Some(domain.trim_end_matches('.').to_owned())
}

/// What `uname -n` says in the pod.
/// On the host's network that is the host's own name, which the engine knows.
fn shown_hostname(pod: &Pod, node: &NodeFacts) -> Result<String, ConfigError> {
    if pod.spec.as_ref().is_some_and(spec::host_network) {
        return Ok(String::new());
    }
    let short = hostname(pod);
    let as_fqdn = pod
        .spec
        .as_ref()
        .is_some_and(|spec| spec.set_hostname_as_fqdn == Some(true));
    let Some(domain) = domain(pod, node).filter(|_| as_fqdn) else {
        return Ok(short);
    };
    let whole = format!("{short}.{domain}");
    if whole.len() > FQDN_MAX_LEN {
        return Err(ConfigError::Invalid(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {whole} is too long ({FQDN_MAX_LEN} \
             characters is the max, {} characters requested)",
            whole.len()
        )));
    }
    Ok(whole)
}

fn port_mappings(pod: &Pod) -> Result<Vec<PortMapping>, ConfigError> {
    if namespace_options(pod).host_network {
        return Ok(Vec::new());
    }
    let running = spec::all_containers(pod).filter(|(_, role)| *role != Role::Init);
    let ports = running.flat_map(|(container, _)| container.ports.as_deref().unwrap_or_default());
    let mapped = ports.filter(|port| port.host_port.is_some_and(|port| port != 0));
    mapped.map(port_mapping).collect()
}

fn port_mapping(port: &ContainerPort) -> Result<PortMapping, ConfigError> {
    let number = |port: i32| {
        u16::try_from(port)
            .map_err(|_| ConfigError::Invalid(format!("port {port} is not between 1 and 65535")))
    };
    let host_ip = match port.host_ip.as_deref() {
        None | Some("" | "0.0.0.0" | "::") => None,
        Some(ip) => Some(
            ip.parse()
                .map_err(|_| ConfigError::Invalid(format!("hostIP {ip:?} is not an IP address")))?,
        ),
    };
    let protocol = match port.protocol.as_deref() {
        None | Some("TCP") => Protocol::Tcp,
        Some("UDP") => Protocol::Udp,
        Some("SCTP") => Protocol::Sctp,
        Some(other) => {
            return Err(ConfigError::Invalid(format!(
                "protocol {other:?} is not TCP, UDP or SCTP"
            )));
        }
    };
    Ok(PortMapping {
        protocol,
        container_port: number(port.container_port)?,
        host_port: number(port.host_port.unwrap_or(0))?,
        host_ip,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::testing::pod;

    fn config(spec: &str) -> PodSandboxConfig {
        tried(spec).unwrap()
    }

    fn tried(spec: &str) -> Result<PodSandboxConfig, ConfigError> {
        let node = NodeFacts {
            log_root: "/logs".into(),
            cluster_domain: "cluster.local".into(),
            ..NodeFacts::default()
        };
        let desired = Desired {
            pod: Arc::new(pod(spec)),
            uid: PodUid("u1".into()),
            objects: Arc::default(),
            node: Arc::new(node),
            user_ids: None,
            deletion: None,
        };
        to_sandbox_config(&desired, 3)
    }

    #[test]
    fn the_whole_of_it() {
        let found = config(
            r#"{"securityContext":{"sysctls":[{"name":"net/core/somaxconn","value":"9"}]},"shareProcessNamespace":true,
              "initContainers":[{"name":"i","image":"i","ports":[{"containerPort":1,"hostPort":1}]}],
              "containers":[{"name":"c","image":"i","ports":[
                {"containerPort":80,"hostPort":8080,"hostIP":"127.0.0.1"},{"containerPort":53,"hostPort":53,"protocol":"UDP","hostIP":"0.0.0.0"},
                {"containerPort":81}]}]}"#,
        );
        assert_eq!(found.attempt, 3);
        assert_eq!(found.hostname, "p");
        assert_eq!(found.log_directory, Path::new("/logs/default_p_u1"));
        assert_eq!(found.cgroup_parent, Path::new("kubepods/besteffort/podu1"));
        assert_eq!(found.sysctls["net.core.somaxconn"], "9");
        assert!(found.namespaces.shared_pid && !found.namespaces.host_network);
        assert_eq!(found.labels[labels::POD_UID], "u1");
        let ports: Vec<_> = found
            .port_mappings
            .iter()
            .map(|p| (p.host_port, p.container_port, p.host_ip))
            .collect();
        assert_eq!(ports, [(8080, 80, Some([127, 0, 0, 1].into())), (53, 53, None)]);
    }

    #[test]
    fn no_ports_are_mapped_on_the_hosts_network() {
        let found = config(
            r#"{"hostNetwork":true,"containers":[{"name":"c","image":"i","ports":[{"containerPort":80,"hostPort":80}]}]}"#,
        );
        assert_eq!(found.port_mappings, []);
    }

    #[test]
    fn host_names() {
        assert_eq!(
            config(r#"{"containers":[],"hostname":"h","subdomain":"s"}"#).hostname,
            "h"
        );
        assert_eq!(
            config(r#"{"containers":[],"subdomain":"s","setHostnameAsFQDN":true}"#).hostname,
            "p.s.default.svc.cluster.local"
        );
        // ".s.default.svc.cluster.local" has 28 characters.
        let named = |length: usize, as_fqdn: bool| {
            let name = "h".repeat(length);
            tried(&format!(
                "{{\"containers\":[],\"hostname\":\"{name}\",\"subdomain\":\"s\",\"setHostnameAsFQDN\":{as_fqdn}}}"
            ))
        };
        assert_eq!(named(36, true).unwrap().hostname.len(), 64);
        assert_eq!(named(37, false).unwrap().hostname.len(), 37);
        let error = named(37, true).unwrap_err().to_string();
        assert!(
            error.ends_with("is too long (64 characters is the max, 65 characters requested)"),
            "{error}"
        );
        let mut long = pod(r#"{"containers":[]}"#);
        long.metadata.name = Some(format!("{}-.x", "a".repeat(62)));
        assert_eq!(hostname(&long), "a".repeat(62));
    }
}
