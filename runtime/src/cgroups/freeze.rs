//! Stopping and resuming all of a group's processes at once.

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::uio::pread;

use super::file::{Directory, keyed_number};
use super::{Cgroup, CgroupError, Controller, Result};

/// How long a group may take to freeze; a process in uninterruptible sleep can delay it without bound.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks at whether somebody thaws the group meanwhile, of which the kernel tells nobody.
const THAWED_INTERVAL: Duration = Duration::from_millis(20);
/// Between two looks at v1's `freezer.state`, which notifies nobody.
const V1_INTERVAL: Duration = Duration::from_millis(1);

impl Cgroup {
    /// Freezes all processes of the group and below it; returns when they are frozen.
    ///
    /// The unified hierarchy is preferred, because processes that it froze can still be killed.
    ///
    /// # Errors
    /// When there is no freezer, or the group is not frozen after ten seconds (it is thawed again then);
    /// [`CgroupError::Thawed`] when somebody else thawed it before it was frozen.
    pub fn freeze(&self) -> Result<()> {
        let frozen = match self.unified_freezer() {
            Some(unified) => freeze_unified(unified),
            None => freeze_v1(self.need(Controller::Freezer, "the frozen state")?),
        };
        if matches!(frozen, Err(CgroupError::Timeout { .. })) {
            let _ = self.thaw();
        }
        frozen
    }

    /// Resumes all processes of the group; those of groups below that were frozen on their own stay frozen. In a group
    /// that was removed meanwhile there is nobody left to resume.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        match self.unified_freezer() {
            Some(unified) => unified.write_unless_gone("cgroup.freeze", "0"),
            None => self.thaw_v1(),
        }
    }

    /// Whether the group is frozen, or about to be. One that was removed is not.
    ///
    /// # Errors
    /// When the state can't be read.
    pub fn is_frozen(&self) -> Result<bool> {
        match (self.unified_freezer(), self.directory(Controller::Freezer)) {
            (Some(unified), _) => {
                Ok(read_or_gone(unified, "cgroup.freeze")?.is_some_and(|s| s.trim() == "1"))
            }
            (None, Some(v1)) => is_frozen_v1(v1),
            (None, None) => Ok(false),
        }
    }

    /// Where the directory with the freezer's file is mounted on this host.
    pub fn freezer_path(&self) -> Option<PathBuf> {
        let directory = self
            .unified_freezer()
            .or_else(|| self.directory(Controller::Freezer))?;
        std::fs::read_link(format!("/proc/self/fd/{}", directory.fd().ok()?.as_raw_fd())).ok()
    }

    /// Frozen by whoever used either freezer: on a hybrid host there are two.
    pub(super) fn is_frozen_anywhere(&self) -> Result<bool> {
        let v1 = match self.directory(Controller::Freezer) {
            Some(v1) => is_frozen_v1(v1)?,
            None => false,
        };
        Ok(v1 || self.is_frozen()?)
    }

    pub(super) fn thaw_v1(&self) -> Result<()> {
        match self.directory(Controller::Freezer) {
            Some(freezer) => freezer.write_unless_gone("freezer.state", "THAWED"),
            None => Ok(()),
        }
    }

    /// The unified directory, if its kernel can freeze (Linux 5.2).
    fn unified_freezer(&self) -> Option<&Directory> {
        self.unified().filter(|d| d.has("cgroup.freeze"))
    }
}

fn is_frozen_v1(freezer: &Directory) -> Result<bool> {
    Ok(read_or_gone(freezer, "freezer.state")?.is_some_and(|s| s.trim() != "THAWED"))
}

/// A file of a group that may have been removed.
fn read_or_gone(group: &Directory, file: &str) -> Result<Option<String>> {
    match group.read(file) {
        Err(error) if error.is_gone() => Ok(None),
        other => other.map(Some),
    }
}

/// Told once only: who thaws the group meanwhile came later.
fn freeze_unified(unified: &Directory) -> Result<()> {
    unified.write("cgroup.freeze", "1")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match wait_for_event(unified, "frozen", 1, THAWED_INTERVAL) {
            Err(CgroupError::Timeout { .. }) if Instant::now() < deadline => {}
            Err(CgroupError::Timeout { .. }) => return Err(timeout(unified, "frozen", PATIENCE)),
            other => return other,
        }
        if read_or_gone(unified, "cgroup.freeze")?.is_some_and(|state| state.trim() == "0") {
            return Err(CgroupError::Thawed {
                path: unified.path.to_string(),
            });
        }
    }
}

/// A fork may outrun v1's freezer, which then stays in FREEZING until it is told once more.
fn freeze_v1(freezer: &Directory) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        freezer.write("freezer.state", "FROZEN")?;
        if freezer.read("freezer.state")?.trim() == "FROZEN" {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(timeout(freezer, "frozen", PATIENCE));
        }
        std::thread::sleep(V1_INTERVAL);
    }
}

/// Sleeps until a key of `cgroup.events` has the wanted value; the kernel wakes us at each change.
pub(super) fn wait_for_event(
    group: &Directory,
    key: &'static str,
    wanted: u64,
    patience: Duration,
) -> Result<()> {
    let deadline = Instant::now() + patience;
    let events = group.open("cgroup.events", OFlag::O_RDONLY)?;
    let mut buffer = [0_u8; 256];
    loop {
        let n = match pread(&events, &mut buffer, 0) {
            Ok(n) => n,
            // The group is gone, and its processes with it.
            Err(Errno::ENODEV) => return Ok(()),
            Err(errno) => return Err(group.failed("read", "cgroup.events", errno)),
        };
        if keyed_number(&String::from_utf8_lossy(&buffer[..n]), key) == Some(wanted) {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(timeout(
                group,
                if key == "frozen" { "frozen" } else { "empty" },
                patience,
            ));
        }
        let mut fds = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
    }
}

pub(super) fn timeout(group: &Directory, state: &'static str, waited: Duration) -> CgroupError {
    CgroupError::Timeout {
        path: group.path.to_string(),
        state,
        waited,
    }
}
