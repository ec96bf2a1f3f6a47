//! Removing images.

use std::time::Duration;

use super::Store;
use super::find::find_id;
use super::index::Index;
use super::layout::Layout;
use super::lease;
use super::sweep::sweep;
use crate::error::ImageError;
use crate::reference::Reference;

/// What a removal did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<String>,
    /// The id of the image, if it is gone as well.
    pub deleted: Option<String>,
}

impl Store {
    /// Removes an image by name or id, and the layers that no other image uses. A name of an image with more names only
    /// removes the name. Blocking.
    ///
    /// By force, an image in use goes too, but its layers stay until the last lease is gone and something is swept.
    ///
    /// # Errors
    /// `NotFound`, `InvalidName`, or `InUse` if something has a lease on it.
    pub fn remove(&self, image: &str, force: bool) -> Result<Removed, ImageError> {
        let layout = self.layout();
        let removed = Index::update(layout, |index| remove(layout, index, image, force))?;
        sweep(layout, Duration::ZERO)?;
        Ok(removed)
    }

    /// Removes what nothing refers to: incomplete downloads, layers without an image. Does nothing while a pull is under
    /// way. Blocking.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn sweep(&self) -> Result<(), ImageError> {
        sweep(self.layout(), Duration::ZERO)
    }
}

fn remove(layout: &Layout, index: &mut Index, text: &str, force: bool) -> Result<Removed, ImageError> {
    let not_found = || {
        ImageError::NotFound(format!(
            "there is no image {text}; `berth image ls` lists those there are"
        ))
    };
    let id = find_id(index, text)?.ok_or_else(not_found)?;
    let record = index.images.get(&id).ok_or_else(not_found)?;
    if let Ok(reference) = text.parse::<Reference>() {
        let name = reference.to_string();
        if record.names.contains(&name) && record.names.len() > 1 {
            index.untag(&id, &name);
            return Ok(Removed {
                untagged: vec![name],
                deleted: None,
            });
        }
    }
    let owners: Vec<String> = lease::all(layout)?
        .into_iter()
        .filter(|(_, held)| held.contains_key(&id))
        .map(|(owner, _)| owner)
        .collect();
    if !owners.is_empty() && !force {
        return Err(ImageError::InUse(format!(
            "image {text} is in use by {}. Remove its containers first, or remove it by force",
            owners.join(", ")
        )));
    }
    let untagged = record.names.iter().cloned().collect();
    index.images.remove(&id);
    Ok(Removed {
        untagged,
        deleted: Some(id),
    })
}
