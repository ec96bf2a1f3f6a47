//! The index: which images there are, by which names, made of what.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use serde::{Deserialize, Serialize};

use super::layout::{Durability, Layout, write_atomically};
use super::lock::Lock;
use super::snapshot::boot_id;
use crate::error::ImageError;

const VERSION: u32 = 1;

/// Every image, by id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    version: u32,
    pub(crate) images: BTreeMap<String, Record>,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The digest of its manifest.
    pub(crate) manifest: String,
    /// Names with tags.
    pub(crate) names: BTreeSet<String>,
    /// Names with digests: of the manifest, and of the index that it was chosen from.
    pub(crate) digests: BTreeSet<String>,
    /// Keys of its snapshots, bottom first.
    pub(crate) snapshots: Vec<String>,
    /// Bytes.
    pub(crate) size: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) fetched_at: u64,
    /// On which start of the machine it came, until it is on the disk for sure. See [`super::settle`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unsettled: Option<String>,
}

impl Index {
    /// Reads the index. It is replaced at once when it changes, so that no lock is needed.
    pub(crate) fn load(layout: &Layout) -> Result<Self, ImageError> {
        let path = layout.index();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Ok(Self {
                    version: VERSION,
                    images: BTreeMap::new(),
                });
            }
            Err(e) => return Err(ImageError::io("read", &path, &e)),
        };
        let damaged = |why: String| {
            ImageError::Io(format!(
                "the image index {} can't be used: {why}. Move {} away and pull the images again",
                path.display(),
                layout.root().display()
            ))
        };
        let mut index: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if index.version != VERSION {
            return Err(damaged(format!(
                "it has version {}, and this berth knows {VERSION}",
                index.version
            )));
        }
        index
            .images
            .retain(|_, record| record.unsettled.as_deref().is_none_or(|boot| boot == boot_id()));
        Ok(index)
    }

    /// Changes the index while nobody else does. Blocking.
    pub(crate) fn update<T>(
        layout: &Layout,
        change: impl FnOnce(&mut Self) -> Result<T, ImageError>,
    ) -> Result<T, ImageError> {
        let _lock = Lock::exclusive(&layout.index_lock())?;
        let before = Self::load(layout)?;
        let mut index = before.clone();
        let outcome = change(&mut index)?;
        if index != before {
            let bytes = serde_json::to_vec_pretty(&index)
                .map_err(|e| ImageError::Io(format!("the image index can't be written: {e}")))?;
            let path = layout.index();
            write_atomically(&path, &path.with_extension("json.new"), &bytes, Durability::Power)?;
        }
        Ok(outcome)
    }

    /// Adds an image, or names to it. A tag belongs to one image: it is taken from the one that had it.
    pub(crate) fn add(&mut self, id: &str, mut record: Record) {
        for other in self.images.values_mut() {
            other.names.retain(|name| !record.names.contains(name));
        }
        if let Some(known) = self.images.remove(id) {
            record.names.extend(known.names);
            record.digests.extend(known.digests);
        }
        self.images.insert(id.to_owned(), record);
    }

    /// Drops a name. The images that stay without any name can still be found by id.
    pub(crate) fn untag(&mut self, id: &str, name: &str) {
        if let Some(record) = self.images.get_mut(id) {
            record.names.remove(name);
            record.digests.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(names: &[&str]) -> Record {
        Record {
            manifest: "m".to_owned(),
            names: names.iter().map(ToString::to_string).collect(),
            digests: BTreeSet::new(),
            snapshots: Vec::new(),
            size: 0,
            fetched_at: 0,
            unsettled: None,
        }
    }

    #[test]
    fn a_tag_belongs_to_one_image() {
        let mut index = Index {
            version: VERSION,
            images: BTreeMap::new(),
        };
        index.add("one", record(&["a:1", "a:2"]));
        index.add("two", record(&["a:2"]));
        index.add("one", record(&["b:1"]));
        let names = |id: &str| {
            index.images[id]
                .names
                .iter()
                .map(String::as_str)
                .collect::<Vec<_>>()
        };
        assert_eq!(names("one"), ["a:1", "b:1"]);
        assert_eq!(names("two"), ["a:2"]);
    }
}
