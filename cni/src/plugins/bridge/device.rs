//! The bridge itself, and the host's addresses on it.

use ipnet::IpNet;

use super::Conf;
use super::identity::bridge_mac;
use super::ports;
use crate::netlink::{Link, Netlink};
use crate::plugins::Context;
use crate::result::{CniResult, PluginError, code};
use crate::sysctl;

/// Makes the bridge, or takes the one that is there, and gives it the gateway's addresses.
pub(super) fn ensure(
    netlink: &Netlink,
    context: &Context<'_>,
    conf: &Conf,
    result: &CniResult,
) -> Result<Link, PluginError> {
    let bridge = match netlink.link(&conf.bridge)? {
        Some(bridge) => bridge,
        None => {
            // A MAC address of its own: else it would change with the ports, and break what neighbours remember.
            netlink.add_bridge(&conf.bridge, bridge_mac(&conf.bridge), conf.mtu)?;
            let made = netlink.link(&conf.bridge)?;
            made.ok_or_else(|| {
                PluginError::new(code::KERNEL, format!("the bridge {} vanished", conf.bridge))
            })?
        }
    };
    if !bridge.is_bridge {
        return Err(PluginError::config(
            "bridge",
            format!(
                "the interface {} exists and is no bridge; choose another name or remove it",
                conf.bridge
            ),
        ));
    }
    claim(netlink, context, &bridge)?;
    if !bridge.up {
        netlink.set_up(&bridge)?;
    }
    if conf.promisc_mode {
        netlink.set_promiscuous(&bridge)?;
    }
    if conf.is_gateway {
        become_gateway(netlink, conf, &bridge, result)?;
    }
    Ok(bridge)
}

/// Removes the bridge if it is to go with its last port and has none.
pub(super) fn remove_if_unused(
    netlink: &Netlink,
    context: &Context<'_>,
    conf: &Conf,
) -> Result<(), PluginError> {
    if !context.common.berth.ephemeral || ports::any(context, conf) {
        return Ok(());
    }
    let Some(bridge) = netlink.link(&conf.bridge)?.filter(|link| link.is_bridge) else {
        return Ok(());
    };
    if is_foreign(context, &bridge) || netlink.has_ports(&bridge)? {
        return Ok(());
    }
    netlink.delete_link(&bridge)
}

/// Two nodes on one machine that hand out the same addresses on the same bridge would both break, and neither would
/// know why. The owner is written on the bridge, in its alias.
fn claim(netlink: &Netlink, context: &Context<'_>, bridge: &Link) -> Result<(), PluginError> {
    match &context.common.berth.owner {
        Some(_) if is_foreign(context, bridge) => Err(PluginError::config(
            "bridge",
            format!(
                "the bridge {} belongs to another node of this machine ({}); give this one another name",
                bridge.name, bridge.alias
            ),
        )),
        Some(owner) if bridge.alias.is_empty() => netlink.set_alias(bridge, owner),
        _ => Ok(()),
    }
}

fn is_foreign(context: &Context<'_>, bridge: &Link) -> bool {
    let owner = context.common.berth.owner.as_deref();
    owner.is_some_and(|owner| !bridge.alias.is_empty() && bridge.alias != owner)
}

fn become_gateway(
    netlink: &Netlink,
    conf: &Conf,
    bridge: &Link,
    result: &CniResult,
) -> Result<(), PluginError> {
    let present = netlink.addresses(bridge)?;
    for ip in &result.ips {
        let Some(gateway) = ip.gateway else { continue };
        let address = IpNet::new(gateway, ip.address.prefix_len())
            .map_err(|e| PluginError::config("ipam.gateway", e))?;
        if !present.contains(&address) {
            replace(netlink, conf, bridge, address, &present)?;
            netlink.add_address(bridge, address)?;
        }
        match address {
            IpNet::V4(_) => sysctl::set("ipv4/ip_forward", "1")?,
            IpNet::V6(_) => sysctl::forward_ipv6()?,
        }
    }
    Ok(())
}

/// A bridge has one IPv4 network, and IPv6 networks that don't overlap. What is there already makes way only when
/// the configuration says so.
fn replace(
    netlink: &Netlink,
    conf: &Conf,
    bridge: &Link,
    wanted: IpNet,
    present: &[IpNet],
) -> Result<(), PluginError> {
    let overlaps = |other: &&IpNet| match (wanted, other) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(a), IpNet::V6(b)) => a.contains(&b.network()) || b.contains(&a.network()),
        _ => false,
    };
    for other in present.iter().filter(overlaps) {
        if !conf.force_address {
            return Err(PluginError::config(
                "bridge",
                format!(
                    "{} has the address {other} already and can't get {wanted}; remove it, or set forceAddress",
                    bridge.name
                ),
            ));
        }
        netlink.delete_address(bridge, *other)?;
    }
    Ok(())
}
