//! The engine: pod sandboxes and containers, kept across restarts.
//!
//! [`Engine`] is what a kubelet needs of a container runtime, in the shape and with the names of CRI v1. Operations are
//! idempotent and can be joined: the key is (pod UID, name, attempt), never a name alone.

mod cannot_run;
mod cdi;
pub mod descriptor;
mod engine;
mod local;
pub mod nri;
mod remote;
pub mod server;
mod session;
mod streaming;
mod types;
#[rustfmt::skip]
pub mod v1;

pub use berth_images::delete_tree;
pub use engine::{Engine, EngineError, EventStream};
pub use local::{
    BUILT_IN_HANDLER, EngineConfig, HandlerConfig, LocalEngine, disk_usage, host_ports, is_capability,
    label_new_image_directory,
};
pub use remote::RemoteEngine;
pub use session::{Session, StreamOptions, TerminalSize};
pub use streaming::{
    AttachRequest, DEFAULT_CREATION_TIMEOUT, DEFAULT_IDLE_TIMEOUT, ExecRequest, PortForwardRequest,
    StreamingConfig, StreamingError, StreamingServer, TlsFiles, spdy,
};
pub use types::*;

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing {
    //! What the targets in `fuzz/` run.
    pub use crate::cdi::fuzzing::cdi;
    pub use crate::streaming::fuzzing::spdy;
}

/// Control groups: what a kubelet makes its pods' and tiers' groups with.
pub use berth_runtime::{cgroups, forget_starters_signals};
