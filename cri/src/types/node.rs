//! The engine itself, and what the node lets it do.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Who the runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// Whether the runtime can work, and what it can do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeStatus {
    /// `RuntimeReady`, `NetworkReady`.
    pub conditions: Vec<RuntimeCondition>,
    /// The handlers that a RuntimeClass can name; the one without a name is the default.
    pub handlers: Vec<RuntimeHandler>,
    /// `supplementalGroupsPolicy: Strict` is kept.
    pub supplemental_groups_policy: bool,
    /// Details for people, as JSON, by name.
    pub info: BTreeMap<String, String>,
}

/// One condition of the runtime.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeCondition {
    /// Its name.
    pub kind: String,
    /// It holds.
    pub status: bool,
    /// Why not, in one word.
    pub reason: String,
    /// Why not, in a sentence.
    pub message: String,
}

/// A runtime handler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuntimeHandler {
    /// Its name; empty is the default one.
    pub name: String,
    /// Mounts can be read-only with all that is mounted below them.
    pub recursive_read_only_mounts: bool,
    /// Pods can have user namespaces.
    pub user_namespaces: bool,
}

/// Who makes cgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CgroupDriver {
    /// By files.
    #[default]
    Cgroupfs,
    /// By systemd's scopes and slices.
    Systemd,
}
