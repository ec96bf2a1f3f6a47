//! Signals by number, the real-time ones included, which have no names in the crates.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends a signal to a process.
///
/// # Errors
/// As pidfd_send_signal(2) says: EINVAL for a number that is no signal's, ESRCH for a process that was reaped.
pub fn send_signal(process: BorrowedFd<'_>, number: i32) -> io::Result<()> {
    let none: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: the descriptor is open for the duration of the call, and without a siginfo the kernel reads no memory.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), number, none, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
