//! Going on in a copy of this process, for a program that detaches from its starter.

use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::{self, CloneArgs};

/// Runs `child` in a copy of this process, which ends with the exit code that it returns. The caller must be
/// single-threaded. The copy begins with default signal handlers, and in the cgroup v2 directory that is given; the
/// caller reaps it, or leaves that to init.
///
/// # Errors
/// As clone3(2) says.
pub fn run_in_copy(cgroup: Option<BorrowedFd<'_>>, child: impl FnOnce() -> i32) -> io::Result<()> {
    sys::spawn(CloneArgs { flags: 0, cgroup }, child).map(drop)
}
