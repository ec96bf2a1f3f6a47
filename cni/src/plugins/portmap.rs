//! `portmap`: host ports that lead to the pod.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use serde::Deserialize;
use serde_json::Value;

use super::{Context, read_conf};
use crate::attachment::{PortMapping, Protocol};
use crate::conntrack::{self, Flow};
use crate::firewall::{self, Element, PORT_SETS};
use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::result::{CniResult, IpConfig, PluginError, code};
use crate::sysctl;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default)]
    runtime_config: RuntimeConfig,
    /// Rewrite the source of connections that would else come back around the host. On unless switched off.
    #[serde(default)]
    snat: Option<bool>,
    #[serde(default)]
    backend: Option<String>,
    #[serde(default, rename = "conditionsV4")]
    conditions_v4: Option<Value>,
    #[serde(default, rename = "conditionsV6")]
    conditions_v6: Option<Value>,
    #[serde(default)]
    mark_masq_bit: Option<Value>,
    #[serde(default)]
    external_set_mark_chain: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Option<Vec<Mapping>>,
}

/// As runtimes write it: an empty `hostIP` is every address, a missing protocol is TCP.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: Option<Protocol>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

/// Opens the host ports.
pub(super) fn add(context: &Context<'_>) -> Result<CniResult, PluginError> {
    let conf = parse(context)?;
    let result = context.prev_result()?;
    let mappings = mappings(&conf)?;
    if mappings.is_empty() {
        return Ok(result);
    }
    let elements = elements(context, &conf, &result, &mappings)?;
    let _lock = context.lock(Lock::exclusive)?;
    refuse_conflicts(&elements, &context.firewall().list()?.unwrap_or_default())?;
    for mapping in &mappings {
        refuse_listener(mapping, &result)?;
    }
    // The table's guard has to stand before its reason does.
    context.firewall().add(&elements)?;
    let netlink = Netlink::open()?;
    allow_loopback_sources(&netlink, &result)?;
    forget_flows_to_others(&netlink, &result, &mappings)?;
    Ok(result)
}

/// Closes them.
pub(super) fn del(context: &Context<'_>) -> Result<(), PluginError> {
    let mine = firewall::tag(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    );
    remove(context, |tag| tag == mine)
}

/// All of them are open.
pub(super) fn check(context: &Context<'_>) -> Result<(), PluginError> {
    let conf = parse(context)?;
    let result = context.prev_result()?;
    let mappings = mappings(&conf)?;
    if mappings.is_empty() {
        return Ok(());
    }
    let present = context.firewall().list()?.unwrap_or_default();
    let expected = elements(context, &conf, &result, &mappings)?;
    let missing = expected.iter().find(|e| {
        !present
            .iter()
            .any(|p| p.set == e.set && p.tag == e.tag && same(p, e))
    });
    match missing {
        None => Ok(()),
        Some(e) => Err(PluginError::new(
            code::CHECK_FAILED,
            format!("the element {} of the set {} is missing", e.key, e.set),
        )),
    }
}

/// What the attachment has in the firewall table.
pub(super) fn firewall(context: &Context<'_>) -> Result<Vec<Element>, PluginError> {
    let conf = parse(context)?;
    match mappings(&conf)?.as_slice() {
        [] => Ok(Vec::new()),
        mappings => elements(context, &conf, &context.prev_result()?, mappings),
    }
}

/// Closes those of attachments that are gone.
pub(super) fn gc(context: &Context<'_>) -> Result<(), PluginError> {
    let network = &context.common.name;
    let prefix = firewall::network_prefix(network);
    let valid = context.valid_attachments()?;
    let valid: Vec<String> = valid
        .iter()
        .map(|(id, ifname)| firewall::tag(network, id, ifname))
        .collect();
    remove(context, |tag| {
        tag.starts_with(&prefix) && !valid.iter().any(|v| v == tag)
    })
}

/// Whether `nft` is there.
pub(super) fn status(context: &Context<'_>) -> Result<(), PluginError> {
    parse(context)?;
    firewall::available().map_err(|e| PluginError {
        code: code::NOT_AVAILABLE,
        ..e
    })
}

