//! Looking images up.

use std::fs;
use std::path::PathBuf;

use super::Store;
use super::collect::last_use;
use super::index::{Index, Record};
use super::layout::Layout;
use super::snapshot::{Snapshot, tree};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;
use crate::reference::Reference;

/// The shortest beginning of an id that is looked for.
const MIN_PREFIX: usize = 3;

impl Store {
    /// The image of that name, id, digest, or beginning of an id (3 digits or more).
    ///
    /// # Errors
    /// `InvalidName`, also if an id's beginning fits several; or the store is damaged.
    pub fn find(&self, image: &str) -> Result<Option<Image>, ImageError> {
        let mut index = Index::load(self.layout())?;
        let Some(id) = find_id(&index, image)? else {
            return Ok(None);
        };
        index
            .images
            .remove(&id)
            .map(|record| load(self.layout(), &id, record))
            .transpose()
    }

    /// Every image, in the order of their ids.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        let index = Index::load(self.layout())?;
        index
            .images
            .into_iter()
            .map(|(id, record)| load(self.layout(), &id, record))
            .collect()
    }

    /// Bytes that the files of all layers take, each layer counted once.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn disk_usage(&self) -> Result<u64, ImageError> {
        let directory = self.layout().snapshots();
        let failed = |e| ImageError::io("read the directory", &directory, &e);
        let mut bytes = 0;
        for entry in fs::read_dir(&directory).map_err(failed)? {
            if let Some(key) = entry.map_err(failed)?.file_name().to_str() {
                bytes += Snapshot::load(self.layout(), key)?.map_or(0, |snapshot| snapshot.bytes);
            }
        }
        Ok(bytes)
    }

    /// The image's manifest, as it was fetched or, from docker's own archive format, made.
    ///
    /// # Errors
    /// The image is not in the store any more.
    pub fn manifest(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        read_blob(self.layout(), &image.manifest)
    }

    /// The image's configuration, byte for byte.
    ///
    /// # Errors
    /// The image is not in the store any more.
    pub fn raw_config(&self, image: &Image) -> Result<Vec<u8>, ImageError> {
        read_blob(self.layout(), &image.id)
    }

    /// The directories to stack, topmost first, as overlayfs takes its `lowerdir`s. They are never to be written to.
    ///
    /// # Errors
    /// `NotFound` if the image is not in the store any more.
    pub fn lower_dirs(&self, image: &Image) -> Result<Vec<PathBuf>, ImageError> {
        let directories: Vec<PathBuf> = image
            .snapshots
            .iter()
            .rev()
            .map(|key| tree(&self.layout().snapshot(key)))
            .collect();
        match directories.iter().find(|directory| !directory.is_dir()) {
            None => Ok(directories),
            Some(gone) => Err(ImageError::NotFound(format!(
                "image {} has lost its layer {}: pull or import it again",
                image.id,
                gone.display()
            ))),
        }
    }
}

fn load(layout: &Layout, id: &str, record: Record) -> Result<Image, ImageError> {
    let config = read_blob(layout, id)?;
    let last_used = last_use(&blob(layout, id)?, &record);
    Image::from_parts(id, record, &config, last_used)
}

fn blob(layout: &Layout, digest: &str) -> Result<PathBuf, ImageError> {
    let digest: Digest = digest
        .parse()
        .map_err(|why| ImageError::Io(format!("the image index is damaged: {why}")))?;
    Ok(layout.blob(&digest))
}

fn read_blob(layout: &Layout, digest: &str) -> Result<Vec<u8>, ImageError> {
    let path = blob(layout, digest)?;
    fs::read(&path).map_err(|e| ImageError::io("read", &path, &e))
}

/// The id of the image that a user means.
pub(super) fn find_id(index: &Index, text: &str) -> Result<Option<String>, ImageError> {
    if let Ok(digest) = text.parse::<Digest>() {
        let by_manifest = || {
            index
                .images
                .iter()
                .find(|(_, record)| record.manifest == digest.as_str())
                .map(|(id, _)| id.clone())
        };
        let by_id = index
            .images
            .contains_key(digest.as_str())
            .then(|| digest.to_string());
        return Ok(by_id.or_else(by_manifest));
    }
    let prefix = text.strip_prefix("sha256:").unwrap_or(text);
    let is_prefix = prefix.len() >= MIN_PREFIX
        && prefix
            .bytes()
            .all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
    if let Some(id) = text
        .parse::<Reference>()
        .ok()
        .and_then(|reference| by_name(index, &reference))
    {
        return Ok(Some(id));
    }
    if is_prefix {
        let whole = format!("sha256:{prefix}");
        let mut fitting = index.images.keys().filter(|id| id.starts_with(&whole));
        let first = fitting.next().cloned();
        if fitting.next().is_some() {
            return Err(ImageError::InvalidName(format!(
                "several images' ids begin with {prefix}: give more digits"
            )));
        }
        if first.is_some() || text.starts_with("sha256:") {
            return Ok(first);
        }
    }
    text.parse::<Reference>().map(|_| None)
}

fn by_name(index: &Index, reference: &Reference) -> Option<String> {
    let name = match reference.digest() {
        Some(digest) => format!("{}@{digest}", reference.name()),
        None => reference.to_string(),
    };
    let has = |record: &Record| record.names.contains(&name) || record.digests.contains(&name);
    index
        .images
        .iter()
        .find(|(_, record)| has(record))
        .map(|(id, _)| id.clone())
}
