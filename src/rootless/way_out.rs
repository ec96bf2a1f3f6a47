//! Into a group below the node's, and out of the node's in the end: a group is removed by who is not in it, and from inside
//! of its cgroup namespace only files that were opened before lead out.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use berth_cri::cgroups::OUTSIDE_PODS;
use rustix::fs::{AtFlags, unlinkat};

use super::groups::{CALLERS, ROOT, below_root};

/// Leaves the root of the node's groups, which is to pass controllers on, for a group below it.
pub(super) fn step_aside(path: &str) -> io::Result<()> {
    let aside = below_root(path).join(OUTSIDE_PODS);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(aside.join("cgroup.procs"), "0")
}

/// The file that leads to the group of who called, to be opened before there is a cgroup namespace.
pub(super) fn door(path: &str) -> io::Result<File> {
    let above = below_root(path);
    let above = above.parent().unwrap_or_else(|| Path::new(ROOT));
    File::options()
        .write(true)
        .open(above.join(CALLERS).join("cgroup.procs"))
}

/// The way out of a group that was made in the user's own.
pub(super) struct WayOut {
    /// See [`door`].
    door: File,
    /// The directory that the node's group is in.
    above: File,
    name: String,
}

impl WayOut {
    /// `door` is standard error: that is how it got here. To be called while the machine's groups are still to be seen.
    pub(super) fn behind_standard_error(path: &str) -> io::Result<Self> {
        let node = below_root(path);
        let (Some(above), Some(name)) = (node.parent(), node.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Self {
            door: File::from(io::stderr().as_fd().try_clone_to_owned()?),
            above: File::open(above)?,
            name: name.to_string_lossy().into_owned(),
        })
    }

    /// Leaves the node's group and removes it. What can't be removed is there for the next keeper.
    pub(super) fn take(mut self) {
        if self.door.write_all(b"0").is_ok() {
            remove_below(Path::new(ROOT));
            let _ = unlinkat(&self.above, self.name.as_str(), AtFlags::REMOVEDIR);
        }
    }
}

/// Removes groups that nobody is in.
pub(super) fn remove_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
