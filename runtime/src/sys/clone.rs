//! clone3(2) as a fork with namespaces.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::unistd::Pid;

/// How a child is made.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CloneArgs<'a> {
    /// `CLONE_NEW*`, `CLONE_PARENT` and `CLONE_VFORK`, with which this process goes on when the child executes a program or ends;
    /// nothing that shares memory.
    pub(crate) flags: u64,
    /// The cgroup v2 directory to begin in (`CLONE_INTO_CGROUP`).
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// A child of this process, or with `CLONE_PARENT` a sibling.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// As the caller's pid namespace numbers it.
    pub(crate) pid: Pid,
    /// The same as a descriptor, closed on exec.
    pub(crate) pidfd: OwnedFd,
}

/// `CLONE_CLEAR_SIGHAND`, which the libc crate has as an integer that is too small for it.
const CLEAR_SIGHAND: u64 = 1 << 32;
/// `CLONE_INTO_CGROUP`, for the same reason.
const INTO_CGROUP: u64 = 1 << 33;

/// clone(2) flags that a child may not be made with here: they share memory or replace arguments of this function.
const FORBIDDEN: u64 =
    (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND | libc::CLONE_SETTLS) as u64;

/// Runs `child` in a copy of this process, which ends with the exit code that it returns.
///
/// The caller must be single-threaded: a lock held by another thread, the allocator's for instance, would stay locked
/// in the child for ever.
///
/// # Errors
/// As clone3(2) says. EINVAL also for flags that share memory with the child.
pub(crate) fn spawn(args: CloneArgs<'_>, child: impl FnOnce() -> i32) -> io::Result<Spawned> {
    if args.flags & FORBIDDEN != 0 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a C struct of integers, for which zero is a valid value.
    let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
    raw.flags = args.flags | libc::CLONE_PIDFD as u64 | CLEAR_SIGHAND;
    raw.pidfd = &raw mut pidfd as u64;
    if args.flags & libc::CLONE_PARENT as u64 == 0 {
        raw.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = args.cgroup {
        raw.flags |= INTO_CGROUP;
        raw.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: without CLONE_VM this is a fork: the child has a copy of the memory and the same stack pointer. The
    // arguments are a valid clone_args of the size given, whose pidfd points to a live variable.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const raw, size_of::<libc::clone_args>()) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // A panic must not unwind into the copied frames of the caller, which would then run twice.
            let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(255);
            // SAFETY: ends the process without running exit handlers, which belong to the parent.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(Spawned {
            pid: Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX)),
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) },
        }),
    }
}
