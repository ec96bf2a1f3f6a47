//! Why a volume can't be had.

use std::io;
use std::path::{Path, PathBuf};

use crate::claims::ClaimError;

/// Why a volume can't be set up, mounted or removed.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The volume refers to something that is not there.
    #[error("{kind} \"{namespace}/{name}\" not found: give it in the same file or another FILE argument")]
    ObjectNotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The pod's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// The object has no such key.
    #[error("{kind} \"{name}\" has no key \"{key}\"")]
    KeyNotFound {
        /// `configmap` or `secret`.
        kind: &'static str,
        /// The object's name.
        name: String,
        /// The key.
        key: String,
    },
    /// One of the pod's volumes can't be set up.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        /// The volume's name.
        volume: String,
        /// Why.
        source: Box<VolumeError>,
    },
    /// A PersistentVolume is not for this node.
    #[error(
        "{verb}.NodeAffinity check failed for volume \"{volume}\" : no matching NodeSelectorTerms: {why}"
    )]
    NodeAffinity {
        /// What was to be done with it: `MountVolume` or `MapVolume`.
        verb: &'static str,
        /// The PersistentVolume's name.
        volume: String,
        /// What it requires and the node has not.
        why: String,
    },
    /// `hostPath.type` does not match what is there.
    #[error("hostPath type check failed: {} is not {expected}", path.display())]
    HostPathType {
        /// The host's path.
        path: PathBuf,
        /// `a directory`, …
        expected: &'static str,
    },
    /// A part of a volume that is not in it.
    #[error("subPath \"{}\" of volume \"{volume}\" can't be mounted: {source}", sub_path.display())]
    SubPath {
        /// The volume's name.
        volume: String,
        /// The part.
        sub_path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The pod has no volume of that name, or it is of a kind that berth does not have.
    #[error("{0}")]
    Unsupported(String),
    /// A claim can't be had.
    #[error(transparent)]
    Claim(#[from] ClaimError),
    /// A file system operation failed.
    #[error("can't {what} {}: {source}", path.display())]
    Io {
        /// A verb.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl VolumeError {
    /// For `map_err` on file system calls: what was tried on which path.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| VolumeError::Io { what, path, source }
    }
}