fn remove(context: &Context<'_>, of: impl Fn(&str) -> bool) -> Result<(), PluginError> {
    let _lock = context.lock(Lock::exclusive)?;
    match context.firewall().remove(&PORT_SETS, of) {
        // Without nft nothing can have been added.
        Err(e) if e.code == code::MISSING_PROGRAM => Ok(()),
        Err(e) => Err(e),
        Ok(gone) => forget_flows_of(&gone),
    }
}

/// Packets to the host's own addresses that began to go elsewhere go to the pod from now on.
fn forget_flows_to_others(
    netlink: &Netlink,
    result: &CniResult,
    mappings: &[PortMapping],
) -> Result<(), PluginError> {
    let udp = mappings.iter().filter(|m| m.protocol == Protocol::Udp);
    let ports: HashSet<u16> = udp.map(|m| m.host_port).collect();
    if ports.is_empty() {
        return Ok(());
    }
    let local = netlink.all_addresses()?;
    let is_local = |ip: IpAddr| ip.is_loopback() || local.iter().any(|net| net.addr() == ip);
    let pods: Vec<IpAddr> = pod_ips(result).map(|ip| ip.address.addr()).collect();
    forget(&ports, |flow| {
        is_local(flow.asked) && !pods.contains(&flow.answers)
    })
}

/// Packets that went to the pod must not go to the next one that gets its address.
fn forget_flows_of(elements: &[Element]) -> Result<(), PluginError> {
    let udp = elements.iter().filter_map(|element| {
        let (_, _, port) = port_of(element)?;
        let pod = element.data.as_deref()?.split_once(" . ")?.0;
        Some((port.strip_prefix("udp . ")?.parse().ok()?, pod.parse().ok()?))
    });
    let gone: HashSet<(u16, IpAddr)> = udp.collect();
    let ports = gone.iter().map(|(port, _)| *port).collect();
    forget(&ports, |flow| {
        flow.asked != flow.answers && gone.contains(&(flow.port, flow.answers))
    })
}

fn forget(ports: &HashSet<u16>, stale: impl Fn(&Flow) -> bool) -> Result<(), PluginError> {
    conntrack::forget_udp(ports, stale).map_err(|e| {
        PluginError::new(
            code::KERNEL,
            format!("can't forget the UDP flows of a host port: {e}"),
        )
    })
}

fn parse(context: &Context<'_>) -> Result<Conf, PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let unsupported = [
        ("conditionsV4", &conf.conditions_v4),
        ("conditionsV6", &conf.conditions_v6),
        ("markMasqBit", &conf.mark_masq_bit),
        ("externalSetMarkChain", &conf.external_set_mark_chain),
    ];
    if let Some((field, _)) = unsupported.iter().find(|(_, value)| value.is_some()) {
        return Err(PluginError::config(
            field,
            "is not supported by the built-in portmap; install upstream's plugin",
        ));
    }
    match conf.backend.as_deref() {
        None | Some("" | "nftables") => Ok(conf),
        Some(other) => Err(PluginError::config(
            "backend",
            format!(
                "must be \"nftables\" for the built-in portmap, but is {other:?}; install upstream's plugin"
            ),
        )),
    }
}

fn mappings(conf: &Conf) -> Result<Vec<PortMapping>, PluginError> {
    let mappings = conf.runtime_config.port_mappings.iter().flatten().enumerate();
    mappings
        .map(|(i, m)| {
            let wrong =
                |problem: String| PluginError::config(&format!("runtimeConfig.portMappings[{i}]"), problem);
            if m.host_port == 0 || m.container_port == 0 {
                return Err(wrong("ports are from 1 to 65535".into()));
            }
            let host_ip = match m.host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(
                    text.parse()
                        .map_err(|_| wrong(format!("hostIP {text:?} is no address")))?,
                ),
            };
            let protocol = m.protocol.unwrap_or(Protocol::Tcp);
            Ok(PortMapping {
                host_port: m.host_port,
                container_port: m.container_port,
                protocol,
                host_ip,
            })
        })
        .collect()
}

/// The pod's first address of each family.
fn pod_ips(result: &CniResult) -> impl Iterator<Item = &IpConfig> {
    let v4 = result.ips.iter().find(|ip| ip.address.addr().is_ipv4());
    let v6 = result.ips.iter().find(|ip| ip.address.addr().is_ipv6());
    v4.into_iter().chain(v6)
}

