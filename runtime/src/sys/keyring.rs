//! keyctl(2).

use std::ffi::CStr;
use std::io;

/// `KEYCTL_JOIN_SESSION_KEYRING` of keyctl(2).
const JOIN_SESSION_KEYRING: libc::c_int = 1;

/// Gives the process a new session keyring of that name, so that it does not share its creator's.
pub(crate) fn join_session_keyring(name: &CStr) -> io::Result<()> {
    // SAFETY: the name is a C string that the kernel only reads.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, name.as_ptr()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
