//! What the caller says about a node's network.

use std::path::PathBuf;
use std::time::Duration;

use crate::default_network::DefaultNetwork;

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
            default_network: Some(DefaultNetwork::for_state_dir(&state_dir)),
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
