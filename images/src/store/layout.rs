//! Where the store keeps what.
//!
//! ```text
//! <root>/
//!   images.json          names, manifests, snapshots of every image
//!   blobs/sha256/<hex>   manifests and configurations
//!   snapshots/<key>/     one unpacked layer: fs/ and layer.json
//!   leases/<owner>       which images are in use by whom
//!   ingest/<operation>/  what is not complete yet
//!   locks/               flock(2) files; index.lock, active.lock and one for each layer or image under way
//! ```
//! Compressed layers are not kept: a layer goes from the network through the digests into its snapshot.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::error::ImageError;

#[derive(Clone, Debug)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are not there yet.
    pub(crate) fn create(root: &Path) -> Result<Self, ImageError> {
        let layout = Self {
            root: root.to_owned(),
        };
        let algorithms = [
            "blobs/sha256",
            "blobs/sha512",
            "snapshots",
            "leases",
            "ingest",
            "locks",
        ];
        for directory in algorithms {
            let path = root.join(directory);
            // Only root may look inside: layers have setuid programs with known holes.
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(|e| ImageError::io("make the directory", &path, &e))?;
        }
        Ok(layout)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("images.json")
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, key: &str) -> PathBuf {
        self.snapshots().join(key)
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// Held by who changes the index or a lease.
    pub(crate) fn index_lock(&self) -> PathBuf {
        self.locks().join("index.lock")
    }

    /// Shared by operations under way; who holds it alone may sweep.
    pub(crate) fn active_lock(&self) -> PathBuf {
        self.locks().join("active.lock")
    }
}

/// Whether a write has to survive a loss of power, or only the death of processes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    Power,
    Process,
}

/// Replaces a file at once, by way of `temporary` on the same file system.
pub(crate) fn write_atomically(
    path: &Path,
    temporary: &Path,
    bytes: &[u8],
    durability: Durability,
) -> Result<(), ImageError> {
    let failed = |e| ImageError::io("write", path, &e);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(temporary)
        .map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if durability == Durability::Power {
        file.sync_all().map_err(failed)?;
    }
    fs::rename(temporary, path).map_err(failed)?;
    if durability == Durability::Power
        && let Some(parent) = path.parent()
    {
        fs::File::open(parent)
            .and_then(|directory| directory.sync_all())
            .map_err(failed)?;
    }
    Ok(())
}
