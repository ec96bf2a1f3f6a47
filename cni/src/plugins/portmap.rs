//! `portmap`: host ports that lead to the pod.

mod conf;
mod conflict;
mod flows;

use std::net::IpAddr;

use super::Context;
use crate::attachment::PortMapping;
use crate::firewall::{self, Element, Firewall, PORT_SETS};
use crate::lock::Lock;
use crate::netlink::Netlink;
use crate::result::{CniResult, IpConfig, PluginError, code};
use crate::sysctl;
use conf::{Conf, mappings, parse};
use conflict::{refuse_conflicts, refuse_listener};
use flows::{forget_flows_of, forget_flows_to_others};

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
    if context.call.recorded && mappings(&parse(context)?)?.is_empty() {
        return Ok(());
    }
    let mine = firewall::tag(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    );
    remove(context, |firewall| firewall.remove_of(&PORT_SETS, &mine))
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
    let is_gone = |tag: &str| tag.starts_with(&prefix) && !valid.iter().any(|v| v == tag);
    remove(context, |firewall| firewall.remove(&PORT_SETS, is_gone))
}

/// Whether `nft` is there.
pub(super) fn status(context: &Context<'_>) -> Result<(), PluginError> {
    parse(context)?;
    firewall::available().map_err(|e| PluginError {
        code: code::NOT_AVAILABLE,
        ..e
    })
}

fn remove(
    context: &Context<'_>,
    remove: impl FnOnce(&Firewall<'_>) -> Result<Vec<Element>, PluginError>,
) -> Result<(), PluginError> {
    let _lock = context.lock(Lock::exclusive)?;
    match remove(&context.firewall()) {
        // Without nft nothing can have been added.
        Err(e) if e.code == code::MISSING_PROGRAM => Ok(()),
        Err(e) => Err(e),
        Ok(gone) => forget_flows_of(&gone),
    }
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
