//! Going on in a copy of this process: for a program that detaches from its starter, and for one that starts others.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cgroups::{ENTER, Subgroup};
use crate::process::reset_signals;
use crate::spawn::kill_and_reap;
use crate::sys::{self, CloneArgs, Spawned};

/// Runs `child` in a copy of this process, which ends with the exit code that it returns. The caller must be
/// single-threaded. The copy begins with default signal handlers, and in the cgroup v2 directory that is given; the
/// caller reaps it, or leaves that to init.
///
/// # Errors
/// As clone3(2) says.
pub fn run_in_copy(cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> io::Result<()> {
    sys::spawn(CloneArgs { flags: 0, cgroup }, child).map(drop)
}

/// Starts a program as a child of this process, in a group where what it starts is found again, and returns when it runs.
/// Other than with [`Command::spawn`] no signal is blocked or ignored for it, whatever this process has blocked. The caller
/// must be single-threaded.
///
/// # Errors
/// When the program can't be executed, or the kernel refuses; there is no child then.
pub fn start_program(command: &mut Command, group: Option<&Subgroup>) -> io::Result<Pid> {
    start(command, group).map(|child| child.pid)
}

/// As [`start_program`], and hands the child out.
pub(crate) fn start(command: &mut Command, group: Option<&Subgroup>) -> io::Result<Spawned> {
    let begin_in = group.and_then(Subgroup::begin_in);
    let entry = match group {
        Some(group) if begin_in.is_none() => Some(group.entry_file().map_err(io::Error::other)?),
        _ => None,
    };
    let (report, theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let flags = CloneArgs {
        flags: 0,
        cgroup: begin_in,
    };
    let child = || {
        let error = execute(command, entry.as_ref());
        let number = error.raw_os_error().unwrap_or(libc::EIO);
        let _ = rustix::io::write(&theirs, &number.to_ne_bytes());
        127
    };
    let spawned = sys::spawn(flags, child)?;
    drop(theirs);
    let mut number = [0; 4];
    // The end comes with the exec, which closes the child's side.
    match File::from(report).read_exact(&mut number) {
        Err(_) => Ok(spawned),
        Ok(()) => {
            kill_and_reap(&spawned);
            Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
        }
    }
}

/// Becomes the program; returns why not.
fn execute(command: &mut Command, entry: Option<&OwnedFd>) -> io::Error {
    if let Some(entry) = entry
        && let Err(errno) = rustix::io::write(entry.as_fd(), ENTER)
    {
        return errno.into();
    }
    reset_signals();
    command.exec()
}
