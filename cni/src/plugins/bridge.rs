//! `bridge`: a veth pair between the sandbox and a bridge of the host, with addresses of an address manager.

mod device;
mod ipam;
mod sandbox;

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::{Context, loopback, read_conf};
use crate::attachment::Dns;
use crate::firewall::{self, Element, MASQUERADE_SETS};
use crate::lock::Lock;
use crate::netlink::{Link, Netlink, Veth, parse_mac, show_mac};
use crate::netns::NetNs;
use crate::result::{CniResult, Interface, IpConfig, PluginError, Route, code};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    #[serde(default = "default_bridge")]
    bridge: String,
    #[serde(default)]
    is_gateway: bool,
    #[serde(default)]
    is_default_gateway: bool,
    #[serde(default)]
    force_address: bool,
    #[serde(default)]
    ip_masq: bool,
    #[serde(default)]
    ip_masq_backend: Option<String>,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    hairpin_mode: bool,
    #[serde(default)]
    promisc_mode: bool,
    #[serde(default)]
    vlan: Option<u16>,
    #[serde(default)]
    vlan_trunk: Option<Value>,
    #[serde(default)]
    macspoofchk: bool,
    #[serde(default)]
    port_isolation: bool,
    #[serde(default)]
    disable_container_interface: bool,
    #[serde(default)]
    enabledad: bool,
    #[serde(default)]
    ipam: Option<Value>,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
struct RuntimeConfig {
    #[serde(default)]
    mac: Option<String>,
}

#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: RuntimeConfig,
}

fn default_bridge() -> String {
    "cni0".into()
}

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
    let inner = sandbox::configure(context, &sandbox, &result)?;
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
    {
        let _lock = context.lock(Lock::exclusive)?;
        let netlink = Netlink::open()?;
        if let Some(port) = netlink.link(&port_name(context))? {
            netlink.delete_link(&port)?;
        }
        let mine = firewall::tag(
            &context.common.name,
            &context.call.container_id,
            &context.call.ifname,
        );
        forget_masquerade(context, &conf, |tag| tag == mine)?;
        device::remove_if_unused(&netlink, context, &conf)?;
    }
    // The address is free for others only when nothing uses it any more.
    ipam::del(context, &conf)
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

/// Reads the configuration and refuses what this plugin can't do.
fn parse(context: &Context<'_>) -> Result<Conf, PluginError> {
    let mut conf: Conf = read_conf(context.conf)?;
    let unsupported = [
        ("vlan", conf.vlan.is_some_and(|vlan| vlan != 0)),
        ("vlanTrunk", conf.vlan_trunk.is_some()),
        ("macspoofchk", conf.macspoofchk),
        ("portIsolation", conf.port_isolation),
        ("disableContainerInterface", conf.disable_container_interface),
        ("enabledad", conf.enabledad),
    ];
    if let Some((field, _)) = unsupported.iter().find(|(_, on)| *on) {
        return Err(PluginError::config(
            field,
            "is not supported by the built-in bridge; install upstream's plugin",
        ));
    }
    if conf.hairpin_mode && conf.promisc_mode {
        return Err(PluginError::config(
            "promiscMode",
            "can't be on together with hairpinMode",
        ));
    }
    if let Some(other) = conf
        .ip_masq_backend
        .as_deref()
        .filter(|b| !matches!(*b, "" | "nftables"))
    {
        return Err(PluginError::config(
            "ipMasqBackend",
            format!(
                "must be \"nftables\" for the built-in bridge, but is {other:?}; install upstream's plugin"
            ),
        ));
    }
    crate::attachment::check_ifname(&conf.bridge).map_err(|e| PluginError::config("bridge", e))?;
    // Upstream writes an unset MTU as 0.
    conf.mtu = conf.mtu.filter(|mtu| *mtu != 0);
    conf.is_gateway |= conf.is_default_gateway;
    Ok(conf)
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

/// The sandbox's MAC address: the one that was asked for, or one that follows from its IPv4 address, so that what
/// neighbours remember of an address stays true when its next owner comes.
fn mac(context: &Context<'_>, conf: &Conf, result: &CniResult) -> Result<Option<[u8; 6]>, PluginError> {
    let asked = [
        ("runtimeConfig.mac", conf.runtime_config.mac.as_deref()),
        ("args.cni.mac", conf.args.cni.mac.as_deref()),
        ("CNI_ARGS MAC", context.call.arg("MAC")),
    ];
    if let Some((field, text)) = asked
        .into_iter()
        .find_map(|(f, text)| Some((f, text.filter(|t| !t.is_empty())?)))
    {
        let mac = parse_mac(text).filter(|mac| mac[0] & 1 == 0);
        return mac
            .map(Some)
            .ok_or_else(|| PluginError::config(field, format!("{text:?} is no unicast MAC address")));
    }
    let first = result
        .ips
        .iter()
        .map(|ip| ip.address.addr())
        .find(IpAddr::is_ipv4);
    Ok(first.map(|ip| mac_from(&format!("{}/{ip}", conf.bridge))))
}

/// A locally administered address that follows from a text.
fn mac_from(text: &str) -> [u8; 6] {
    let hash = firewall::short_hash(text, 5);
    let bytes = (0..5).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap_or_default());
    let mut mac = [0x0a, 0, 0, 0, 0, 0];
    mac.iter_mut()
        .skip(1)
        .zip(bytes)
        .for_each(|(place, byte)| *place = byte);
    mac
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
    Ok(port)
}

fn masquerade(context: &Context<'_>, result: &CniResult) -> Vec<Element> {
    let tag = firewall::tag(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    );
    let ips = result.ips.iter().map(|ip| ip.address);
    ips.flat_map(|net| {
        let (pods, local) = if net.addr().is_ipv4() {
            ("masq4", "local4")
        } else {
            ("masq6", "local6")
        };
        let pod = net.addr().to_string();
        [
            Element::new(local, format!("{pod} . {}", net.trunc()), &tag),
            Element::new(pods, pod, &tag),
        ]
    })
    .collect()
}

fn forget_masquerade(
    context: &Context<'_>,
    conf: &Conf,
    of: impl Fn(&str) -> bool,
) -> Result<(), PluginError> {
    if !conf.ip_masq {
        return Ok(());
    }
    match context.firewall().remove(&MASQUERADE_SETS, of) {
        // Without nft nothing can have been added.
        Err(e) if e.code == code::MISSING_PROGRAM => Ok(()),
        result => result.map(drop),
    }
}

fn port_name(context: &Context<'_>) -> String {
    name_for(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    )
}

/// The host's end of the pair is found again by its name alone.
fn name_for(network: &str, container_id: &str, ifname: &str) -> String {
    let hash = firewall::short_hash(&format!("{network}/{container_id}/{ifname}"), 6);
    format!("veth{}", &hash[..11])
}

/// Upstream's names have fewer digits.
fn is_our_name(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|rest| rest.len() == 11 && rest.chars().all(|c| c.is_ascii_hexdigit()))
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

fn bridge_mac(name: &str) -> ([u8; 6], String) {
    let mac = mac_from(name);
    (mac, show_mac(&mac))
}