/// Whether connections to this address of the host are for a pod's address of that family.
fn leads_to(host_ip: Option<IpAddr>, pod: IpAddr) -> bool {
    host_ip.is_none_or(|host| host.is_ipv4() == pod.is_ipv4())
}

fn elements(
    context: &Context<'_>,
    conf: &Conf,
    result: &CniResult,
    mappings: &[PortMapping],
) -> Result<Vec<Element>, PluginError> {
    let tag = firewall::tag(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    );
    let mut elements = Vec::new();
    for mapping in mappings {
        let before = elements.len();
        for pod in pod_ips(result)
            .map(|ip| ip.address.addr())
            .filter(|pod| leads_to(mapping.host_ip, *pod))
        {
            let family = if pod.is_ipv4() { '4' } else { '6' };
            let port = format!("{} . {}", mapping.protocol.as_str(), mapping.host_port);
            let (set, key) = match mapping.host_ip.filter(|ip| !ip.is_unspecified()) {
                Some(host) => (format!("port{family}"), format!("{host} . {port}")),
                None => (format!("port{family}_any"), port),
            };
            let data = Some(format!("{pod} . {}", mapping.container_port));
            elements.push(Element {
                data,
                ..Element::new(&set, key, &tag)
            });
        }
        if elements.len() == before {
            return Err(PluginError::config(
                "runtimeConfig.portMappings",
                format!(
                    "host port {}/{} can't lead to the pod: it has no address of the family of {}",
                    mapping.host_port,
                    mapping.protocol.as_str(),
                    mapping
                        .host_ip
                        .map_or_else(|| "any host address".into(), |ip| ip.to_string()),
                ),
            ));
        }
    }
    if conf.snat != Some(false) {
        for ip in pod_ips(result) {
            let (set, loopback) = match ip.address.addr() {
                IpAddr::V4(_) => ("hairpin4", Some("127.0.0.0/8")),
                // The kernel never routes ::1 out of lo, so the rules leave it alone.
                IpAddr::V6(_) => ("hairpin6", None),
            };
            let pod = ip.address.addr();
            elements.push(Element::new(set, format!("{pod} . {}", ip.address.trunc()), &tag));
            elements.extend(loopback.map(|net| Element::new(set, format!("{pod} . {net}"), &tag)));
        }
    }
    Ok(elements)
}

/// A host port: `None` is every address of the family that the set has.
fn port_of(element: &Element) -> Option<(char, Option<&str>, &str)> {
    let family = element.set.strip_prefix("port")?.chars().next()?;
    match element.set.ends_with("_any") {
        true => Some((family, None, &element.key)),
        false => element
            .key
            .split_once(" . ")
            .map(|(ip, port)| (family, Some(ip), port)),
    }
}

/// A port that another pod has, on the same address or on every one, can't be had again.
fn refuse_conflicts(wanted: &[Element], present: &[Element]) -> Result<(), PluginError> {
    for (index, element) in wanted.iter().enumerate() {
        let Some((family, ip, port)) = port_of(element) else {
            continue;
        };
        let clashes = |other: &&Element| {
            port_of(other)
                .is_some_and(|(f, i, p)| f == family && p == port && (i.is_none() || ip.is_none() || i == ip))
        };
        let taken = present
            .iter()
            .find(clashes)
            .or_else(|| wanted[..index].iter().find(clashes));
        if let Some(other) = taken {
            let (protocol, number) = port.split_once(" . ").unwrap_or(("", port));
            let by = match other.tag == element.tag {
                true => "this pod maps it twice".to_owned(),
                false => format!("it belongs to the attachment {}", other.tag),
            };
            return Err(conflict(protocol, number, by));
        }
    }
    Ok(())
}

