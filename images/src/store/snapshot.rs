//! Snapshots: unpacked layers, each a directory that does not depend on the layers below it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::layout::{Durability, Layout, write_atomically};
use super::operation::Operation;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::Unpacked;

/// Hexadecimal digits of a snapshot's name. 128 bits, so that some 60 layers still fit into the options of mount(2).
const KEY_DIGITS: usize = 32;
const RECORD: &str = "layer.json";
const TREE: &str = "fs";

/// What is known of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// What it was made from: a layer's diff id, or the chain of layers up to it.
    pub(crate) source: String,
    /// Bytes of its files.
    pub(crate) bytes: u64,
    /// Directories that the layer did not describe, parents first. See [`super::rebase`].
    pub(crate) implicit: Vec<PathBuf>,
    /// When the machine was started on which it was made. Its files are on the disk for sure once an image refers to it;
    /// before, only as long as the machine runs.
    pub(crate) boot_id: String,
}

impl Snapshot {
    pub(crate) fn new(source: &Digest, unpacked: Unpacked) -> Self {
        Self {
            source: source.to_string(),
            bytes: unpacked.bytes,
            implicit: unpacked.implicit,
            boot_id: boot_id().to_owned(),
        }
    }

    /// The name of the snapshot made from `source`.
    pub(crate) fn key(source: &Digest) -> String {
        source.hex().chars().take(KEY_DIGITS).collect()
    }

    /// The snapshot of that name, if it is complete. Incomplete ones never get a name.
    pub(crate) fn load(layout: &Layout, key: &str) -> Result<Option<Self>, ImageError> {
        let path = layout.snapshot(key).join(RECORD);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(ImageError::io("read", &path, &e)),
        }
    }

    /// Whether its files can be relied on even if no image refers to it.
    pub(crate) fn is_of_this_boot(&self) -> bool {
        self.boot_id == boot_id()
    }

    /// Gives the tree in `staging` (a directory with `fs` in it) its name. If the name is there, that one stays.
    pub(crate) fn commit(&self, operation: &Operation, staging: &Path, key: &str) -> Result<(), ImageError> {
        let record = serde_json::to_vec(self)
            .map_err(|e| ImageError::Io(format!("the record of snapshot {key} can't be written: {e}")))?;
        write_atomically(
            &staging.join(RECORD),
            &operation.temporary(),
            &record,
            Durability::Process,
        )?;
        let target = operation.layout().snapshot(key);
        match fs::rename(staging, &target) {
            Err(e)
                if !matches!(
                    e.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) =>
            {
                Err(ImageError::io("name the snapshot", &target, &e))
            }
            _ => Ok(()),
        }
    }
}

/// The directory that overlayfs stacks.
pub(crate) fn tree(directory: &Path) -> PathBuf {
    directory.join(TREE)
}

/// Tells this start of the machine from others.
pub(crate) fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    BOOT_ID.get_or_init(|| {
        fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map(|id| id.trim().to_owned())
            .unwrap_or_default()
    })
}
