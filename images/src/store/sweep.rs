//! Removing what nothing refers to.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::Duration;

use super::index::Index;
use super::layout::Layout;
use super::lease;
use super::lock::Lock;
use super::operation::{now_nanos, remove_tree};
use super::snapshot::Snapshot;
use crate::digest::Digest;
use crate::error::ImageError;

/// Removes incomplete things, and complete ones that no image and no lease refers to and that are older than `grace`:
/// layers of a pull that failed half-way are there when it is tried again. Does nothing while an operation is under way,
/// in any process. Blocking.
pub(crate) fn sweep(layout: &Layout, grace: Duration) -> Result<(), ImageError> {
    let Some(_alone) = Lock::try_exclusive(&layout.active_lock())? else {
        return Ok(());
    };
    for entry in entries(&layout.ingest())? {
        remove_tree(&entry.path());
    }
    let _index_lock = Lock::exclusive(&layout.index_lock())?;
    let index = Index::load(layout)?;
    sweep_snapshots(layout, &index, grace)?;
    sweep_blobs(layout, &index, grace)?;
    sweep_locks(layout)
}

fn sweep_snapshots(layout: &Layout, index: &Index, grace: Duration) -> Result<(), ImageError> {
    let mut used: BTreeSet<String> = BTreeSet::new();
    used.extend(
        index
            .images
            .values()
            .flat_map(|record| record.snapshots.iter().cloned()),
    );
    used.extend(
        lease::all(layout)?
            .into_values()
            .flatten()
            .flat_map(|(_, snapshots)| snapshots),
    );
    for entry in entries(&layout.snapshots())? {
        let Some(key) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        if used.contains(&key) {
            continue;
        }
        let reliable = Snapshot::load(layout, &key)?.is_some_and(|snapshot| snapshot.is_of_this_boot());
        if reliable && is_younger(&entry, grace) {
            continue;
        }
        // Under another name first: a half-removed snapshot must not be taken for a whole one.
        let doomed = layout.ingest().join(&key);
        if fs::rename(entry.path(), &doomed).is_ok() {
            remove_tree(&doomed);
        }
    }
    Ok(())
}

fn sweep_blobs(layout: &Layout, index: &Index, grace: Duration) -> Result<(), ImageError> {
    let used: BTreeSet<String> = index
        .images
        .iter()
        .flat_map(|(id, record)| [id, &record.manifest])
        .filter_map(|digest| digest.parse::<Digest>().ok())
        .map(|digest| digest.hex().to_owned())
        .collect();
    for algorithm in ["sha256", "sha512"] {
        for entry in entries(&layout.blobs().join(algorithm))? {
            let unused = entry.file_name().to_str().is_none_or(|name| !used.contains(name));
            if unused && !is_younger(&entry, grace) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
    Ok(())
}

/// Lock files are opened under the active lock, which is ours: nobody waits at these.
fn sweep_locks(layout: &Layout) -> Result<(), ImageError> {
    for entry in entries(&layout.locks())? {
        let path = entry.path();
        if path != layout.active_lock() && path != layout.index_lock() {
            let _ = fs::remove_file(path);
        }
    }
    Ok(())
}

fn is_younger(entry: &DirEntry, grace: Duration) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified()).ok();
    let nanos = modified
        .and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or(0, |since| since.as_nanos());
    u128::from(now_nanos()).saturating_sub(nanos) < grace.as_nanos()
}

fn entries(directory: &Path) -> Result<Vec<DirEntry>, ImageError> {
    fs::read_dir(directory)
        .and_then(Iterator::collect)
        .map_err(|e| ImageError::io("read the directory", directory, &e))
}
