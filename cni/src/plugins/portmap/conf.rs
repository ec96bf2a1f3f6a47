//! The configuration of `portmap`.

use serde::Deserialize;
use serde_json::Value;

use crate::attachment::{PortMapping, Protocol};
use crate::plugins::{Context, read_conf};
use crate::result::PluginError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conf {
    #[serde(default)]
    pub(super) runtime_config: RuntimeConfig,
    /// Rewrite the source of connections that would else come back around the host. On unless switched off.
    #[serde(default)]
    pub(super) snat: Option<bool>,
    #[serde(default)]
    pub(super) backend: Option<String>,
    #[serde(default, rename = "conditionsV4")]
    pub(super) conditions_v4: Option<Value>,
    #[serde(default, rename = "conditionsV6")]
    pub(super) conditions_v6: Option<Value>,
    #[serde(default)]
    pub(super) mark_masq_bit: Option<Value>,
    #[serde(default)]
    pub(super) external_set_mark_chain: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Option<Vec<Mapping>>,
}

/// As runtimes write it: an empty `hostIP` is every address, a missing protocol is TCP.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mapping {
    host_port: u16,
    container_port: u16,
    #[serde(default)]
    protocol: Option<Protocol>,
    #[serde(default, rename = "hostIP")]
    host_ip: Option<String>,
}

pub(super) fn parse(context: &Context<'_>) -> Result<Conf, PluginError> {
    let conf: Conf = read_conf(context.conf)?;
    let unsupported = [
        ("conditionsV4", &conf.conditions_v4),
        ("conditionsV6", &conf.conditions_v6),
        ("markMasqBit", &conf.mark_masq_bit),
        ("externalSetMarkChain", &conf.external_set_mark_chain),
    ];
    if let Some((field, _)) = unsupported.iter().find(|(_, value)| value.is_some()) {
        return Err(PluginError::config(
            field,
            "is not supported by the built-in portmap; install upstream's plugin",
        ));
    }
    match conf.backend.as_deref() {
        None | Some("" | "nftables") => Ok(conf),
        Some(other) => Err(PluginError::config(
            "backend",
            format!(
                "must be \"nftables\" for the built-in portmap, but is {other:?}; install upstream's plugin"
            ),
        )),
    }
}

pub(super) fn mappings(conf: &Conf) -> Result<Vec<PortMapping>, PluginError> {
    let mappings = conf.runtime_config.port_mappings.iter().flatten().enumerate();
    mappings
        .map(|(i, m)| {
            let wrong =
                |problem: String| PluginError::config(&format!("runtimeConfig.portMappings[{i}]"), problem);
            if m.host_port == 0 || m.container_port == 0 {
                return Err(wrong("ports are from 1 to 65535".into()));
            }
            let host_ip = match m.host_ip.as_deref() {
                None | Some("") => None,
                Some(text) => Some(
                    text.parse()
                        .map_err(|_| wrong(format!("hostIP {text:?} is no address")))?,
                ),
            };
            let protocol = m.protocol.unwrap_or(Protocol::Tcp);
            Ok(PortMapping {
                host_port: m.host_port,
                container_port: m.container_port,
                protocol,
                host_ip,
            })
        })
        .collect()
}
