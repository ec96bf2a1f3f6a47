//! sendmmsg(2): sendmsg(2) under another number.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends one message of two bytes with a descriptor. Allocates nothing.
pub(crate) fn sendmmsg_descriptor(
    socket: BorrowedFd<'_>,
    mut bytes: [u8; 2],
    descriptor: BorrowedFd<'_>,
) -> io::Result<()> {
    /// The size of a descriptor.
    const FD: u32 = libc::c_int::BITS / 8;
    // SAFETY: computes a size.
    const SPACE: usize = unsafe { libc::CMSG_SPACE(FD) } as usize;
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    let mut control = [MaybeUninit::<libc::cmsghdr>::zeroed(); SPACE.div_ceil(size_of::<libc::cmsghdr>())];
    // SAFETY: all its fields may be zero.
    let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
    message.msg_hdr.msg_iov = &raw mut part;
    message.msg_hdr.msg_iovlen = 1;
    message.msg_hdr.msg_control = control.as_mut_ptr().cast();
    message.msg_hdr.msg_controllen = SPACE as _;
    // SAFETY: `control` is aligned for a header and has room for one with a descriptor, so that the first header and
    // its data are inside of it.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message.msg_hdr);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(FD) as _;
        libc::CMSG_DATA(header)
            .cast::<libc::c_int>()
            .write_unaligned(descriptor.as_raw_fd());
    }
    // Not the C library's function: musl's makes sendmsg(2) of it.
    // SAFETY: one message, whose buffers live until the call returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendmmsg,
            socket.as_raw_fd(),
            &raw mut message,
            1,
            libc::MSG_NOSIGNAL,
        )
    };
    if result == 1 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
