//! The configuration of `bridge`.

use serde::Deserialize;
use serde_json::Value;

use crate::attachment::{Dns, check_ifname};
use crate::plugins::{Context, read_conf};
use crate::result::PluginError;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Conf {
    #[serde(default = "default_bridge")]
    pub(super) bridge: String,
    #[serde(default)]
    pub(super) is_gateway: bool,
    #[serde(default)]
    pub(super) is_default_gateway: bool,
    #[serde(default)]
    pub(super) force_address: bool,
    #[serde(default)]
    pub(super) ip_masq: bool,
    #[serde(default)]
    pub(super) ip_masq_backend: Option<String>,
    #[serde(default)]
    pub(super) mtu: Option<u32>,
    #[serde(default)]
    pub(super) hairpin_mode: bool,
    #[serde(default)]
    pub(super) promisc_mode: bool,
    #[serde(default)]
    pub(super) vlan: Option<u16>,
    #[serde(default)]
    pub(super) vlan_trunk: Option<Value>,
    #[serde(default)]
    pub(super) macspoofchk: bool,
    #[serde(default)]
    pub(super) port_isolation: bool,
    #[serde(default)]
    pub(super) disable_container_interface: bool,
    #[serde(default)]
    pub(super) enabledad: bool,
    #[serde(default)]
    pub(super) ipam: Option<Value>,
    #[serde(default)]
    pub(super) dns: Dns,
    #[serde(default)]
    pub(super) runtime_config: RuntimeConfig,
    #[serde(default)]
    pub(super) args: Args,
}

#[derive(Default, Deserialize)]
pub(super) struct RuntimeConfig {
    #[serde(default)]
    pub(super) mac: Option<String>,
}

#[derive(Default, Deserialize)]
pub(super) struct Args {
    #[serde(default)]
    pub(super) cni: RuntimeConfig,
}

fn default_bridge() -> String {
    "cni0".into()
}

/// Reads the configuration and refuses what this plugin can't do.
pub(super) fn parse(context: &Context<'_>) -> Result<Conf, PluginError> {
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
    check_ifname(&conf.bridge).map_err(|e| PluginError::config("bridge", e))?;
    // Upstream writes an unset MTU as 0.
    conf.mtu = conf.mtu.filter(|mtu| *mtu != 0);
    conf.is_gateway |= conf.is_default_gateway;
    Ok(conf)
}
