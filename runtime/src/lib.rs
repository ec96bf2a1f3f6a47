//! OCI runtime library: a spec in, processes out.
//!
//! [`create`] makes a container from an OCI runtime configuration and stops right before its program; the returned
//! [`Created`] starts it. [`exec`] adds a process to a running container, and [`start_pause`] makes the process that
//! holds a pod's namespaces. Everything is synchronous; the calling process must be single-threaded, because
//! containers begin as copies of it, without a program of the runtime's in between.

mod create;
mod error;
mod exec;
mod namespaces;
mod pause;
mod rootfs;
mod stdio;

pub use oci_spec::runtime as oci;

pub use create::{CreateArgs, Created, create};
pub use error::{Error, Result};
pub use exec::{ExecTarget, Execed, exec};
pub use namespaces::JoinedNamespaces;
pub use pause::{HeldNamespaces, Pause, PauseArgs, start_pause};
pub use rootfs::Rootfs;
pub use stdio::Stdio;
