//! An operation under way: what it has not completed goes when it ends, however it ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use super::layout::{Durability, Layout, write_atomically};
use super::lock::Lock;
use crate::digest::Digest;
use crate::error::ImageError;

static NEXT: AtomicU64 = AtomicU64::new(0);

/// Holds off sweeping, and has a directory for what is not complete yet. Dropping it removes the directory; if the
/// process is killed, the next sweep does.
#[derive(Debug)]
pub(crate) struct Operation {
    layout: Layout,
    directory: PathBuf,
    next: AtomicU64,
    _active: Lock,
}

impl Operation {
    /// Blocking: waits for a sweep to end.
    pub(crate) fn begin(layout: &Layout) -> Result<Self, ImageError> {
        let active = Lock::shared(&layout.active_lock())?;
        let name = format!(
            "{}-{}-{}",
            process::id(),
            now_nanos(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let directory = layout.ingest().join(name);
        fs::create_dir(&directory).map_err(|e| ImageError::io("make the directory", &directory, &e))?;
        Ok(Self {
            layout: layout.clone(),
            directory,
            next: AtomicU64::new(0),
            _active: active,
        })
    }

    /// Its directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A path of its own for something new.
    pub(crate) fn temporary(&self) -> PathBuf {
        self.directory
            .join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Waits until no other operation works on the thing of that name (digits and letters). Blocking. Lock files are
    /// swept only while no operation is under way, so this one is the one that others wait at.
    pub(crate) fn lock(&self, name: &str) -> Result<Lock, ImageError> {
        Lock::exclusive(&self.layout.locks().join(name))
    }

    /// As [`Self::lock`], without waiting.
    pub(crate) fn try_lock(&self, name: &str) -> Result<Option<Lock>, ImageError> {
        Lock::try_exclusive(&self.layout.locks().join(name))
    }

    /// Stores a manifest or configuration whose digest was checked. It is on the disk once its image is settled.
    pub(crate) fn put_blob(&self, digest: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        write_atomically(
            &self.layout.blob(digest),
            &self.temporary(),
            bytes,
            Durability::Power,
        )
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        remove_tree(&self.directory);
    }
}

/// Removes a tree as far as it goes; what stays is for the next sweep.
pub(crate) fn remove_tree(path: &Path) {
    let _ = crate::delete_tree(path);
}

/// Nanoseconds since the Unix epoch.
pub(crate) fn now_nanos() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}
