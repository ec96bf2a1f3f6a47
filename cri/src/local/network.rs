//! A sandbox's network: CNI, host ports and `/etc/resolv.conf`.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use berth_cni::{Attachment, CniConfig, CniError, Dns, Network};

use super::{Inner, Sandbox, host_ports, lock};
use crate::engine::EngineError;
use crate::types::{PodSandboxConfig, PortMapping, Protocol};

/// The pod's interface.
const INTERFACE: &str = "eth0";

pub(super) fn load(config: &CniConfig) -> Result<Network, EngineError> {
    Network::load(config).map_err(from_cni)
}

/// Attaches a sandbox to the pod network, unless it has the host's.
pub(super) async fn attach(inner: &Inner, sandbox: &Arc<Sandbox>) -> Result<Vec<IpAddr>, EngineError> {
    let config = lock(&sandbox.record).config.clone();
    let forwarder = inner.config.port_forwarder.as_deref();
    if config.namespaces.host_network {
        return Ok(Vec::new());
    }
    let attachment = Attachment {
        container_id: sandbox.id.0.clone(),
        netns: netns(sandbox).ok_or_else(|| {
            EngineError::FailedPrecondition(format!("Sandbox {} has no pause process any more.", sandbox.id))
        })?,
        ifname: INTERFACE.to_owned(),
        pod_name: config.name.clone(),
        pod_namespace: config.namespace.clone(),
        pod_uid: config.uid.clone(),
        port_mappings: config
            .port_mappings
            .iter()
            // Which addresses the machine has the node can't know; all that it has itself lead to the pod as well.
            .filter(|mapping| forwarder.is_none() || mapping.host_ip.is_none())
            .map(port_mapping)
            .collect(),
        dns: config.dns.map(|dns| Dns {
            nameservers: dns.servers,
            domain: None,
            search: dns.searches,
            options: dns.options,
        }),
        bandwidth: None,
    };
    let ips = inner.network.add(&attachment).await.map_err(from_cni)?.ips;
    if let Some(forwarder) = forwarder {
        // Last: what comes in by then finds its way.
        let ports = host_ports::ports(&config.port_mappings, &ips)?;
        host_ports::add(forwarder, (&sandbox.id.0, &sandbox.dirs.run), ports).await?;
    }
    Ok(ips)
}

/// Tells the network which addresses the cluster gives to this node's pods.
pub(super) async fn assign_subnets(inner: &Inner, pod_cidrs: &str) -> Result<(), EngineError> {
    inner
        .network
        .assign_subnets(pod_cidrs)
        .await
        .map_err(|error| match error {
            CniError::Config { .. } => EngineError::InvalidArgument(error.to_string()),
            error => from_cni(error),
        })
}

/// Takes a sandbox off the pod network. Idempotent.
pub(super) async fn detach(inner: &Inner, sandbox: &Arc<Sandbox>) -> Result<(), EngineError> {
    let (host_network, has_ports) = {
        let config = &lock(&sandbox.record).config;
        let mut ports = config.port_mappings.iter();
        (
            config.namespaces.host_network,
            ports.any(|port| port.host_port != 0),
        )
    };
    if host_network {
        return Ok(());
    }
    if let Some(forwarder) = inner.config.port_forwarder.as_deref().filter(|_| has_ports) {
        host_ports::remove(forwarder, (&sandbox.id.0, &sandbox.dirs.run)).await?;
    }
    inner
        .network
        .del(&sandbox.id.0, netns(sandbox).as_deref())
        .await
        .map_err(from_cni)
}

/// Removes attachments whose sandbox has no record, whichever engine it belonged to.
pub(super) async fn reconcile(inner: &Inner) -> Result<Vec<String>, EngineError> {
    let sandboxes = inner.config.lib_dir.join("sandboxes");
    // Asked for each one when it is locked: other engines make and remove sandboxes meanwhile.
    let is_live = move |id: &str| sandboxes.join(id).exists();
    inner.network.reconcile_with(is_live).await.map_err(from_cni)
}

/// What of the host will keep pods from using the network, and what to do about it.
pub(super) async fn advice(inner: &Inner) -> Vec<String> {
    inner.network.advice().await
}

/// The namespace by way of the process that holds it: there is no mount that could be left behind.
pub(super) fn netns(sandbox: &Sandbox) -> Option<PathBuf> {
    let pause = lock(&sandbox.shim).as_ref()?.pause_pid?;
    Some(PathBuf::from(format!("/proc/{pause}/ns/net")))
}

fn port_mapping(mapping: &PortMapping) -> berth_cni::PortMapping {
    berth_cni::PortMapping {
        host_port: mapping.host_port,
        container_port: mapping.container_port,
        protocol: match mapping.protocol {
            Protocol::Tcp => berth_cni::Protocol::Tcp,
            Protocol::Udp => berth_cni::Protocol::Udp,
            Protocol::Sctp => berth_cni::Protocol::Sctp,
        },
        host_ip: mapping.host_ip,
    }
}

/// Files of the configuration directory that come before the one that is used, and why they are not.
pub(super) async fn skipped(inner: &Inner) -> Vec<String> {
    let skipped = inner.network.skipped().await.unwrap_or_default();
    skipped.iter().map(sentence).collect()
}

/// What is wrong with the network, for people.
pub(super) fn sentence(error: &CniError) -> String {
    format!("The pod's network: {error}.")
}

fn from_cni(error: CniError) -> EngineError {
    let message = sentence(&error);
    match error {
        CniError::InvalidAttachment { .. } | CniError::Config { .. } => EngineError::InvalidArgument(message),
        CniError::NoNetwork { .. }
        | CniError::MissingPlugin { .. }
        | CniError::PortConflict { .. }
        | CniError::Unavailable(_) => EngineError::Unavailable(message),
        _ => EngineError::Internal(message),
    }
}

/// What `/etc/hosts` says in containers to which the caller gives none: what the host's says.
pub(super) fn hosts() -> std::io::Result<Vec<u8>> {
    match fs::read("/etc/hosts") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// What the pod's `/etc/resolv.conf` says: what was asked for, or what the host's says.
pub(super) fn resolv_conf(config: &PodSandboxConfig) -> std::io::Result<String> {
    let Some(dns) = &config.dns else {
        return match fs::read_to_string("/etc/resolv.conf") {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            other => other,
        };
    };
    let mut text = String::new();
    // Writing to a string can't fail.
    if !dns.searches.is_empty() {
        let _ = writeln!(text, "search {}", dns.searches.join(" "));
    }
    for server in &dns.servers {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !dns.options.is_empty() {
        let _ = writeln!(text, "options {}", dns.options.join(" "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DnsConfig;

    #[test]
    fn resolv_conf_has_what_was_asked_for() {
        let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let dns = DnsConfig {
            servers: strings(&["10.0.0.10", "fd00::a"]),
            searches: strings(&["a.svc", "svc"]),
            options: strings(&["ndots:5"]),
        };
        let config = PodSandboxConfig {
            dns: Some(dns),
            ..Default::default()
        };
        let expected = "search a.svc svc\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n";
        assert_eq!(resolv_conf(&config).unwrap(), expected);
        let empty = PodSandboxConfig {
            dns: Some(DnsConfig::default()),
            ..Default::default()
        };
        assert_eq!(resolv_conf(&empty).unwrap(), "");
    }
}
