//! Descriptors given to a caller: a terminal, or a process, through a socket that waits for it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::failure::{Attempt, Failure};

/// A connection to a socket of the file system.
pub(crate) fn connect_to(path: &Path) -> Result<OwnedFd, Failure> {
    let doing = || format!("connect to the socket {}", path.display());
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .attempt(doing)?;
    connect(&socket, &SocketAddrUnix::new(path).attempt(doing)?).attempt(doing)?;
    Ok(socket)
}

/// Sends a descriptor with a text that goes along.
pub(crate) fn send(socket: &OwnedFd, text: &[u8], fd: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(text)], &mut control, SendFlags::NOSIGNAL).map(drop)
}

/// Gives a process away, as a descriptor.
pub(crate) fn send_process(path: &Path, pidfd: &OwnedFd) -> Result<(), Failure> {
    let socket = connect_to(path)?;
    send(&socket, b"pidfd", pidfd.as_fd()).attempt(|| format!("hand the process to {}", path.display()))
}
