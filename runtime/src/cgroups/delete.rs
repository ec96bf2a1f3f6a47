//! Removing a group and everything below it.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::error::unless_gone;
use super::file::Directory;
use super::freeze::{timeout, wait_for_event};
use super::hierarchy::Kind;
use super::process::walk;
use super::{Cgroup, Result};

/// How long processes that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);
/// v1 tells nobody when a group becomes empty: pauses between attempts, growing from the first to the second.
const FIRST_PAUSE: Duration = Duration::from_micros(500);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

impl Cgroup {
    /// Kills what is left in the group, and [deletes](Self::delete) it. Where nothing is left, as at the end of a
    /// container with a PID namespace of its own, this is a removal of directories and nothing else.
    ///
    /// # Errors
    /// As [`Cgroup::kill_all`] and [`Cgroup::delete`].
    pub fn destroy(&self) -> Result<()> {
        // The kernel refuses to remove a group with processes, or with groups, in it. The hierarchy that is asked is
        // the one by which processes are found.
        let removed = self.tracking().filter(|group| remove(group).is_ok());
        if removed.is_none() {
            self.kill_all()?;
        }
        self.delete_but(removed)
    }

    /// Removes the group, with all groups that were made below it, from every hierarchy. Waits for processes that are
    /// on their way out; it does not kill any. A group that is gone already is no error.
    ///
    /// # Errors
    /// When processes are still there after ten seconds, or the kernel refuses.
    pub fn delete(&self) -> Result<()> {
        self.delete_but(None)
    }

    /// Removes the group from every hierarchy in which nothing is in it, neither a process nor a group. Returns whether it
    /// is gone from all of them.
    pub fn remove_if_empty(&self) -> bool {
        let mut gone = true;
        for group in &self.directories {
            gone &= matches!(remove(group), Ok(()) | Err(Errno::ENOENT));
        }
        gone
    }

    /// Leaves out the directory that is gone already.
    fn delete_but(&self, gone: Option<&Directory>) -> Result<()> {
        // The unified directory comes first: it tells when the processes are gone, so that the others need no retry.
        let mut rest = self
            .directories
            .iter()
            .filter(|directory| !gone.is_some_and(|gone| std::ptr::eq(*directory, gone)));
        rest.try_for_each(delete_in)
    }
}

fn delete_in(group: &Directory) -> Result<()> {
    let mut pause = FIRST_PAUSE;
    let mut began = None;
    loop {
        match remove(group) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(group.failed("remove", "the directory", errno)),
        }
        let deadline = *began.get_or_insert_with(Instant::now) + PATIENCE;
        remove_below(group)?;
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timeout(group, "empty", PATIENCE));
        }
        if group.hierarchy.kind == Kind::V2 {
            wait_for_event(group, "populated", 0, left)?;
        }
        match remove(group) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(_) => std::thread::sleep(pause.min(left)),
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Removes the groups below, children first. Those that are still populated are left for the next attempt.
fn remove_below(group: &Directory) -> Result<()> {
    let result = walk(group, &mut |child| {
        if child.path != group.path {
            let _ = remove(child);
        }
        Ok(())
    });
    // The group itself may vanish while it is listed.
    unless_gone(result)
}

fn remove(group: &Directory) -> std::result::Result<(), Errno> {
    unlinkat(
        &group.hierarchy.root,
        group.path.as_str(),
        UnlinkatFlags::RemoveDir,
    )
}
