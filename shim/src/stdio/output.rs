//! One of a container's outputs, from the shim's end.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::pipe::fcntl_setpipe_size;

use crate::poller::{Interest, Poller, Source, Watched};

/// How much is read at once: what a pipe holds.
const READ: usize = 64 << 10;
/// What the pipe of a container that fills it is made to hold.
const LARGE_PIPE: usize = 256 << 10;

/// What there was to read.
pub(super) enum Found {
    /// So many bytes.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// Nothing any more.
    End,
}

/// The reading end of a pipe, or a terminal's master.
pub(super) struct Output {
    fd: Watched<OwnedFd>,
    grown: bool,
}

impl Output {
    pub(super) fn new(poller: &Poller, fd: OwnedFd, source: Source) -> io::Result<Self> {
        super::set_nonblocking(&fd)?;
        let fd = Watched::new(poller, fd, source, Interest::Read)?;
        Ok(Self { fd, grown: false })
    }

    /// Reads once, in place of what is in `buffer`.
    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Found {
        buffer.clear();
        buffer.reserve_exact(READ);
        match rustix::io::read(&self.fd, rustix::buffer::spare_capacity(buffer)) {
            // A terminal whose other side is closed is an error.
            Ok(0) | Err(Errno::IO) => Found::End,
            Ok(count) => {
                if count >= READ && !self.grown {
                    // Larger pieces, fewer turns. A terminal has no such size.
                    self.grown = true;
                    let _ = fcntl_setpipe_size(&self.fd, LARGE_PIPE);
                }
                Found::Bytes(count)
            }
            Err(_) => Found::Nothing,
        }
    }

    /// Lets the container wait, or go on.
    pub(super) fn listen(&mut self, listen: bool) {
        let interest = if listen { Interest::Read } else { Interest::Nothing };
        if let Err(error) = self.fd.wake_on(interest) {
            eprintln!("A container's output can't be watched any more: {error}.");
        }
    }
}
