//! `bridge`: a veth pair between the sandbox and a bridge of the host, with addresses of an address manager.

mod conf;
mod device;
mod identity;
mod ipam;
mod masquerade;
mod ports;
mod sandbox;

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Context, loopback, read_conf};
use crate::attachment::Dns;
use crate::firewall::{self, Element, MASQUERADE_SETS};
use crate::lock::Lock;
use crate::netlink::{Link, Netlink, Veth, parse_mac};
use crate::netns::NetNs;
use crate::result::{CniResult, Interface, IpConfig, PluginError, Route, code};
use crate::sysctl;
use conf::{Conf, parse};
use identity::{is_our_name, mac, name_for, port_name};
use masquerade::{forget_masquerade, forget_masquerade_of, masquerade};

/// How long the kernel may take to let a port forward; usually it is a matter of milliseconds.
const PATIENCE: Duration = Duration::from_secs(3);

/// Attaches the sandbox. The address comes first: it is the intent that leads to everything after it.
pub(super) fn add(context: &Context<'_>) -> Result<CniResult, PluginError> {
    let conf = parse(context)?;
    let sandbox = open_sandbox(context)?;
    let mut result = ipam::add(context, &conf)?;
    complete(&conf, &mut result);
    let mac = mac(context, &conf, &result)?;
    let (bridge, port) = {
        let _lock = context.lock(Lock::shared)?;
        let netlink = Netlink::open()?;
        let bridge = device::ensure(&netlink, context, &conf, &result)?;
        let port = attach(&netlink, context, &conf, (&bridge, &sandbox, mac))?;
        if conf.ip_masq {
            context.firewall().add(&masquerade(context, &result))?;
        }
        (bridge, port)
    };
    let gateway = parse_mac(&bridge.mac).filter(|_| conf.is_gateway);
    let inner = sandbox::configure(context, &sandbox, &result, gateway)?;
    let netlink = Netlink::open()?;
    netlink.wait_forwarding(&port, PATIENCE)?;
    introduce(&netlink, &conf, &result, (&bridge, &port, &inner));
    for ip in &mut result.ips {
        ip.interface = Some(2);
    }
    let here = |link: Link| Interface {
        name: link.name,
        mac: link.mac,
        mtu: Some(link.mtu),
        sandbox: String::new(),
    };
    let sandbox_path = sandbox.path().display().to_string();
    result.interfaces = vec![
        here(bridge),
        here(port),
        Interface {
            name: inner.name,
            mac: inner.mac,
            mtu: Some(inner.mtu),
            sandbox: sandbox_path,
        },
    ];
    if conf.dns != Dns::default() {
        result.dns = conf.dns;
    }
    Ok(result)
}

/// Detaches the sandbox. Nothing is looked for inside of it: its end goes with the host's, and the namespace may be
/// gone, or be another one by now.
pub(super) fn del(context: &Context<'_>) -> Result<(), PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    if !leave(context, &conf)? {
        let _lock = context.lock(Lock::exclusive)?;
        let netlink = Netlink::open()?;
        if let Some(port) = netlink.link(&port_name(context))? {
            detach(context, &netlink, port)?;
        }
        ports::gone(context, &conf, &port_name(context));
        forget_masquerade_of(context, &conf, &tag(context))?;
        device::remove_if_unused(&netlink, context, &conf)?;
    }
    // The address is free for others only when nothing uses it any more.
    ipam::del(context, &conf)
}

/// Detaches a sandbox that others stay behind, at the same time as others do: nothing that all have in common is to be looked
/// at. Returns whether that could be done.
fn leave(context: &Context<'_>, conf: &Conf) -> Result<bool, PluginError> {
    let name = port_name(context);
    // Who goes last waits for this one, and then finds nothing of it.
    let _lock = context.lock(Lock::shared)?;
    if !ports::gone(context, conf, &name) {
        return Ok(false);
    }
    let netlink = Netlink::open()?;
    if let Some(port) = netlink.link(&name)? {
        detach(context, &netlink, port)?;
    }
    Ok(!conf.ip_masq
        || context
            .firewall()
            .remove_beside_others(&MASQUERADE_SETS, &tag(context)))
}

