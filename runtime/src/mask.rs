//! Paths that a container must not see, or must not write.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;

use crate::Result;
use crate::devices::open_null;
use crate::error::Doing;
use crate::mount::{attach_to, clone_tree, empty_directory, is_directory, open_inside};
use crate::sys::{MountAttr, mount_setattr};

/// Covers files with the null device and directories with an empty one, which gets the label. Paths that don't exist
/// need no cover, and one that is listed twice needs no second.
pub(crate) fn mask(root: impl AsFd, paths: &[String], label: &str) -> Result<()> {
    let mut null = None;
    let mut empty = None;
    let mut covered = BTreeSet::new();
    for path in paths.iter().filter(|path| covered.insert(path.as_str())) {
        let doing = || format!("mask {path}");
        let Some(place) = find(&root, path)? else { continue };
        if is_directory(&place).doing(doing)? {
            cover_directory(&place, &mut empty, label).doing(doing)?;
        } else {
            let null = match &mut null {
                Some(null) => null,
                None => null.insert(open_null(&root)?),
            };
            attach_to(clone_tree(null, Path::new(""), false).doing(doing)?, &place).doing(doing)?;
        }
    }
    Ok(())
}

/// The first directory is covered with a new file system, the others with copies of its mount.
fn cover_directory(place: &OwnedFd, empty: &mut Option<OwnedFd>, label: &str) -> rustix::io::Result<()> {
    if let Some(empty) = empty {
        return attach_to(clone_tree(empty, Path::new(""), false)?, place);
    }
    let cover = empty_directory(label)?;
    attach_to(&cover, place)?;
    *empty = Some(cover);
    Ok(())
}

/// Makes what is mounted at the paths read-only, with all below it.
pub(crate) fn make_read_only(root: impl AsFd, paths: &[String]) -> Result<()> {
    for path in paths {
        let doing = || format!("make {path} read-only");
        let Some(place) = find(&root, path)? else { continue };
        let tree = clone_tree(&place, Path::new(""), true).doing(doing)?;
        let attr = MountAttr {
            set: libc::MOUNT_ATTR_RDONLY,
            ..MountAttr::default()
        };
        mount_setattr(&tree, true, attr).doing(doing)?;
        attach_to(&tree, &place).doing(doing)?;
    }
    Ok(())
}

fn find(root: &impl AsFd, path: &str) -> Result<Option<OwnedFd>> {
    match open_inside(root, Path::new(path)) {
        Ok(place) => Ok(Some(place)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).doing(|| format!("open {path} in the container's root")),
    }
}
