//! `loopback`: brings `lo` up in the sandbox.

use std::io;

use super::Context;
use crate::netlink::Netlink;
use crate::netns::NetNs;
use crate::result::{CniResult, Interface, IpConfig, PluginError, code};

/// Brings `lo` up. A previous result is passed on.
pub(super) fn add(context: &Context<'_>) -> Result<CniResult, PluginError> {
    let sandbox = open(context)?;
    let (link, addresses) = sandbox
        .run(|| {
            let netlink = Netlink::open()?;
            let lo = lo(&netlink)?;
            netlink.set_up(&lo)?;
            let addresses = netlink.addresses(&lo)?;
            Ok((lo, addresses))
        })
        .map_err(|e| unusable(context, &e))??;
    if context.common.prev_result.is_some() {
        return context.prev_result();
    }
    let interface = Interface {
        name: link.name,
        mac: link.mac,
        mtu: Some(link.mtu),
        sandbox: sandbox.path().display().to_string(),
    };
    let ips = addresses.into_iter().map(|address| IpConfig {
        interface: Some(0),
        address,
        gateway: None,
    });
    Ok(CniResult {
        interfaces: vec![interface],
        ips: ips.collect(),
        ..CniResult::default()
    })
}

/// Brings up the `lo` of the network namespace that the caller is in.
pub(crate) fn raise() -> Result<(), PluginError> {
    let netlink = Netlink::open()?;
    netlink.set_up(&lo(&netlink)?)
}

/// Nothing: `lo` goes with its namespace, and no other process should lose it before.
pub(super) fn del(_context: &Context<'_>) -> Result<(), PluginError> {
    Ok(())
}

/// `lo` is up.
pub(super) fn check(context: &Context<'_>) -> Result<(), PluginError> {
    let up = open(context)?
        .run(|| Ok(lo(&Netlink::open()?)?.up))
        .map_err(|e| unusable(context, &e))??;
    match up {
        true => Ok(()),
        false => Err(PluginError::new(code::CHECK_FAILED, "the interface lo is down")),
    }
}

/// Nothing outside of a sandbox is ever made.
pub(super) fn gc(_context: &Context<'_>) -> Result<(), PluginError> {
    Ok(())
}

/// Always ready.
pub(super) fn status(_context: &Context<'_>) -> Result<(), PluginError> {
    Ok(())
}

fn open(context: &Context<'_>) -> Result<NetNs, PluginError> {
    let path = context.call.netns.as_deref();
    let path = path.ok_or_else(|| PluginError::new(code::INVALID_ENVIRONMENT, "CNI_NETNS is missing"))?;
    NetNs::open(path).map_err(|e| unusable(context, &e))
}

fn lo(netlink: &Netlink) -> Result<crate::netlink::Link, PluginError> {
    let missing = || PluginError::new(code::KERNEL, "the sandbox has no interface lo");
    netlink.link("lo")?.ok_or_else(missing)
}

/// For all plugins that enter a sandbox.
pub(super) fn unusable(context: &Context<'_>, error: &io::Error) -> PluginError {
    let path = context
        .call
        .netns
        .as_deref()
        .unwrap_or_else(|| "".as_ref())
        .display();
    PluginError::new(
        code::UNKNOWN_CONTAINER,
        format!("the network namespace {path} can't be entered: {error}"),
    )
}
