//! The shim: one process per pod. It starts the pause and the containers, holds their stdio, writes and rotates their
//! logs, reaps them and records how they ended. Nothing of it depends on the engine's being alive.
//!
//! [`start`] is all that a program needs to be one; [`protocol`] is what it is then told over its socket. It is
//! single-threaded: it waits in one place, and handles each wake-up to its end.
//!
//! When a shim is killed, its pause and the containers that were not started yet die with it, by their parent-death
//! signal, and its mounts go with its mount namespace. Containers that run do not: the signal would not survive the
//! exec of a program with other credentials, so that nothing could rely on it. They are in the cgroups that their
//! bundles name, and the engine kills those when it finds that the lock on [`protocol::CONFIG_NAME`] is free.

mod bundle;
pub mod client;
mod clients;
mod clock;
mod commands;
mod connection;
mod container;
mod error;
mod exec;
mod exits;
pub mod frame;
mod handler;
mod log;
mod oom;
mod poller;
mod probe;
mod process;
pub mod protocol;
mod reaper;
mod repeat;
mod requests;
mod run;
mod sandbox;
mod shim;
mod shutdown;
mod start;
mod stdio;
mod unit;
mod volumes;

pub use clock::rfc3339;
pub use connection::ConnectionError;
pub use probe::probe_user_namespace;
pub use sandbox::SandboxError;
pub use start::{StartError, start};
