//! PersistentVolumeClaims without an API server: a claim is a directory of the node, or a PersistentVolume of the manifests,
//! and is kept until somebody removes it.

mod binding;
mod record;
mod store;
mod users;

pub use record::{Backing, ClaimRecord};
pub use store::{ClaimStore, Made};

pub(crate) use binding::decide;
pub(crate) use users::{claim_of, users};

use std::io;
use std::path::{Path, PathBuf};

/// Why a claim can't be had, changed or removed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no such claim.
    #[error("persistentvolumeclaim \"{0}\" not found")]
    NotFound(String),
    /// There is nothing that it could be.
    #[error("PersistentVolumeClaim {claim} can't be bound: {why}")]
    Unbound {
        /// `NAMESPACE/NAME`.
        claim: String,
        /// Why.
        why: String,
    },
    /// It is there already, as another.
    #[error(
        "PersistentVolumeClaim {claim} was made with another specification, of which only a larger request can be changed: {why}; `berth volume rm {claim}` removes it with its files"
    )]
    Immutable {
        /// `NAMESPACE/NAME`.
        claim: String,
        /// What differs.
        why: &'static str,
    },
    /// A claim of that name is there, which no pod's ephemeral volume made, or another's.
    #[error("PVC \"{claim}\" was not created for pod \"{pod}\" (pod is not owner)")]
    NotOwner {
        /// `NAMESPACE/NAME`.
        claim: String,
        /// `NAMESPACE/NAME`.
        pod: String,
    },
    /// A pod uses it.
    #[error("PersistentVolumeClaim {claim} is used by pod {pod}: stop that first")]
    InUse {
        /// `NAMESPACE/NAME`.
        claim: String,
        /// `NAMESPACE/NAME`.
        pod: String,
    },
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

impl ClaimError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| ClaimError::Io { what, path, source }
    }
}
