//! Names and MAC addresses, which follow from what an interface is for: so it is found again without a record.

use std::net::IpAddr;

use super::Conf;
use crate::firewall::short_hash;
use crate::netlink::parse_mac;
use crate::plugins::Context;
use crate::result::{CniResult, PluginError};

/// The sandbox's MAC address: the one that was asked for, or one that follows from its IPv4 address, so that what
/// neighbours remember of an address stays true when its next owner comes.
pub(super) fn mac(
    context: &Context<'_>,
    conf: &Conf,
    result: &CniResult,
) -> Result<Option<[u8; 6]>, PluginError> {
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
    let hash = short_hash(text, 5);
    let bytes = (0..5).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap_or_default());
    let mut mac = [0x0a, 0, 0, 0, 0, 0];
    mac.iter_mut()
        .skip(1)
        .zip(bytes)
        .for_each(|(place, byte)| *place = byte);
    mac
}

pub(super) fn port_name(context: &Context<'_>) -> String {
    name_for(
        &context.common.name,
        &context.call.container_id,
        &context.call.ifname,
    )
}

/// The host's end of the pair is found again by its name alone.
pub(super) fn name_for(network: &str, container_id: &str, ifname: &str) -> String {
    let hash = short_hash(&format!("{network}/{container_id}/{ifname}"), 6);
    format!("veth{}", &hash[..11])
}

/// Upstream's names have fewer digits.
pub(super) fn is_our_name(name: &str) -> bool {
    name.strip_prefix("veth")
        .is_some_and(|rest| rest.len() == 11 && rest.chars().all(|c| c.is_ascii_hexdigit()))
}

pub(super) fn bridge_mac(name: &str) -> [u8; 6] {
    mac_from(name)
}
