//! Getting a layer unpacked once, whoever wants it.

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use super::index::Index;
use super::layout::Layout;
use super::lock::Lock;
use super::operation::{Operation, remove_tree};
use super::snapshot::{Snapshot, tree};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::unpack::{Budget, LayerClaim, unpack};

/// The right, and duty, to unpack a layer that isn't there. Others who want it wait.
#[derive(Debug)]
pub(crate) struct LayerSlot {
    key: String,
    /// `None` if somebody else has it who can't be waited for.
    _lock: Option<Lock>,
}

impl LayerSlot {
    /// `None` if the layer is there, after waiting for whoever unpacks it. Blocking.
    pub(crate) fn acquire(operation: &Operation, diff_id: &Digest) -> Result<Option<Self>, ImageError> {
        let key = Snapshot::key(diff_id);
        let lock = operation.lock(&format!("layer-{key}"))?;
        if is_there(operation.layout(), &key, diff_id)? {
            return Ok(None);
        }
        Ok(Some(Self {
            key,
            _lock: Some(lock),
        }))
    }

    /// As [`Self::acquire`], without waiting: the layer may be unpacked twice, and the first that is done counts. Blocking.
    pub(crate) fn beside(operation: &Operation, diff_id: &Digest) -> Result<Option<Self>, ImageError> {
        let key = Snapshot::key(diff_id);
        let lock = operation.try_lock(&format!("layer-{key}"))?;
        if is_there(operation.layout(), &key, diff_id)? {
            return Ok(None);
        }
        Ok(Some(Self { key, _lock: lock }))
    }

    /// Unpacks the layer from its bytes. Blocking.
    pub(crate) fn unpack(
        self,
        operation: &Operation,
        source: impl Read + Send,
        claim: &LayerClaim,
        budget: &Budget,
    ) -> Result<(), ImageError> {
        let staging = Staging(operation.temporary());
        fs::create_dir(&staging.0).map_err(|e| ImageError::io("make the directory", &staging.0, &e))?;
        let unpacked = unpack(source, claim, budget, &tree(&staging.0))?;
        let _committing = operation.lock(&format!("commit-{}", self.key))?;
        if is_there(operation.layout(), &self.key, &claim.diff_id)? {
            return Ok(());
        }
        let stale = operation.layout().snapshot(&self.key);
        if stale.exists() {
            // Of an earlier boot, and perhaps not whole.
            let doomed = operation.temporary();
            fs::rename(&stale, &doomed).map_err(|e| ImageError::io("remove", &stale, &e))?;
            remove_tree(&doomed);
        }
        Snapshot::new(&claim.diff_id, unpacked).commit(operation, &staging.0, &self.key)
    }
}

/// A snapshot being made; removed unless it got its name.
struct Staging(PathBuf);

impl Drop for Staging {
    fn drop(&mut self) {
        remove_tree(&self.0);
    }
}

/// Whether a layer is unpacked already, and whole.
pub(crate) fn is_there(layout: &Layout, key: &str, diff_id: &Digest) -> Result<bool, ImageError> {
    let Some(snapshot) = Snapshot::load(layout, key)? else {
        return Ok(false);
    };
    if snapshot.source != diff_id.as_str() {
        return Err(ImageError::Corrupt(format!(
            "layer {diff_id} has the same beginning as {}: this can't be an accident",
            snapshot.source
        )));
    }
    if snapshot.is_of_this_boot() {
        return Ok(true);
    }
    let index = Index::load(layout)?;
    Ok(index
        .images
        .values()
        .any(|record| record.snapshots.iter().any(|used| used == key)))
}
