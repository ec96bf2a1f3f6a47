//! A group below a container's that only tells processes apart, so that one exec's whole tree can be killed. It exists
//! in one hierarchy, that has no limits to divide: the unified one, or v1's freezer.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Pid, UnlinkatFlags, unlinkat};

use super::file::{self, Directory};
use super::hierarchy::Kind;
use super::process::{kill_by_switch, parse_pids};
use super::{Cgroup, CgroupPath, Controller, Result};

/// Rounds of a kill loop where there is no kill switch.
const KILL_ROUNDS: usize = 100;

/// A group that only tells processes apart. Dropping it closes descriptors only.
#[derive(Debug)]
pub struct Subgroup {
    directory: Directory,
    was_killed: AtomicBool,
}

/// Whether there are processes in a group besides who asks.
#[derive(Debug)]
pub(crate) struct Occupancy<'a> {
    group: &'a Subgroup,
    /// Of the unified hierarchy; v1 goes on telling for a while what was there when the file was opened.
    file: Option<OwnedFd>,
    /// What is listed if nobody else is there.
    unused: String,
}

impl Occupancy<'_> {
    /// As [`Subgroup::is_unused`], but for the process that asks.
    pub(crate) fn is_unused(&self) -> bool {
        let Some(file) = &self.file else {
            return self.group.lists(&self.unused);
        };
        // Longer than the longest line, so that another one is seen.
        let mut listed = [0; 24];
        let length = rustix::io::pread(file, &mut listed, 0);
        length.is_ok_and(|length| listed[..length] == *self.unused.as_bytes())
    }
}

impl Cgroup {
    /// Makes a group below this one, or takes the one that exists; `None` where no hierarchy is free of limits. It goes
    /// with [`Cgroup::delete`] at the latest.
    ///
    /// # Errors
    /// When the name is not usable or the kernel refuses.
    pub fn subgroup(&self, name: &str) -> Result<Option<Subgroup>> {
        match self.unified() {
            Some(parent) => self.subgroup_in(parent, name).map(Some),
            None => self.freezer_subgroup(name),
        }
    }

    /// The same in v1's freezer, whatever else there is; `None` without one.
    ///
    /// # Errors
    /// When the name is not usable or the kernel refuses.
    pub fn freezer_subgroup(&self, name: &str) -> Result<Option<Subgroup>> {
        let freezer = self.directory(Controller::Freezer);
        let freezer = freezer.filter(|directory| directory.hierarchy.kind == Kind::V1);
        freezer.map(|parent| self.subgroup_in(parent, name)).transpose()
    }

    fn subgroup_in(&self, parent: &Directory, name: &str) -> Result<Subgroup> {
        let path: CgroupPath = self.path.join(name)?;
        match mkdirat(parent.fd()?, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(parent.failed("make", name, errno)),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd =
            openat(parent.fd()?, name, flags, Mode::empty()).map_err(|e| parent.failed("open", name, e))?;
        Ok(Subgroup {
            directory: Directory::held(parent.hierarchy, path, fd),
            was_killed: AtomicBool::new(false),
        })
    }
}

impl Subgroup {
    /// Like [`Cgroup::begin_in`]: the directory for a child to begin in, if the group above has one.
    pub fn begin_in(&self) -> Option<BorrowedFd<'_>> {
        let hierarchy = self.directory.hierarchy;
        let free = hierarchy.kind == Kind::V2 && !hierarchy.controllers.contains(Controller::Memory);
        free.then(|| self.directory.fd().ok()).flatten()
    }

