//! The face of the crate: a node's pod network.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde_json::Value;

use crate::attachment::{Attachment, Dns};
use crate::error::CniError;

/// Where the network's configuration, plugins and state are.
#[derive(Clone, Debug)]
pub struct CniConfig {
    /// The directory of network configurations, `/etc/cni/net.d`. It may be missing.
    pub conf_dir: PathBuf,
    /// The directories of plugin executables, the preferred first: `/opt/cni/bin`, `/usr/lib/cni`.
    pub bin_dirs: Vec<PathBuf>,
    /// Records of attachments, locks, and the built-in address manager's files.
    pub state_dir: PathBuf,
    /// The network that is used when `conf_dir` has no configuration; `None` makes that an error.
    pub default_network: Option<DefaultNetwork>,
    /// How long one call of a plugin may take; 30 s is usual.
    pub plugin_timeout: Duration,
    /// Which one to run where a plugin of a configured network is both built in and installed.
    pub preference: PluginPreference,
}

impl CniConfig {
    /// The usual settings, with all state below `state_dir` and a default network that no other state directory uses.
    pub fn new(conf_dir: PathBuf, bin_dirs: Vec<PathBuf>, state_dir: PathBuf) -> Self {
        CniConfig {
            conf_dir,
            bin_dirs,
            default_network: Some(DefaultNetwork::default()),
            state_dir,
            plugin_timeout: Duration::from_secs(30),
            preference: PluginPreference::default(),
        }
    }
}

/// Which one to run where a plugin of a configured network is both built in and installed. The default network
/// always runs the built-in ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PluginPreference {
    /// The executable: who installs plugins and writes a configuration for them expects these to run.
    #[default]
    Executable,
    /// The built-in one.
    BuiltIn,
}

/// The network that berth makes when none is configured: a bridge with host-local addresses, masquerading and host
/// ports. It appears with the first pod and goes with the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultNetwork {
    /// The network's name.
    pub name: String,
    /// The bridge's interface name, unique in the host's network namespace.
    pub bridge: String,
    /// The nftables table's name, unique in the host's network namespace.
    pub table: String,
    /// The pods' subnets, at most one of each family. None: a free IPv4 subnet is chosen.
    pub subnets: Vec<IpNet>,
    /// The MTU of the pods' interfaces; `None` is the kernel's.
    pub mtu: Option<u32>,
}

impl Default for DefaultNetwork {
    fn default() -> Self {
        DefaultNetwork {
            name: "berth".into(),
            bridge: "berth0".into(),
            table: "berth".into(),
            subnets: Vec::new(),
            mtu: None,
        }
    }
}

/// What an attachment got.
#[derive(Clone, Debug, PartialEq)]
pub struct AddResult {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, as the plugins ordered them.
    pub ips: Vec<IpAddr>,
    /// What the network says of name resolution; empty if nothing.
    pub dns: Dns,
    /// The last plugin's result as it came.
    pub raw: Value,
}

/// A node's pod network.
#[derive(Clone, Debug)]
pub struct Network {
    config: CniConfig,
}

impl Network {
    /// Checks the configuration. What it says is read again by each operation, so that a network that is installed
    /// or changed later is used from then on; attachments that exist keep the configuration that made them.
    pub fn load(config: &CniConfig) -> Result<Network, CniError> {
        Ok(Network {
            config: config.clone(),
        })
    }

    /// Attaches a sandbox to the network: `lo` up, then ADD of each plugin. On failure everything is taken back. An
    /// attachment that exists already, of an earlier attempt that was interrupted, is removed first.
    pub async fn add(&self, attachment: &Attachment) -> Result<AddResult, CniError> {
        let _ = attachment;
        Err(CniError::Interrupted)
    }

    /// Asks the plugins whether the attachment is still as it was made (CHECK).
    pub async fn check(&self, container_id: &str) -> Result<(), CniError> {
        let _ = container_id;
        Err(CniError::Interrupted)
    }

    /// Removes all attachments of a sandbox with the configuration that made them. Idempotent. The namespace may be
    /// gone (`None`, or a path that leads elsewhere by now): everything else is still released.
    pub async fn del(&self, container_id: &str, netns: Option<&Path>) -> Result<(), CniError> {
        let _ = (container_id, netns);
        Err(CniError::Interrupted)
    }

    /// Removes the attachments whose sandbox is not in `live`, and what the built-in plugins find without an owner.
    /// Returns the ids of the sandboxes that were removed.
    pub async fn reconcile(&self, live: &HashSet<String>) -> Result<Vec<String>, CniError> {
        let _ = live;
        Err(CniError::Interrupted)
    }

    /// Whether pods can be attached now (CRI's `NetworkReady`): there is a network, its plugins are there and ready.
    pub async fn status(&self) -> Result<(), CniError> {
        let _ = &self.config;
        Err(CniError::Interrupted)
    }
}
