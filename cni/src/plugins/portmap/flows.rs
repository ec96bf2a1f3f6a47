//! UDP flows that must not outlive the host ports that they went through.

use std::collections::HashSet;
use std::net::IpAddr;

use nix::libc::{EINVAL, EOPNOTSUPP, EPROTONOSUPPORT};

use super::conflict::port_of;
use super::pod_ips;
use crate::attachment::{PortMapping, Protocol};
use crate::conntrack::{self, Flow};
use crate::firewall::Element;
use crate::netlink::Netlink;
use crate::result::{CniResult, PluginError, code};

/// Packets to the host's own addresses that began to go elsewhere go to the pod from now on.
pub(super) fn forget_flows_to_others(
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
pub(super) fn forget_flows_of(elements: &[Element]) -> Result<(), PluginError> {
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

/// A kernel that can't be asked for its flows (no `nf_conntrack_netlink`) keeps them until they end of themselves.
fn forget(ports: &HashSet<u16>, stale: impl Fn(&Flow) -> bool) -> Result<(), PluginError> {
    match conntrack::forget_udp(ports, stale) {
        Err(e) if matches!(e.raw_os_error(), Some(EINVAL | EOPNOTSUPP | EPROTONOSUPPORT)) => Ok(()),
        Err(e) => Err(PluginError::new(
            code::KERNEL,
            format!("can't forget the UDP flows of a host port: {e}"),
        )),
        Ok(()) => Ok(()),
    }
}
