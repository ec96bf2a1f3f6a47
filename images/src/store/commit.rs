//! Making an image known, once all its layers are there.

use std::collections::BTreeSet;

use super::index::{Index, Record};
use super::operation::{Operation, now_nanos};
use super::rebase::rebase;
use super::snapshot::{Snapshot, boot_id};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;

/// An image whose layers are unpacked and whose parts were checked.
#[derive(Clone, Debug)]
pub(crate) struct NewImage {
    pub(crate) manifest: (Digest, Vec<u8>),
    pub(crate) config: (Digest, Vec<u8>),
    /// Bottom first.
    pub(crate) diff_ids: Vec<Digest>,
    pub(crate) names: BTreeSet<String>,
    pub(crate) digests: BTreeSet<String>,
}

impl NewImage {
    /// Makes the image known. Blocking. The store's settler is to be waked afterwards.
    pub(crate) fn commit(self, operation: &Operation) -> Result<Image, ImageError> {
        let layout = operation.layout();
        let snapshots = rebase(operation, &self.diff_ids)?;
        operation.put_blob(&self.manifest.0, &self.manifest.1)?;
        operation.put_blob(&self.config.0, &self.config.1)?;
        let mut size = self.config.1.len() as u64 + self.manifest.1.len() as u64;
        for key in &snapshots {
            size += Snapshot::load(layout, key)?.map_or(0, |snapshot| snapshot.bytes);
        }
        let id = self.config.0.to_string();
        let record = Record {
            manifest: self.manifest.0.to_string(),
            names: self.names,
            digests: self.digests,
            snapshots,
            size,
            fetched_at: now_nanos(),
            unsettled: Some(boot_id().to_owned()),
        };
        let record = Index::update(layout, |index| {
            index.add(&id, record);
            Ok(index.images.get(&id).cloned())
        })?;
        let record = record.ok_or_else(|| ImageError::Io(format!("image {id} vanished from the index")))?;
        let fetched_at = record.fetched_at;
        Image::from_parts(&id, record, &self.config.1, fetched_at)
    }
}
