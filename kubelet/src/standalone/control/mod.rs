//! The way to the process that runs a pod.
//!
//! Who runs pods (`berth run` in a terminal, or the daemon) listens on a socket of its own, `<run>/control/<pid>.sock`,
//! and a pod's lock file says which process that is. A connection is for one question; answers bring descriptors along:
//! of a command's pipes or terminal, of a forwarded connection, of a container's root. The bytes themselves never pass
//! through the process that runs the pod, so a slow reader costs it nothing.

mod call;
mod client;
mod error;
mod handover;
mod listener;
mod owned;
mod protocol;
mod reach;
mod server;
mod usage;
mod wire;

pub use call::{RootOf, Streams};
pub use client::{Caller, Forwarder, TakeOver};
pub use error::CallError;
pub(super) use listener::{Listener, answers};
pub(super) use owned::{Owned, Taker};
pub(super) use protocol::SentWorkload;
pub use protocol::{ContainerSummary, ContainerUsage, PodUsage, Taken};