/// A port that a program on the host listens on would be taken away from it.
fn refuse_listener(mapping: &PortMapping, result: &CniResult) -> Result<(), PluginError> {
    for pod in pod_ips(result)
        .map(|ip| ip.address.addr())
        .filter(|pod| leads_to(mapping.host_ip, *pod))
    {
        let any: IpAddr = match pod {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        let address = SocketAddr::new(mapping.host_ip.unwrap_or(any), mapping.host_port);
        if is_taken(address, mapping.protocol) {
            let by = format!("a program on the host uses {address}");
            return Err(conflict(
                mapping.protocol.as_str(),
                &mapping.host_port.to_string(),
                by,
            ));
        }
    }
    Ok(())
}

/// Whether the address can't be bound because someone else has it. What can't be tried counts as free.
fn is_taken(address: SocketAddr, protocol: Protocol) -> bool {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SockType::Stream, Some(SockProtocol::Tcp)),
        Protocol::Udp => (SockType::Datagram, Some(SockProtocol::Udp)),
        // SCTP has no listeners to be taken from where the kernel has no SCTP; where it has, its own rules apply.
        Protocol::Sctp => return false,
    };
    let Ok(probe) = socket(family, kind, SockFlag::SOCK_CLOEXEC, number) else {
        return false;
    };
    // Connections that linger after their listener is gone don't count; a listener does. UDP knows no such
    // difference: with this option two sockets would share the port.
    if protocol == Protocol::Tcp && setsockopt(&probe, sockopt::ReuseAddr, &true).is_err() {
        return false;
    }
    if address.is_ipv6() && setsockopt(&probe, sockopt::Ipv6V6Only, &true).is_err() {
        return false;
    }
    use std::os::fd::AsRawFd;
    bind(probe.as_raw_fd(), &SockaddrStorage::from(address)) == Err(Errno::EADDRINUSE)
}

fn conflict(protocol: &str, port: &str, by: String) -> PluginError {
    PluginError {
        code: code::PORT_CONFLICT,
        msg: format!("{port}/{protocol}"),
        details: by,
    }
}

/// Connections to 127.0.0.1 leave through the pod's bridge, which the kernel forbids unless told otherwise. The
/// table's `guard` chain drops what would come the other way.
fn allow_loopback_sources(netlink: &Netlink, result: &CniResult) -> Result<(), PluginError> {
    if !result.ips.iter().any(|ip| ip.address.addr().is_ipv4()) {
        return Ok(());
    }
    for interface in result
        .interfaces
        .iter()
        .filter(|interface| interface.sandbox.is_empty())
    {
        if netlink
            .link(&interface.name)?
            .is_some_and(|link| link.master.is_none())
        {
            sysctl::set(&format!("ipv4/conf/{}/route_localnet", interface.name), "1")?;
        }
    }
    Ok(())
}

/// Whether the kernel's element is the one that was added; only its data can differ.
fn same(present: &Element, expected: &Element) -> bool {
    present.key == expected.key && present.data == expected.data
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    #[test]
    fn ports_clash_on_the_same_or_on_every_address() {
        let element = |set: &str, key: &str, tag: &str| Element::new(set, key.into(), tag);
        let table = [
            (("port4_any", "tcp . 80"), ("port4_any", "tcp . 80"), true),
            (("port4_any", "tcp . 80"), ("port4", "10.1.1.1 . tcp . 80"), true),
            (("port4", "10.1.1.1 . tcp . 80"), ("port4_any", "tcp . 80"), true),
            (
                ("port4", "10.1.1.1 . tcp . 80"),
                ("port4", "10.1.1.1 . tcp . 80"),
                true,
            ),
            (
                ("port4", "10.1.1.2 . tcp . 80"),
                ("port4", "10.1.1.1 . tcp . 80"),
                false,
            ),
            (("port4_any", "udp . 80"), ("port4_any", "tcp . 80"), false),
            (("port6_any", "tcp . 80"), ("port4_any", "tcp . 80"), false),
            (
                ("hairpin4", "10.1.1.1 . 10.1.0.0/16"),
                ("hairpin4", "10.1.1.1 . 10.1.0.0/16"),
                false,
            ),
        ];
        for (wanted, present, expected) in table {
            let wanted = element(wanted.0, wanted.1, "n/b/eth0");
            let present = element(present.0, present.1, "n/a/eth0");
            let error = refuse_conflicts(from_ref(&wanted), from_ref(&present)).err();
            assert_eq!(error.is_some(), expected, "{wanted:?} {present:?}");
            assert!(error.is_none_or(|e| e.code == code::PORT_CONFLICT && e.details.contains("n/a/eth0")));
        }
    }
}
