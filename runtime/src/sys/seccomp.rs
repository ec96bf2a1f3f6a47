//! seccomp(2).

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use crate::seccomp::Instruction;

/// Installs a filter for the calling thread; `listener` says that the flags ask for one.
pub(crate) fn install(program: &[Instruction], flags: u32, listener: bool) -> Result<Option<OwnedFd>, Errno> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        // `Instruction` has the layout of `sock_filter`; the kernel only reads it, in spite of the type.
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: `filter` points to `len` instructions that live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            std::ptr::from_ref(&filter),
        )
    };
    let result = Errno::result(result)?;
    if !listener {
        // With TSYNC, a thread that could not be synchronised.
        return if result == 0 { Ok(None) } else { Err(Errno::ESRCH) };
    }
    let fd = libc::c_int::try_from(result).map_err(|_| Errno::EBADF)?;
    // SAFETY: with this flag the kernel returns a descriptor that it made for the caller.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Whether the kernel knows all these flags: it looks at them before it looks for a filter, of which there is none here.
pub(crate) fn has_flags(flags: u32) -> bool {
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel fails to read a filter from the null pointer, and changes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::c_ulong::from(flags),
            none,
        )
    };
    Errno::result(result) == Err(Errno::EFAULT)
}
