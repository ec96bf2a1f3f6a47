//! The socket on which another runtime's program hands over the terminal that it has made.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::IoSliceMut;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType, accept_with, bind, listen, recvmsg, socket_with,
};

/// A socket of that name in a directory, whose path may be longer than an address.
pub(super) fn open_socket(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let held = open(directory, flags, Mode::empty())?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &address)?;
    listen(&socket, 1)?;
    Ok(socket)
}

/// The terminal's master that the program has sent. It has ended: nothing is waited for.
pub(super) fn take_terminal(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let connection = accept_with(socket, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; 4096];
    let mut buffers = [IoSliceMut::new(&mut name)];
    recvmsg(&connection, &mut buffers, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut terminal = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut rights) = message {
            terminal = rights.next();
        }
    }
    terminal.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "it sent no descriptor"))
}
