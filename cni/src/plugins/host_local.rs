//! `host-local`: hands out addresses of this node's ranges. Configuration and files are upstream's, so that either
//! can take over from the other.

mod range;
mod store;

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Context, read_conf};
use crate::attachment::Dns;
use crate::result::{CniResult, IpConfig, PluginError, Route, code};
use range::{RangeConf, RangeSet};
use store::Store;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    ipam: Ipam,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    args: Args,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ipam {
    #[serde(flatten)]
    single: RangeConf,
    #[serde(default)]
    ranges: Vec<Vec<RangeConf>>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    resolv_conf: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    ip_ranges: Vec<Vec<RangeConf>>,
    #[serde(default)]
    ips: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Args {
    #[serde(default)]
    cni: CniArgs,
}

#[derive(Default, Deserialize)]
struct CniArgs {
    #[serde(default)]
    ips: Vec<String>,
}

/// Reserves one address of each set of ranges.
pub(super) fn add(context: &Context<'_>) -> Result<CniResult, PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let sets = range_sets(&conf)?;
    let mut wanted = wanted(context, &conf)?;
    let store = open(context, &conf)?.lock(true)?;
    let mut result = CniResult {
        routes: conf.ipam.routes,
        ..CniResult::default()
    };
    for (index, set) in sets.iter().enumerate() {
        let ask = wanted
            .iter()
            .position(|ip| set.find(*ip).is_some())
            .map(|i| wanted.swap_remove(i));
        let reserved = reserve(context, &store, index, set, ask);
        result
            .ips
            .push(reserved.inspect_err(|_| drop(store.release(owner(context))))?);
    }
    if let Some(ip) = wanted.first() {
        store.release(owner(context))?;
        return Err(PluginError::new(
            code::NO_ADDRESS,
            format!(
                "the address {ip} that was asked for is in no range of network {:?}",
                context.common.name
            ),
        ));
    }
    if let Some(path) = conf.ipam.resolv_conf {
        result.dns = resolv_conf(&path)?;
    }
    Ok(result)
}

/// Releases the container's addresses. None to release is fine.
pub(super) fn del(context: &Context<'_>) -> Result<(), PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let store = open(context, &conf)?;
    match store.exists() {
        true => store.lock(false)?.release(owner(context)),
        false => Ok(()),
    }
}

/// The container still has addresses.
pub(super) fn check(context: &Context<'_>) -> Result<(), PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let store = open(context, &conf)?.lock(true)?;
    let mine = store.of(owner(context))?;
    let mine: Vec<IpAddr> = mine.iter().map(|entry| entry.ip).collect();
    let lost = range_sets(&conf)?
        .iter()
        .any(|set| !mine.iter().any(|ip| set.find(*ip).is_some()));
    match lost {
        false => Ok(()),
        true => Err(PluginError::new(
            code::CHECK_FAILED,
            format!(
                "container {} has lost its address of network {:?}",
                context.call.container_id, context.common.name
            ),
        )),
    }
}

/// Releases all addresses but the valid attachments'.
pub(super) fn gc(context: &Context<'_>) -> Result<(), PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let valid = context.valid_attachments()?;
    let store = open(context, &conf)?;
    match store.exists() {
        true => store
            .lock(false)?
            .retain(|entry| valid.iter().any(|owner| entry.belongs_to(*owner))),
        false => Ok(()),
    }
}

/// Whether the ranges make sense.
pub(super) fn status(context: &Context<'_>) -> Result<(), PluginError> {
    range_sets(&read_conf(context.conf)?).map(drop)
}

fn reserve(
    context: &Context<'_>,
    store: &store::LockedStore,
    index: usize,
    set: &RangeSet,
    wanted: Option<IpAddr>,
) -> Result<IpConfig, PluginError> {
    let mine = match store.known(owner(context))? {
        Some(known) => known,
        None => store.of(owner(context))?,
    };
    if let Some(entry) = mine.iter().find(|e| set.find(e.ip).is_some()) {
        return Err(PluginError::new(
            code::NO_ADDRESS,
            format!(
                "container {} has the address {} already",
                context.call.container_id, entry.ip
            ),
        ));
    }
    let used = |ip| store.is_taken(ip);
    let ip = match wanted {
        Some(ip) => set.take(ip, used)?,
        None => set.next_free(store.last_reserved(index), used).ok_or_else(|| {
            PluginError::new(
                code::NO_ADDRESS,
                format!(
                    "network {:?} has no free address left in {set}",
                    context.common.name
                ),
            )
        })?,
    };
    store.reserve(ip, index, owner(context))?;
    let range = set
        .find(ip)
        .ok_or_else(|| PluginError::new(code::NO_ADDRESS, format!("{ip} is in no range")))?;
    Ok(IpConfig {
        interface: None,
        address: range.with_prefix(ip)?,
        gateway: range.gateway,
    })
}

fn range_sets(conf: &Conf) -> Result<Vec<RangeSet>, PluginError> {
    let mut sets = Vec::new();
    if conf.ipam.single.subnet.is_some() {
        sets.push(RangeSet::new(std::slice::from_ref(&conf.ipam.single), "ipam")?);
    }
    for (i, ranges) in conf.runtime_config.ip_ranges.iter().enumerate() {
        sets.push(RangeSet::new(ranges, &format!("runtimeConfig.ipRanges[{i}]"))?);
    }
    for (i, ranges) in conf.ipam.ranges.iter().enumerate() {
        sets.push(RangeSet::new(ranges, &format!("ipam.ranges[{i}]"))?);
    }
    if sets.is_empty() {
        return Err(PluginError::config(
            "ipam.ranges",
            "must name at least one range, or ipam.subnet must",
        ));
    }
    for (i, a) in sets.iter().enumerate() {
        if let Some(b) = sets[i + 1..].iter().find(|b| a.overlaps(b)) {
            return Err(PluginError::config("ipam.ranges", format!("{a} overlaps {b}")));
        }
    }
    Ok(sets)
}

/// The addresses that were asked for, by whichever way.
fn wanted(context: &Context<'_>, conf: &Conf) -> Result<Vec<IpAddr>, PluginError> {
    let args = context.call.arg("IP").into_iter().flat_map(|ips| ips.split(','));
    let all = args
        .map(|ip| ("CNI_ARGS", ip))
        .chain(conf.args.cni.ips.iter().map(|ip| ("args.cni.ips", ip.as_str())))
        .chain(
            conf.runtime_config
                .ips
                .iter()
                .map(|ip| ("runtimeConfig.ips", ip.as_str())),
        );
    all.filter(|(_, ip)| !ip.is_empty())
        .map(|(field, ip)| {
            let bare = ip.split_once('/').map_or(ip, |(bare, _)| bare);
            bare.parse()
                .map_err(|_| PluginError::config(field, format!("{ip:?} is no address")))
        })
        .collect()
}

fn owner<'a>(context: &'a Context<'_>) -> (&'a str, &'a str) {
    (&context.call.container_id, &context.call.ifname)
}

fn open(context: &Context<'_>, conf: &Conf) -> Result<Store, PluginError> {
    if context.common.name.is_empty() || context.common.name.contains('/') {
        return Err(PluginError::config(
            "name",
            format!("{:?} can't be a directory", context.common.name),
        ));
    }
    let data_dir = conf
        .ipam
        .data_dir
        .clone()
        .unwrap_or_else(|| context.site.state_dir.join("networks"));
    Ok(Store::new(data_dir.join(&context.common.name)))
}

fn resolv_conf(path: &PathBuf) -> Result<Dns, PluginError> {
    let text = fs::read_to_string(path)
        .map_err(|e| PluginError::config("ipam.resolvConf", format!("can't read {}: {e}", path.display())))?;
    let mut dns = Dns::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        match words.next().as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next(),
            Some("search") => dns.search = words.collect(),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    Ok(dns)
}
