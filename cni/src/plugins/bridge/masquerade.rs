//! Pods that leave the node under the node's address.

use super::Conf;
use crate::firewall::{self, Element, MASQUERADE_SETS};
use crate::plugins::Context;
use crate::result::{CniResult, PluginError, code};

pub(super) fn masquerade(context: &Context<'_>, result: &CniResult) -> Vec<Element> {
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

/// Forgets one attachment.
pub(super) fn forget_masquerade_of(context: &Context<'_>, conf: &Conf, tag: &str) -> Result<(), PluginError> {
    forget(conf, || context.firewall().remove_of(&MASQUERADE_SETS, tag))
}

/// Forgets the attachments whose tags `of` picks.
pub(super) fn forget_masquerade(
    context: &Context<'_>,
    conf: &Conf,
    of: impl Fn(&str) -> bool,
) -> Result<(), PluginError> {
    forget(conf, || context.firewall().remove(&MASQUERADE_SETS, of))
}

fn forget(
    conf: &Conf,
    remove: impl FnOnce() -> Result<Vec<Element>, PluginError>,
) -> Result<(), PluginError> {
    if !conf.ip_masq {
        return Ok(());
    }
    match remove() {
        // Without nft nothing can have been added.
        Err(e) if e.code == code::MISSING_PROGRAM => Ok(()),
        result => result.map(drop),
    }
}
