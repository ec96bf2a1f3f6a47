//! The node resource interface: plugins that are told what happens to pods and containers, and may change containers
//! before they are made and while they run.
//!
//! A plugin is a program that connects to a socket of the runtime (or that the runtime starts with one). It registers,
//! is configured, is told of all pods and containers that there are, and of every event from then on. [`Nri`] keeps what
//! plugins have been told of, under one lock that is held while they are told: so a plugin that registers while pods come
//! and go sees each of them once, in its first state or as an event, and events come one at a time, as upstream has it.
//!
//! No plugin can hold the runtime up: one that does not answer in time is closed, and what it was asked goes on without it.

mod adjust;
pub mod api;
mod collect;
mod connection;
mod convert;
mod creation;
pub mod frame;
mod identity;
mod launch;
mod limits;
mod notice;
mod notify;
mod owners;
mod plugin;
mod registry;
mod synchronize;

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub(crate) use adjust::adjust;
pub(crate) use convert::{container, limits_of, pod};
pub(crate) use limits::{changed, overlay};
pub(crate) use notify::Exit;
pub(crate) use registry::Nri;

/// Where plugins are, and how patient the runtime is with them.
#[derive(Clone, Debug)]
pub struct NriConfig {
    /// The socket that plugins connect to; `None` takes no connections.
    pub socket: Option<PathBuf>,
    /// The directory of the plugins that the runtime starts; `None` starts none.
    pub plugins: Option<PathBuf>,
    /// The directory of those plugins' configuration.
    pub plugin_config: PathBuf,
    /// How patient the runtime is.
    pub timeouts: Timeouts,
}

/// How long plugins may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To register, and to take in the pods and containers that there are.
    pub registration: Duration,
    /// For everything else.
    pub request: Duration,
}

impl Default for Timeouts {
    /// Upstream's.
    fn default() -> Self {
        Self {
            registration: Duration::from_secs(5),
            request: Duration::from_secs(2),
        }
    }
}

/// What plugins ask of the runtime.
#[async_trait]
pub(crate) trait Runtime: Send + Sync + 'static {
    /// Changes containers' limits. Returns those updates that failed and may not.
    async fn update(&self, updates: Vec<api::ContainerUpdate>) -> Vec<api::ContainerUpdate>;
    /// Stops containers.
    async fn evict(&self, evictions: Vec<api::ContainerEviction>);
}

/// Why a pod or a container can't be made or changed as asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NriError {
    /// A plugin says no.
    #[error("The NRI plugin {plugin} refused {request}: {reason}.")]
    Refused {
        plugin: String,
        request: &'static str,
        reason: String,
    },
    /// Two plugins want different things.
    #[error("The NRI plugins {second} and {first} both set {what}.")]
    Conflict {
        first: String,
        second: String,
        what: String,
    },
    /// A plugin wants what can't be done.
    #[error("An NRI plugin asks for {what}, which can't be had: {reason}.")]
    Impossible { what: String, reason: String },
}

impl NriError {
    fn impossible(what: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Impossible {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// Why plugins can't be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("The NRI socket {} can't be listened on: {error}.", .path.display())]
    Socket { path: PathBuf, error: io::Error },
    #[error("The NRI plugins in {} can't be listed: {error}.", .path.display())]
    Plugins { path: PathBuf, error: io::Error },
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
