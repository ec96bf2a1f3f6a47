//! Processes in, out, and listed.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use super::error::unless_gone;
use super::file::{self, Directory};
use super::hierarchy::Kind;
use super::{Cgroup, CgroupError, Controller, Result};

/// What a process writes to each of [`Cgroup::entry_files`] to enter the group itself.
pub const ENTER: &[u8] = b"0";

/// Rounds of a kill loop where there is no kill switch: processes may fork between listing and killing.
const KILL_ROUNDS: usize = 100;

impl Cgroup {
    /// Files to which a process writes [`ENTER`] to enter, for a child that has no paths and does no allocation.
    /// The permission to enter is that of the opener, so the child may have given up its privileges by then.
    ///
    /// On v1 these are `tasks` files, which move the one thread that writes: a thread that moves itself needs no lock
    /// on its thread group, which spares the wait for an RCU grace period that `cgroup.procs` costs. The writer must
    /// therefore be single-threaded, as a process between fork and exec is.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn entry_files(&self) -> Result<Vec<OwnedFd>> {
        self.directories
            .iter()
            .map(|d| d.open(entry_name(d), OFlag::O_WRONLY))
            .collect()
    }

    /// The directory for a child to begin in (`CLONE_INTO_CGROUP`) where it is charged nothing there: on hybrid hosts
    /// the unified hierarchy has no memory controller, and entering it later waits for an RCU grace period, which
    /// takes milliseconds. `None` elsewhere.
    pub fn begin_in(&self) -> Option<BorrowedFd<'_>> {
        let unified = self.unified()?;
        let charged = unified.hierarchy.controllers.contains(Controller::Memory);
        (!charged).then(|| unified.fd().ok()).flatten()
    }

    /// [`Cgroup::entry_files`] without that of the hierarchy that a process already [began](Self::begin_in) in.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn remaining_entry_files(&self) -> Result<Vec<OwnedFd>> {
        let began = self.begin_in().is_some();
        self.directories
            .iter()
            .filter(|d| !(began && d.hierarchy.kind == Kind::V2))
            .map(|d| d.open(entry_name(d), OFlag::O_WRONLY))
            .collect()
    }

    /// [`Cgroup::entry_files`] of v1's hierarchies alone.
    ///
    /// # Errors
    /// When a file can't be opened.
    pub fn v1_entry_files(&self) -> Result<Vec<OwnedFd>> {
        let v1 = self.directories.iter().filter(|d| d.hierarchy.kind == Kind::V1);
        v1.map(|d| d.open(entry_name(d), OFlag::O_WRONLY)).collect()
    }

    /// Moves a process, with all its threads, into the group.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the process is gone (ESRCH).
    pub fn add_process(&self, pid: Pid) -> Result<()> {
        let pid = pid.to_string();
        self.directories
            .iter()
            .try_for_each(|d| d.write("cgroup.procs", &pid))
    }

    /// The processes in the group and in all groups below it, in no order, as this PID namespace numbers them.
    ///
    /// # Errors
    /// When a file can't be read.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        let mut pids = Vec::new();
        let Some(directory) = self.tracking() else {
            return Ok(pids);
        };
        let listed = walk(directory, &mut |group| {
            // A threaded group refuses (EOPNOTSUPP): its processes are listed further up.
            let text = match group.read_if_present("cgroup.procs") {
                Err(CgroupError::File {
                    errno: Errno::EOPNOTSUPP,
                    ..
                }) => None,
                other => other?,
            };
            pids.extend(parse_pids(&text.unwrap_or_default()));
            Ok(())
        });
        unless_gone(listed)?;
        Ok(pids)
    }

    /// Kills every process in the group and below it with SIGKILL, frozen ones too. Returns when all are signalled;
    /// [`Cgroup::delete`] waits for their end.
    ///
    /// With the unified hierarchy this is one write to `cgroup.kill` (Linux 5.14), which no fork can outrun. Without
    /// it, the group is frozen, killed and thawed, or killed in rounds until a round finds nobody.
    ///
    /// # Errors
    /// When the processes can't be listed or signalled, or go on forking faster than they are killed.
    pub fn kill_all(&self) -> Result<()> {
        match self.unified() {
            // Processes that the v1 freezer holds would not notice.
            Some(unified) if kill_by_switch(unified)? => self.thaw_v1(),
            _ => self.kill_in_rounds(),
        }
    }

    fn kill_in_rounds(&self) -> Result<()> {
        for _ in 0..KILL_ROUNDS {
            if self.pids()?.is_empty() {
                return self.thaw();
            }
            // Best effort: where freezing works, nobody forks between listing and killing.
            let _ = self.freeze();
            for pid in self.pids()? {
                let _ = kill(pid, Signal::SIGKILL);
            }
            self.thaw()?;
            std::thread::yield_now();
        }
        Ok(())
    }

    /// The directory by which processes are listed: the unified one, or a v1 hierarchy that containers never mount.
    pub(super) fn tracking(&self) -> Option<&Directory> {
        self.unified()
            .or_else(|| self.directory(Controller::Devices))
            .or_else(|| self.directory(Controller::Memory))
            .or_else(|| self.directories.first())
    }
}

fn entry_name(directory: &Directory) -> &'static str {
    if directory.hierarchy.kind == Kind::V2 {
        "cgroup.procs"
    } else {
        "tasks"
    }
}

pub(super) fn parse_pids(text: &str) -> impl Iterator<Item = Pid> {
    // 0 stands for a process outside of this PID namespace.
    text.lines()
        .filter_map(|line| line.parse().ok())
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
}

/// Kills everybody in the group and below it; `false` where there is no kill switch (before Linux 5.14), or where there
/// is no group any more.
pub(super) fn kill_by_switch(group: &Directory) -> Result<bool> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let killed = openat(group.fd()?, "cgroup.kill", flags, Mode::empty())
        .and_then(|switch| file::write_once(switch.as_fd(), b"1"));
    match killed {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
        Err(errno) => Err(group.refused("cgroup.kill", "1", errno)),
    }
}

/// Calls `visit` for the group and every group below it, children first.
pub(super) fn walk(group: &Directory, visit: &mut dyn FnMut(&Directory) -> Result<()>) -> Result<()> {
    for name in children(group)? {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = match openat(group.fd()?, name.as_str(), flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(group.failed("open", &name, errno)),
        };
        // The name came from the kernel and is the last component of a path that is valid already.
        let Ok(path) = group.path.join(&name) else {
            continue;
        };
        walk(&Directory::held(group.hierarchy, path, fd), visit)?;
    }
    visit(group)
}

/// Names of the groups directly below.
pub(super) fn children(group: &Directory) -> Result<Vec<String>> {
    let listing = Dir::openat(
        group.fd()?,
        ".",
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    );
    let mut names = Vec::new();
    for entry in listing
        .map_err(|e| group.failed("list", "the directory", e))?
        .iter()
    {
        let Ok(entry) = entry else { break };
        let name = entry.file_name().to_string_lossy();
        if entry.file_type() == Some(Type::Directory) && name != "." && name != ".." {
            names.push(name.into_owned());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_pids_are_left_out() {
        assert_eq!(
            parse_pids("12\n0\n7\n").collect::<Vec<_>>(),
            [Pid::from_raw(12), Pid::from_raw(7)]
        );
    }
}