fn tag(context: &Context<'_>) -> String {
    let call = context.call;
    firewall::tag(&context.common.name, &call.container_id, &call.ifname)
}

/// All that ADD made is there.
pub(super) fn check(context: &Context<'_>) -> Result<(), PluginError> {
    let conf = parse(context)?;
    let result = context.prev_result()?;
    let failed = |what: String| Err(PluginError::new(code::CHECK_FAILED, what));
    let netlink = Netlink::open()?;
    let Some(bridge) = netlink
        .link(&conf.bridge)?
        .filter(|link| link.is_bridge && link.up)
    else {
        return failed(format!("the bridge {} is missing or down", conf.bridge));
    };
    let name = port_name(context);
    if !netlink
        .link(&name)?
        .is_some_and(|port| port.up && port.master == Some(bridge.index))
    {
        return failed(format!(
            "the interface {name} is missing, down or no port of {}",
            conf.bridge
        ));
    }
    if conf.ip_masq {
        let present = context.firewall().list()?.unwrap_or_default();
        if let Some(missing) = masquerade(context, &result).iter().find(|e| !present.contains(e)) {
            return failed(format!(
                "the element {} of the set {} is missing",
                missing.key, missing.set
            ));
        }
    }
    sandbox::check(context, &open_sandbox(context)?, &result)?;
    ipam::check(context, &conf)
}

/// What the attachment has in the firewall table.
pub(super) fn firewall(context: &Context<'_>) -> Result<Vec<Element>, PluginError> {
    match parse(context)?.ip_masq {
        true => Ok(masquerade(context, &context.prev_result()?)),
        false => Ok(Vec::new()),
    }
}

/// Removes ports, masquerading and addresses of attachments that are gone.
pub(super) fn gc(context: &Context<'_>) -> Result<(), PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let network = &context.common.name;
    let valid = context.valid_attachments()?;
    let lock = context.lock(Lock::exclusive)?;
    let netlink = Netlink::open()?;
    if let Some(bridge) = netlink.link(&conf.bridge)? {
        let names: Vec<String> = valid
            .iter()
            .map(|(id, ifname)| name_for(network, id, ifname))
            .collect();
        for port in netlink
            .links()?
            .iter()
            .filter(|link| link.master == Some(bridge.index))
        {
            if is_our_name(&port.name) && !names.contains(&port.name) {
                netlink.delete_link(port)?;
                ports::gone(context, &conf, &port.name);
            }
        }
    }
    let tags: Vec<String> = valid
        .iter()
        .map(|(id, ifname)| firewall::tag(network, id, ifname))
        .collect();
    let prefix = firewall::network_prefix(network);
    forget_masquerade(context, &conf, |tag| {
        tag.starts_with(&prefix) && !tags.iter().any(|t| t == tag)
    })?;
    device::remove_if_unused(&netlink, context, &conf)?;
    drop(lock);
    ipam::gc(context, &conf)
}

/// Whether what ADD needs is there.
pub(super) fn status(context: &Context<'_>) -> Result<(), PluginError> {
    let conf = parse(context)?;
    if conf.ip_masq {
        firewall::available().map_err(|e| PluginError {
            code: code::NOT_AVAILABLE,
            ..e
        })?;
    }
    ipam::status(context, &conf)
}

