//! Into a group below the node's, and out of the node's in the end: a group is removed by who is not in it, and from inside
//! of its cgroup namespace only files that were opened before lead out.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use berth_cri::cgroups::OUTSIDE_PODS;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, unlinkat};

use super::groups::{CALLERS, ROOT, below_root};

/// How long processes may take to end that have closed their files, or were killed.
const PATIENCE: Duration = Duration::from_secs(5);

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
            // Commands are in it too, and a process that ends closes its connection before it leaves its group.
            let _ = remove(Path::new(ROOT), || {
                Ok(unlinkat(&self.above, self.name.as_str(), AtFlags::REMOVEDIR)?)
            });
        }
    }
}

/// Removes a group, the last step by `itself`, and those below it, once all that is in them has ended.
///
/// # Errors
/// Somebody is in it for longer than ending takes, or it is not the user's.
pub(super) fn remove(directory: &Path, itself: impl Fn() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    match File::open(directory.join("cgroup.events")) {
        Ok(mut events) => wait_until_empty(&mut events, deadline)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    remove_below(directory);
    match itself() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns when a group and those below it have no process any more, which its `cgroup.events` tells.
fn wait_until_empty(events: &mut File, deadline: Instant) -> io::Result<()> {
    loop {
        let mut text = String::new();
        events.rewind()?;
        events.read_to_string(&mut text)?;
        if text.lines().any(|line| line == "populated 0") {
            return Ok(());
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let patience = Timespec::try_from(remaining).map_err(io::Error::other)?;
        // Whatever comes of it, what the file says is looked at again.
        match poll(&mut [PollFd::new(events, PollFlags::PRI)], Some(&patience)) {
            Err(rustix::io::Errno::INTR) => {}
            polled => drop(polled?),
        }
    }
}

/// Removes groups that nobody is in.
fn remove_below(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&entry.path());
            let _ = fs::remove_dir(entry.path());
        }
    }
}
