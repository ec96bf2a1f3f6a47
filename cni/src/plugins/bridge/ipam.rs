//! The address manager that the bridge delegates to: a plugin of its own, with the same configuration.

use serde_json::Value;

use super::Conf;
use crate::plugins::Context;
use crate::result::{CniResult, PluginError, code, parse_result};
use crate::site::{Call, Runner, Verb};

/// Addresses and routes; none if the network has no address manager.
pub(super) fn add(context: &Context<'_>, conf: &Conf) -> Result<CniResult, PluginError> {
    let Some(kind) = kind(conf)? else {
        return Ok(CniResult::default());
    };
    let printed = call(context, kind, Verb::Add)?;
    let bad = |problem: String| {
        PluginError::new(
            code::DECODING_FAILURE,
            format!("the plugin {kind:?} gave no valid answer: {problem}"),
        )
    };
    let (_, result) = parse_result(&printed)
        .map_err(bad)?
        .ok_or_else(|| bad("it printed nothing".into()))?;
    match result.ips.is_empty() {
        true => Err(bad("it gave no address".into())),
        false => Ok(result),
    }
}

pub(super) fn del(context: &Context<'_>, conf: &Conf) -> Result<(), PluginError> {
    delegate(context, conf, Verb::Del)
}

pub(super) fn check(context: &Context<'_>, conf: &Conf) -> Result<(), PluginError> {
    delegate(context, conf, Verb::Check)
}

pub(super) fn gc(context: &Context<'_>, conf: &Conf) -> Result<(), PluginError> {
    delegate_if_understood(context, conf, Verb::Gc)
}

pub(super) fn status(context: &Context<'_>, conf: &Conf) -> Result<(), PluginError> {
    delegate_if_understood(context, conf, Verb::Status)
}

/// Executables know these verbs only from 1.1.0 on.
fn delegate_if_understood(context: &Context<'_>, conf: &Conf, verb: Verb) -> Result<(), PluginError> {
    let Some(kind) = kind(conf)? else { return Ok(()) };
    match find(context, kind)? {
        Runner::Executable(_) if !context.version.has_status_and_gc() => Ok(()),
        _ => delegate(context, conf, verb),
    }
}

fn delegate(context: &Context<'_>, conf: &Conf, verb: Verb) -> Result<(), PluginError> {
    match kind(conf)? {
        Some(kind) => call(context, kind, verb).map(drop),
        None => Ok(()),
    }
}

fn call(context: &Context<'_>, kind: &str, verb: Verb) -> Result<Vec<u8>, PluginError> {
    let runner = find(context, kind)?;
    let call = Call {
        verb,
        ..context.call.clone()
    };
    runner
        .call(context.site, &call, context.conf)
        .map_err(|e| e.into_plugin_error(kind))
}

/// Berth's own address manager is never worse than a program of that name: the files are the same.
fn find(context: &Context<'_>, kind: &str) -> Result<Runner, PluginError> {
    let found = context
        .site
        .built_in(kind)
        .or_else(|| context.site.executable(kind));
    found.ok_or_else(|| {
        PluginError::config(
            "ipam.type",
            format!("the plugin {kind:?} is not built in, and no executable of that name is in the plugin directories"),
        )
    })
}

fn kind(conf: &Conf) -> Result<Option<&str>, PluginError> {
    let Some(ipam) = &conf.ipam else { return Ok(None) };
    match ipam.get("type") {
        None => Ok(None),
        Some(Value::String(kind)) if kind.is_empty() => Ok(None),
        Some(Value::String(kind)) if crate::conf::is_file_name(kind) => Ok(Some(kind)),
        Some(_) => Err(PluginError::config("ipam.type", "must be a plugin's file name")),
    }
}