/// Adds what the bridge knows to what the address manager said: gateways and default routes.
fn complete(conf: &Conf, result: &mut CniResult) {
    for ip in &mut result.ips {
        if conf.is_gateway && ip.gateway.is_none() {
            let network = ip.address.network();
            // IPv6 counts the network's own address among the hosts'.
            ip.gateway = ip.address.hosts().find(|host| *host != network);
        }
    }
    let gateway = |v4: bool, ips: &[IpConfig]| {
        ips.iter()
            .find(|ip| ip.address.addr().is_ipv4() == v4)
            .and_then(|ip| ip.gateway)
    };
    if conf.is_default_gateway {
        for gw in [true, false]
            .into_iter()
            .filter_map(|v4| gateway(v4, &result.ips))
        {
            let dst = default_route(gw);
            if !result.routes.iter().any(|route| route.dst == dst) {
                result.routes.push(Route::via(dst, gw));
            }
        }
    }
    for route in result.routes.iter_mut().filter(|route| route.gw.is_none()) {
        route.gw = gateway(route.dst.addr().is_ipv4(), &result.ips);
    }
}

fn default_route(gateway: IpAddr) -> IpNet {
    match gateway {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// What is first sent to a pod would be asked for at, and sent to, all other pods of the bridge; the kernel is told beforehand.
/// Where it takes no advice, it finds out by itself.
fn introduce(
    netlink: &Netlink,
    conf: &Conf,
    result: &CniResult,
    (bridge, port, inner): (&Link, &Link, &Link),
) {
    let Some(mac) = parse_mac(&inner.mac) else { return };
    let _ = netlink.suggest_port(port, &mac);
    if conf.is_gateway {
        for ip in &result.ips {
            let _ = netlink.suggest_neighbour(bridge, ip.address.addr(), &mac);
        }
    }
}

/// Makes the veth pair. One of that name is from an attachment that was interrupted.
fn attach(
    netlink: &Netlink,
    context: &Context<'_>,
    conf: &Conf,
    (bridge, sandbox, mac): (&Link, &NetNs, Option<[u8; 6]>),
) -> Result<Link, PluginError> {
    let name = port_name(context);
    if let Some(stale) = netlink.link(&name)? {
        netlink.delete_link(&stale)?;
    }
    netlink.add_veth(&Veth {
        host_name: &name,
        bridge,
        sandbox,
        sandbox_name: &context.call.ifname,
        sandbox_mac: mac,
        mtu: conf.mtu,
    })?;
    let port = netlink.link(&name)?;
    let port =
        port.ok_or_else(|| PluginError::new(code::KERNEL, format!("the interface {name} vanished")))?;
    if conf.hairpin_mode {
        netlink.set_hairpin(&port)?;
    }
    // A port needs no address, and the kernel's list of routes no entries of each; but it can do with them.
    let _ = sysctl::set_if_present(&format!("ipv6/conf/{name}/disable_ipv6"), "1");
    ports::made(context, conf, &name);
    Ok(port)
}

/// The kernel takes 15 to 25 ms to remove a pair. Where the sandbox goes anyway, and the pair with it at the latest, the pod
/// is only cut off, which takes a fraction of one, and the rest is done when nobody waits for it.
fn detach(context: &Context<'_>, netlink: &Netlink, port: Link) -> Result<(), PluginError> {
    if !context.call.recorded {
        return netlink.delete_link(&port);
    }
    netlink.cut_off(&port)?;
    context.site.background.run(move || {
        // If it fails, the kernel does it when the sandbox ends.
        let _ = Netlink::open().and_then(|netlink| netlink.delete_link(&port));
    });
    Ok(())
}

fn open_sandbox(context: &Context<'_>) -> Result<NetNs, PluginError> {
    let path = context.call.netns.as_deref();
    let path = path.ok_or_else(|| PluginError::new(code::INVALID_ENVIRONMENT, "CNI_NETNS is missing"))?;
    let sandbox = NetNs::open(path).map_err(|e| loopback::unusable(context, &e))?;
    let is_own = || Ok(sandbox.id()? == NetNs::own()?.id()?);
    match is_own().map_err(|e| loopback::unusable(context, &e))? {
        false => Ok(sandbox),
        true => Err(PluginError::new(
            code::INVALID_ENVIRONMENT,
            format!(
                "CNI_NETNS, {}, is the host's own network namespace",
                path.display()
            ),
        )),
    }
}
