//! Images made in memory: the embedded one, and those of tests.

use oci_spec::image::Config;

use crate::error::ImageError;
use crate::image::Image;
use crate::reference::Reference;
use crate::store::Store;

/// A file of a layer.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the root: `etc/passwd`. Parents that are not named are made.
    pub path: String,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What a file is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A regular file with these bytes.
    Regular(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to there.
    Symlink(String),
    /// Another name of an earlier file.
    HardLink(String),
}

impl File {
    /// A regular file of root's.
    pub fn regular(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.to_owned(), mode, uid: 0, gid: 0, content: Content::Regular(bytes.into()) }
    }

    /// A directory of root's.
    pub fn directory(path: &str, mode: u32) -> Self {
        Self { path: path.to_owned(), mode, uid: 0, gid: 0, content: Content::Directory }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self { path: path.to_owned(), mode: 0o777, uid: 0, gid: 0, content: Content::Symlink(target.to_owned()) }
    }

    /// The same file of another user.
    #[must_use]
    pub fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }
}

/// Makes an image of one layer with these files and puts it into the store under a name. The same files and
/// configuration make the same image, which is then only looked up.
///
/// # Errors
/// As [`Store::pull`], but for the registry's.
pub fn single_layer(
    store: &Store,
    name: &Reference,
    files: &[File],
    config: &Config,
) -> Result<Image, ImageError> {
    let _ = (store, files, config);
    Err(ImageError::NotFound(format!("{name} can't be built yet")))
}
