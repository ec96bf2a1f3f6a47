//! Where a container's root file system comes from.

use std::path::PathBuf;

/// A container's root file system. Nothing of it becomes visible outside of the container's mount namespace.
#[derive(Clone, Debug)]
pub enum Rootfs {
    /// A directory, with what is mounted below it. Relative to the bundle.
    Path(PathBuf),
    /// An overlay of directories.
    Overlay {
        /// Read-only layers, the topmost first. At least one.
        lower: Vec<PathBuf>,
        /// The writable layer; `None` makes the root read-only whatever the spec says.
        upper: Option<PathBuf>,
        /// overlayfs's work directory, on the same file system as `upper`.
        work: Option<PathBuf>,
    },
}
