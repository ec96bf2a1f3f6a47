//! The ports that this process has made, by bridge: as long as there is one, nobody has to ask the kernel whether a bridge has
//! any, which describes all of them then, the more the more pods there are.
//!
//! A port that is still known here may be gone; then the bridge stays until the next garbage collection.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::Conf;
use crate::plugins::Context;

/// The bridges, each by the node's directory and its name, and the names of their ports.
type Bridges = HashMap<(PathBuf, String), HashSet<String>>;

fn bridges() -> MutexGuard<'static, Bridges> {
    static BRIDGES: OnceLock<Mutex<Bridges>> = OnceLock::new();
    let bridges = BRIDGES.get_or_init(Mutex::default);
    bridges.lock().unwrap_or_else(PoisonError::into_inner)
}

fn key(context: &Context<'_>, conf: &Conf) -> (PathBuf, String) {
    (context.site.state_dir.clone(), conf.bridge.clone())
}

/// The bridge has this port now.
pub(super) fn made(context: &Context<'_>, conf: &Conf, port: &str) {
    bridges()
        .entry(key(context, conf))
        .or_default()
        .insert(port.to_owned());
}

/// The bridge has this port no more. Returns whether this process has made others that are still there: of those that go at
/// the same time, one hears that there are none.
pub(super) fn gone(context: &Context<'_>, conf: &Conf, port: &str) -> bool {
    let mut bridges = bridges();
    let key = key(context, conf);
    let Some(ports) = bridges.get_mut(&key) else {
        return false;
    };
    ports.remove(port);
    let others = !ports.is_empty();
    if !others {
        bridges.remove(&key);
    }
    others
}

/// Whether the bridge has a port that this process made.
pub(super) fn any(context: &Context<'_>, conf: &Conf) -> bool {
    bridges().contains_key(&key(context, conf))
}
