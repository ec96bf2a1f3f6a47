//! What images and containers take on disk.
//!
//! The layers of images never change, so that each is looked through once; the writable layers of containers do.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{Inner, UnixNanos, lock, now, tree};
use crate::engine::EngineError;
use crate::types::{FilesystemUsage, ImageFsInfo};

/// What a directory with everything below it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes on disk.
    pub(super) bytes: u64,
    /// Inodes; a file with several names is one.
    pub(super) inodes: u64,
}

impl Usage {
    fn add(&mut self, other: Usage) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
    }
}

/// What each layer takes, by the name of its directory.
#[derive(Default)]
pub(super) struct Layers(Mutex<HashMap<OsString, Usage>>);

impl Layers {
    /// The sum over the layers that are in `directory` now.
    fn sum(&self, directory: &Path) -> io::Result<Usage> {
        let mut known = HashMap::new();
        for entry in entries(directory)? {
            let name = entry?.file_name();
            let before = lock(&self.0).get(&name).copied();
            let usage = match before {
                Some(usage) => usage,
                None => of(&directory.join(&name))?,
            };
            known.insert(name, usage);
        }
        let mut sum = Usage::default();
        known.values().for_each(|usage| sum.add(*usage));
        *lock(&self.0) = known;
        Ok(sum)
    }
}

/// What `path` and everything below it takes. What goes away meanwhile takes nothing; links are not followed, also not
/// those that a container makes while its layer is looked through.
pub(super) fn of(path: &Path) -> io::Result<Usage> {
    match tree::walk(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Usage::default()),
        other => other,
    }
}

/// Bytes on disk that a directory takes with everything below it on the same file system; 0 if it is not there. A file with
/// several names counts once, and links are not followed, also not those that a container makes meanwhile. Blocking.
///
/// # Errors
/// The file system refuses.
pub fn disk_usage(directory: &Path) -> io::Result<u64> {
    of(directory).map(|usage| usage.bytes)
}

/// The entries of a directory; none if it is not there.
fn entries(directory: &Path) -> io::Result<Vec<io::Result<fs::DirEntry>>> {
    match fs::read_dir(directory) {
        Ok(found) => Ok(found.collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What images take, and what the writable layers of all containers take. Blocking.
pub(super) fn image_fs(inner: &Inner) -> Result<ImageFsInfo, EngineError> {
    let timestamp = now();
    let images = inner.images.root().to_owned();
    let sandboxes = inner.config.lib_dir.join("sandboxes");
    let looked = |path: &Path, usage: io::Result<Usage>| {
        usage.map_err(|error| {
            EngineError::Unavailable(format!(
                "What {} takes on disk can't be found out: {error}.",
                path.display()
            ))
        })
    };
    let mut image_usage = looked(&images, inner.layers.sum(&images.join("snapshots")))?;
    let blobs = images.join("blobs");
    image_usage.add(looked(&blobs, of(&blobs))?);
    let container_usage = looked(&sandboxes, of(&sandboxes))?;
    Ok(ImageFsInfo {
        images: filesystem(timestamp, images, image_usage),
        containers: filesystem(timestamp, sandboxes, container_usage),
    })
}

fn filesystem(timestamp: UnixNanos, mountpoint: PathBuf, usage: Usage) -> FilesystemUsage {
    FilesystemUsage {
        timestamp,
        mountpoint,
        used_bytes: usage.bytes,
        inodes_used: usage.inodes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, bytes: usize) {
        fs::write(path, vec![7; bytes]).expect("writing a file");
    }

    #[test]
    fn a_tree_takes_what_its_inodes_take_and_links_nothing_more() {
        let root = tempfile::tempdir().expect("a directory");
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("below")).expect("directories");
        written(&tree.join("below/file"), 100_000);
        let without = of(&tree).expect("looking");
        assert_eq!(without.inodes, 3);
        assert!(without.bytes >= 100_000, "{without:?}");
        fs::hard_link(tree.join("below/file"), tree.join("name")).expect("a hard link");
        assert_eq!(of(&tree).expect("looking"), without);
        written(&root.path().join("outside"), 100_000);
        std::os::unix::fs::symlink("../outside", tree.join("link")).expect("a link");
        let with_link = of(&tree).expect("looking");
        assert_eq!(with_link.inodes, 4);
        assert!(with_link.bytes < without.bytes + 100_000, "{with_link:?}");
        assert_eq!(
            of(&root.path().join("absent")).expect("looking"),
            Usage::default()
        );
    }

    #[test]
    fn a_layer_that_went_is_counted_no_more() {
        let root = tempfile::tempdir().expect("a directory");
        for layer in ["one", "two"] {
            fs::create_dir(root.path().join(layer)).expect("a directory");
            written(&root.path().join(layer).join("file"), 50_000);
        }
        let layers = Layers::default();
        let both = layers.sum(root.path()).expect("looking");
        assert_eq!(both.inodes, 4);
        fs::remove_dir_all(root.path().join("one")).expect("removing");
        let one = layers.sum(root.path()).expect("looking");
        assert_eq!((one.inodes, one.bytes * 2), (2, both.bytes));
    }
}
