//! A claim as the node keeps it.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use serde::{Deserialize, Serialize};

use crate::defaults::DEFAULT_NAMESPACE;
use crate::identity::PodUid;
use crate::quantity::{Value, value_of};

/// A claim, and what it is bound to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRecord {
    /// The claim, defaulted and validated.
    pub claim: PersistentVolumeClaim,
    /// The PersistentVolume that it is bound to; without one it is a directory of the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<PersistentVolume>,
    /// The pod whose ephemeral volume it is; it goes with that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<PodUid>,
}

/// What a claim's files are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backing<'a> {
    /// A directory of the node.
    Directory,
    /// A PersistentVolume.
    Volume(&'a PersistentVolume),
}

impl ClaimRecord {
    /// The claim's namespace.
    pub fn namespace(&self) -> &str {
        namespace(&self.claim)
    }

    /// The claim's name.
    pub fn name(&self) -> &str {
        name(&self.claim)
    }

    /// `NAMESPACE/NAME`.
    pub fn full_name(&self) -> String {
        full_name(&self.claim)
    }

    /// What its files are.
    pub fn backing(&self) -> Backing<'_> {
        self.volume.as_ref().map_or(Backing::Directory, Backing::Volume)
    }

    /// It is a block device, not a file system.
    pub fn is_block(&self) -> bool {
        let spec = self.claim.spec.as_ref();
        spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block")
    }

    /// At most one pod may use it at a time (`ReadWriteOncePod`).
    pub fn is_for_one_pod(&self) -> bool {
        let modes = self
            .claim
            .spec
            .as_ref()
            .and_then(|spec| spec.access_modes.as_deref());
        modes.is_some_and(|modes| modes.iter().any(|mode| mode == "ReadWriteOncePod"))
    }
}

/// The namespace of a claim.
pub(super) fn namespace(claim: &PersistentVolumeClaim) -> &str {
    claim.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE)
}

/// The name of a claim.
pub(super) fn name(claim: &PersistentVolumeClaim) -> &str {
    claim.metadata.name.as_deref().unwrap_or_default()
}

/// `NAMESPACE/NAME` of a claim.
pub(super) fn full_name(claim: &PersistentVolumeClaim) -> String {
    format!("{}/{}", namespace(claim), name(claim))
}

/// `spec.resources.requests.storage` of a claim; 0 if there is none.
pub(super) fn request(claim: &PersistentVolumeClaim) -> Value {
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref()?.get("storage"));
    requests.map_or_else(Value::default, value_of)
}

/// `spec.capacity.storage` of a volume; 0 if there is none.
pub(super) fn capacity(volume: &PersistentVolume) -> Value {
    let capacity = volume
        .spec
        .as_ref()
        .and_then(|spec| spec.capacity.as_ref()?.get("storage"));
    capacity.map_or_else(Value::default, value_of)
}
