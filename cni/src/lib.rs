//! CNI runtime and the built-in plugins (CNI specification 1.1).
//!
//! [`Network`] attaches a pod's network namespace to the node's network and takes it away again. Which network that
//! is says a directory of CNI configurations, or berth's own default when the directory has none. Every attachment is
//! recorded on disk before its first effect in the kernel, so that a crash at any instant leaves nothing that
//! [`Network::del`] or [`Network::reconcile`] can't find and remove.

mod attachment;
mod error;
mod network;

pub use attachment::{Attachment, Bandwidth, Dns, PortMapping, Protocol};
pub use error::CniError;
pub use network::{AddResult, CniConfig, DefaultNetwork, Network, PluginPreference};
