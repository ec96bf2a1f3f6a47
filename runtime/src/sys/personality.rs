//! personality(2).

use std::io;

/// Sets the process's execution domain.
pub(crate) fn set_personality(domain: u32) -> io::Result<()> {
    // SAFETY: takes an integer and changes attributes of this process only.
    match unsafe { libc::personality(libc::c_ulong::from(domain)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
