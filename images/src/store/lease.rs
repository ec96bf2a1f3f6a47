//! Leases: which images are in use by whom.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use super::Store;
use super::collect::note_use;
use super::index::Index;
use super::layout::{Durability, Layout, write_atomically};
use super::lock::Lock;
use crate::error::ImageError;
use crate::image::Image;

/// What an owner holds: image ids to the snapshots that they need. The snapshots stay even if the image is removed by
/// force.
pub(crate) type Held = BTreeMap<String, Vec<String>>;

const MAX_OWNER: usize = 200;

impl Store {
    /// Keeps an image from being removed as long as `owner` (letters, digits, `.`, `_`, `-`; a container's id) has it.
    /// Recorded on disk. Asking again is fine; an owner may have several images.
    ///
    /// # Errors
    /// `NotFound` if the image is not in the store (any more).
    pub fn lease(&self, image: &Image, owner: &str) -> Result<(), ImageError> {
        let layout = self.layout();
        check_owner(owner)?;
        let _lock = Lock::exclusive(&layout.index_lock())?;
        let Some(record) = Index::load(layout)?.images.remove(&image.id) else {
            return Err(ImageError::NotFound(format!(
                "image {} is not in the store any more",
                image.id
            )));
        };
        let path = layout.leases().join(owner);
        let mut held = read(layout, owner)?;
        if held.get(&image.id) == Some(&record.snapshots) {
            return Ok(());
        }
        note_use(layout, &image.id);
        held.insert(image.id.clone(), record.snapshots);
        let bytes = serde_json::to_vec(&held)
            .map_err(|e| ImageError::Io(format!("the lease of {owner} can't be written: {e}")))?;
        // A loss of power ends the containers that leases are for.
        write_atomically(&path, &layout.leases().join(".new"), &bytes, Durability::Process)
    }

    /// Drops every lease of `owner`. Idempotent.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn release(&self, owner: &str) -> Result<(), ImageError> {
        check_owner(owner)?;
        let path = self.layout().leases().join(owner);
        for id in read(self.layout(), owner)?.keys() {
            note_use(self.layout(), id);
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(ImageError::io("remove the lease", &path, &e))
            }
            _ => Ok(()),
        }
    }

    /// Every lease: owner to image ids.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn leases(&self) -> Result<BTreeMap<String, Vec<String>>, ImageError> {
        Ok(all(self.layout())?
            .into_iter()
            .map(|(owner, held)| (owner, held.into_keys().collect()))
            .collect())
    }
}

/// Every lease with what it holds.
pub(crate) fn all(layout: &Layout) -> Result<BTreeMap<String, Held>, ImageError> {
    let directory = layout.leases();
    let failed = |e| ImageError::io("read", &directory, &e);
    let mut leases = BTreeMap::new();
    for entry in fs::read_dir(&directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if let Some(owner) = name.to_str().filter(|owner| check_owner(owner).is_ok()) {
            leases.insert(owner.to_owned(), read(layout, owner)?);
        }
    }
    Ok(leases)
}

fn read(layout: &Layout, owner: &str) -> Result<Held, ImageError> {
    let path = layout.leases().join(owner);
    match fs::read(&path) {
        // A file that a loss of power left empty: its owner is gone as well.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Held::new()),
        Err(e) => Err(ImageError::io("read the lease", &path, &e)),
    }
}

fn check_owner(owner: &str) -> Result<(), ImageError> {
    let known = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !owner.is_empty() && owner.len() <= MAX_OWNER && !owner.starts_with('.') && owner.bytes().all(known) {
        return Ok(());
    }
    Err(ImageError::Unsupported(format!(
        "{owner:?} can't own a lease: letters, digits, '.', '_', '-' only"
    )))
}
