//! One container's interface on one network, as the caller asks for it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::CniError;

/// What to attach to the network. The ids are the pod sandbox's: all containers of a pod share one attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The sandbox's id (`CNI_CONTAINERID`): letters, digits, `_`, `.` and `-`, starting with a letter or digit.
    pub container_id: String,
    /// The sandbox's network namespace, for instance `/proc/4711/ns/net` (`CNI_NETNS`).
    pub netns: PathBuf,
    /// The interface's name in the sandbox, `eth0` (`CNI_IFNAME`).
    pub ifname: String,
    /// The pod's name (`K8S_POD_NAME`).
    pub pod_name: String,
    /// The pod's namespace (`K8S_POD_NAMESPACE`).
    pub pod_namespace: String,
    /// The pod's UID (`K8S_POD_UID`).
    pub pod_uid: String,
    /// Host ports that lead to the pod (capability `portMappings`).
    pub port_mappings: Vec<PortMapping>,
    /// The pod's resolver settings (capability `dns`); `None` leaves the capability out.
    pub dns: Option<Dns>,
    /// The pod's bandwidth limits (capability `bandwidth`); `None` leaves the capability out.
    pub bandwidth: Option<Bandwidth>,
}

/// A port of the host that leads to a pod (CNI convention `portMappings`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port on the host, 1 to 65535.
    pub host_port: u16,
    /// The port in the pod, 1 to 65535.
    pub container_port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The host's address; `None` is every one.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// A transport protocol that a port can be mapped for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    #[serde(alias = "TCP")]
    Tcp,
    /// RFC 768.
    #[serde(alias = "UDP")]
    Udp,
    /// RFC 9260.
    #[serde(alias = "SCTP")]
    Sctp,
}

impl Protocol {
    /// The name that CNI and nftables use.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// Resolver settings (CNI type `dns`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// Addresses of name servers, the preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Search domains, the preferred first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// Bandwidth limits (CNI convention `bandwidth`): bits per second and bits; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bandwidth {
    /// Rate into the pod, bits per second.
    pub ingress_rate: u64,
    /// Burst into the pod, bits.
    pub ingress_burst: u64,
    /// Rate out of the pod, bits per second.
    pub egress_rate: u64,
    /// Burst out of the pod, bits.
    pub egress_burst: u64,
}

impl Attachment {
    /// Checks what plugins take for granted (CNI spec, section 2).
    pub(crate) fn validate(&self) -> Result<(), CniError> {
        check_container_id(&self.container_id)?;
        check_ifname(&self.ifname)?;
        for (field, value) in [
            ("podName", &self.pod_name),
            ("podNamespace", &self.pod_namespace),
            ("podUID", &self.pod_uid),
        ] {
            if value.contains([';', '=', '\0']) {
                return Err(CniError::InvalidAttachment {
                    field,
                    problem: format!("must have no ';', '=' or NUL, but is {value:?}"),
                });
            }
        }
        for port in &self.port_mappings {
            if port.host_port == 0 || port.container_port == 0 {
                return Err(CniError::InvalidAttachment {
                    field: "portMappings",
                    problem: format!(
                        "must have ports from 1 to 65535, but one maps {} to {}",
                        port.host_port, port.container_port
                    ),
                });
            }
        }
        Ok(())
    }
}

/// A container's id becomes a file name and part of an environment variable.
pub(crate) fn check_container_id(id: &str) -> Result<(), CniError> {
    let starts_well = id.starts_with(|c: char| c.is_ascii_alphanumeric());
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if starts_well && id.len() <= 200 && id.chars().all(legal) {
        return Ok(());
    }
    Err(CniError::InvalidAttachment {
        field: "containerID",
        problem: format!(
            "must be 1 to 200 letters, digits, '_', '.' or '-', starting with a letter or digit, but is {id:?}"
        ),
    })
}

/// An interface's name: what the kernel's `dev_valid_name` takes.
pub(crate) fn check_ifname(name: &str) -> Result<(), CniError> {
    let legal = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':');
    if (1..16).contains(&name.len()) && name.chars().all(legal) && name != "." && name != ".." {
        return Ok(());
    }
    Err(CniError::InvalidAttachment {
        field: "ifName",
        problem: format!("must be 1 to 15 printable characters without '/' and ':', but is {name:?}"),
    })
}
