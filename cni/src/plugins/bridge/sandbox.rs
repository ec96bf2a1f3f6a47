//! The sandbox's end: addresses and routes.

use crate::netlink::{Link, Netlink};
use crate::netns::NetNs;
use crate::plugins::{Context, loopback};
use crate::result::{CniResult, PluginError, code};
use crate::sysctl;

/// Gives the interface its addresses and routes. `gateway` is the gateway's MAC address, where it is the bridge's.
pub(super) fn configure(
    context: &Context<'_>,
    sandbox: &NetNs,
    result: &CniResult,
    gateway: Option<[u8; 6]>,
) -> Result<Link, PluginError> {
    let ifname = &context.call.ifname;
    let inside = || {
        let netlink = Netlink::open()?;
        let link = interface(&netlink, ifname)?;
        if result.ips.iter().any(|ip| ip.address.addr().is_ipv6()) {
            sysctl::set_if_present(&format!("ipv6/conf/{ifname}/disable_ipv6"), "0")?;
        } else {
            // The kernel would give the interface an address that nobody asked for, and tell all other pods of it. Where that
            // can't be changed, it does.
            let _ = netlink.make_up_no_address(&link);
        }
        netlink.set_up(&link)?;
        for ip in &result.ips {
            netlink.add_address(&link, ip.address)?;
        }
        for route in &result.routes {
            netlink.add_route(&link, route)?;
        }
        if let Some(mac) = gateway {
            for ip in result.ips.iter().filter_map(|ip| ip.gateway) {
                // If the kernel takes no advice, it asks all on the wire for it.
                let _ = netlink.suggest_neighbour(&link, ip, &mac);
            }
        }
        Ok(link)
    };
    sandbox.run(inside).map_err(|e| loopback::unusable(context, &e))?
}

/// The interface is up and has all its addresses.
pub(super) fn check(context: &Context<'_>, sandbox: &NetNs, result: &CniResult) -> Result<(), PluginError> {
    let ifname = &context.call.ifname;
    let inside = || {
        let netlink = Netlink::open()?;
        let link = interface(&netlink, ifname)?;
        if !link.up {
            return Err(PluginError::new(
                code::CHECK_FAILED,
                format!("the interface {ifname} is down"),
            ));
        }
        let present = netlink.addresses(&link)?;
        let is_here = |index: Option<i64>| {
            let of = index.and_then(|i| result.interfaces.get(usize::try_from(i).ok()?));
            of.is_none_or(|interface| interface.name == *ifname && !interface.sandbox.is_empty())
        };
        let expected = result.ips.iter().filter(|ip| is_here(ip.interface));
        match expected
            .map(|ip| ip.address)
            .find(|address| !present.contains(address))
        {
            None => Ok(()),
            Some(missing) => Err(PluginError::new(
                code::CHECK_FAILED,
                format!("the interface {ifname} has lost its address {missing}"),
            )),
        }
    };
    sandbox.run(inside).map_err(|e| loopback::unusable(context, &e))?
}

fn interface(netlink: &Netlink, ifname: &str) -> Result<Link, PluginError> {
    let missing = || {
        PluginError::new(
            code::CHECK_FAILED,
            format!("the sandbox has no interface {ifname}"),
        )
    };
    netlink.link(ifname)?.ok_or_else(missing)
}