    /// The directory for a child to begin in, whatever it is charged there; `None` with v1.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn directory(&self) -> Result<Option<BorrowedFd<'_>>> {
        let is_unified = self.directory.hierarchy.kind == Kind::V2;
        is_unified.then(|| self.directory.fd()).transpose()
    }

    /// The directory, by which all that can be done with it is done.
    ///
    /// # Errors
    /// When it can't be opened.
    pub(crate) fn descriptor(&self) -> Result<BorrowedFd<'_>> {
        self.directory.fd()
    }

    /// Whether a process can be in it without using up what the container may have.
    pub(crate) fn charges_nothing(&self) -> bool {
        !self.directory.hierarchy.controllers.contains(Controller::Memory)
    }

    /// For who looks often whether a process is in it, and `is_within` it or not.
    ///
    /// # Errors
    /// When its file can't be opened.
    pub(crate) fn occupancy(&self, is_within: bool) -> Result<Occupancy<'_>> {
        let is_unified = self.directory.hierarchy.kind == Kind::V2;
        let file = is_unified.then(|| self.directory.open("cgroup.procs", OFlag::O_RDONLY));
        Ok(Occupancy {
            group: self,
            file: file.transpose()?,
            unused: if is_within {
                format!("{}\n", Pid::this())
            } else {
                String::new()
            },
        })
    }

    /// Whether it is as if just made: no process is in it, and none was killed by it. Linux (6.18, for one) goes on killing
    /// whoever begins in a group whose `cgroup.kill` was ever written to.
    pub fn is_unused(&self) -> bool {
        !self.was_killed.load(Ordering::Relaxed) && self.lists("")
    }

    fn lists(&self, processes: &str) -> bool {
        self.directory
            .read("cgroup.procs")
            .is_ok_and(|listed| listed == processes)
    }

    /// The file to which a process writes [`super::ENTER`] to enter, after it entered the group above.
    ///
    /// # Errors
    /// When the file can't be opened.
    pub fn entry_file(&self) -> Result<OwnedFd> {
        self.directory.open("cgroup.procs", OFlag::O_WRONLY)
    }

    /// Moves a process into it, with all its threads. What the process starts from then on is in it, too.
    ///
    /// # Errors
    /// When the kernel refuses, for instance because the process is gone (ESRCH).
    pub fn add_process(&self, pid: Pid) -> Result<()> {
        self.directory.write("cgroup.procs", &pid.to_string())
    }

    /// Kills every process in it with SIGKILL.
    ///
    /// # Errors
    /// When the processes can't be listed or signalled.
    pub fn kill(&self) -> Result<()> {
        self.was_killed.store(true, Ordering::Relaxed);
        if kill_by_switch(&self.directory)? {
            return Ok(());
        }
        self.kill_all_but(None)
    }

    /// Kills every process in it with SIGKILL but the one that asks. What begins new ones faster than they are killed is left.
    ///
    /// # Errors
    /// When the processes can't be listed.
    pub(crate) fn kill_others(&self) -> Result<()> {
        self.kill_all_but(Some(Pid::this()))
    }

    fn kill_all_but(&self, spared: Option<Pid>) -> Result<()> {
        for _ in 0..KILL_ROUNDS {
            let mut found = false;
            let listed = match self.directory.read("cgroup.procs") {
                Err(error) if error.is_gone() => break,
                other => other?,
            };
            for pid in parse_pids(&listed).filter(|pid| Some(*pid) != spared) {
                found = true;
                let _ = kill(pid, Signal::SIGKILL);
            }
            if !found {
                break;
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Removes it if no process is in it. Returns whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        let group = &self.directory;
        let removed = unlinkat(
            &group.hierarchy.root,
            group.path.as_str(),
            UnlinkatFlags::RemoveDir,
        );
        matches!(removed, Ok(()) | Err(Errno::ENOENT | Errno::ENODEV))
    }
}

/// Where processes are that belong to no pod, below a root of the unified hierarchy that is not the machine's: in a cgroup
/// namespace the root may have no process once controllers are passed on.
pub const OUTSIDE_PODS: &str = "berth-node";

/// Moves the calling process to the root of every hierarchy, or in a cgroup namespace to [`OUTSIDE_PODS`], so that the group
/// that it was in can be removed.
///
/// # Errors
/// When no hierarchy is mounted or the kernel refuses.
pub fn leave_all() -> Result<()> {
    for hierarchy in &super::Hierarchies::get()?.all {
        let enter = |file: &str| {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            openat(&hierarchy.root, file, flags, Mode::empty())
                .and_then(|procs| file::write_once(procs.as_fd(), super::ENTER))
        };
        let entered = match enter("cgroup.procs") {
            Err(Errno::EBUSY) if hierarchy.kind == Kind::V2 => {
                // It is there, or can't be entered either.
                let _ = mkdirat(&hierarchy.root, OUTSIDE_PODS, Mode::from_bits_truncate(0o755));
                enter(&format!("{OUTSIDE_PODS}/cgroup.procs"))
            }
            entered => entered,
        };
        entered.map_err(|errno| super::CgroupError::File {
            action: "enter",
            file: "cgroup.procs".to_owned(),
            path: "/".to_owned(),
            hierarchy: hierarchy.to_string(),
            errno,
        })?;
    }
    Ok(())
}
