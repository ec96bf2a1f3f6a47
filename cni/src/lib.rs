//! CNI runtime and the built-in plugins (CNI specification 1.1).
//!
//! [`Network`] attaches a pod's network namespace to the node's network and takes it away again. Which network that
//! is says a directory of CNI configurations, or berth's own default when the directory has none. Every attachment is
//! recorded on disk before its first effect in the kernel, so that a crash at any instant leaves nothing that
//! [`Network::del`] or [`Network::reconcile`] can't find and remove.
//!
//! A plugin of a configured network is the executable of that name in the plugin directories, or else the built-in
//! one ([`PluginPreference`] turns that round); the default network always runs the built-in ones. The built-in
//! plugins are real ones, and [`plugins::main`] exposes them as executables.

mod advice;
mod attach;
mod attachment;
mod background;
mod chain;
mod conf;
mod conf_dir;
mod config;
mod conntrack;
mod default_network;
mod detach;
mod error;
mod firewall;
mod lock;
mod netlink;
mod netns;
mod network;
mod node;
pub mod plugins;
mod process;
mod record;
mod result;
mod site;
mod sysctl;
mod version;

pub use attachment::{Attachment, Bandwidth, Dns, PortMapping, Protocol};
pub use config::{CniConfig, PluginPreference};
pub use default_network::DefaultNetwork;
pub use error::CniError;
pub use network::{AddResult, Network};

/// Brings up `lo` in the network namespace of the calling thread, as one that was just made has it down.
///
/// # Errors
/// The kernel refuses.
pub fn raise_loopback() -> Result<(), CniError> {
    plugins::loopback::raise().map_err(|error| CniError::Unavailable(error.msg))
}
