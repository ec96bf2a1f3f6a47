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

impl CloneArgs<'_> {
    /// For the kernel, which will store the descriptor of the child if it is given a place.
    fn raw(&self, pidfd: Option<&mut RawFd>) -> libc::clone_args {
        // SAFETY: clone_args is a C struct of integers, for which zero is a valid value.
        let mut raw: libc::clone_args = unsafe { std::mem::zeroed() };
        raw.flags = self.flags | CLEAR_SIGHAND;
        if let Some(pidfd) = pidfd {
            raw.flags |= libc::CLONE_PIDFD as u64;
            raw.pidfd = std::ptr::from_mut(pidfd) as u64;
        }
        if self.flags & libc::CLONE_PARENT as u64 == 0 {
            raw.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(cgroup) = self.cgroup {
            raw.flags |= INTO_CGROUP;
            raw.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
        }
        raw
    }
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
    let raw = args.raw(Some(&mut pidfd));
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

/// Whether [`spawn_within`] is there for this processor.
pub(crate) const CAN_SPAWN_WITHIN: bool = cfg!(target_arch = "x86_64");

/// As much stack as a child of [`spawn_within`] has. There is no guard behind it: what runs on it must be of a depth that is known.
const STACK: usize = 512 << 10;

/// A stack for children of [`spawn_within`]. Only pages that are used exist.
#[derive(Debug)]
pub(crate) struct Stack(Vec<u8>);

impl Stack {
    /// One for all children, which come one after the other.
    pub(crate) fn new() -> Stack {
        Stack(vec![0; STACK])
    }
}

/// As [`spawn`], but the child uses this process's memory instead of a copy of it, as after vfork(2), and this process waits until
/// it has executed a program or ended. Nothing is copied, and nothing torn down again.
///
/// What `child` changes stays changed, and what it has not dropped by the time that it executes something is never dropped: it must
/// not add anything to what is there each time. Its descriptors, identity and namespaces are its own. The caller must be
/// single-threaded. A child that ends while it changes the heap ends this process, too. There is no descriptor of it: the kernel
/// makes a file for one.
///
/// # Errors
/// As clone3(2) says; ENOSYS where this is not there, see [`CAN_SPAWN_WITHIN`].
#[cfg(target_arch = "x86_64")]
pub(crate) fn spawn_within(
    args: CloneArgs<'_>,
    stack: &mut Stack,
    mut child: impl FnMut() -> i32,
) -> io::Result<Pid> {
    /// Runs on the child's stack.
    extern "C" fn run<F: FnMut() -> i32>(child: *mut F) -> ! {
        // SAFETY: it points to the closure of the caller, which waits until this process is gone from its memory.
        let child = unsafe { &mut *child };
        let code = catch_unwind(AssertUnwindSafe(child)).unwrap_or(255);
        // SAFETY: ends the process without running exit handlers, which belong to the parent.
        unsafe { libc::_exit(code) }
    }
    fn entry<F: FnMut() -> i32>(_: &F) -> extern "C" fn(*mut F) -> ! {
        run::<F>
    }
    let mut raw = args.raw(None);
    raw.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
    // The kernel has the stack begin at its end, which has to be a multiple of 16.
    let begin = stack.0.as_mut_ptr() as u64;
    raw.stack = begin.next_multiple_of(16);
    raw.stack_size = (begin + STACK as u64 - raw.stack) & !15;
    let entry = entry(&child);
    let pid: i64;
    // SAFETY: the parent sees a system call, which changes what the kernel's calling convention says (rax, rcx, r11) and memory:
    // what the child does with it while the parent waits. The child begins behind the call, on its own stack, with a copy of the
    // parent's registers, and calls `entry` with the pointer to the closure; it never comes back from there. The arguments are a
    // valid clone_args of the size given, whose stack is borrowed for as long as the child uses it. The two never run at the same
    // time.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => pid,
            in("rdi") &raw const raw,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") &raw mut child,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if !super::heap::is_whole() {
        // Nothing can be had of it any more, not even for a word about it.
        // SAFETY: ends the process without running anything else of it.
        unsafe { libc::_exit(255) }
    }
    match i32::try_from(pid) {
        Ok(pid @ 1..) => Ok(Pid::from_raw(pid)),
        Ok(errno) => Err(io::Error::from_raw_os_error(-errno)),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EOVERFLOW)),
    }
}

/// There is none for this processor.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn spawn_within(_: CloneArgs<'_>, _: &mut Stack, _: impl FnMut() -> i32) -> io::Result<Pid> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
