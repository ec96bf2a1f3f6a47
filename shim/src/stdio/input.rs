//! A container's standard input.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::poller::{Interest, Poller, Source, Watched};

/// The shim's end of a container's standard input.
pub(crate) struct Stdin {
    fd: Watched<OwnedFd>,
    pending: Vec<u8>,
    closing: bool,
}

impl Stdin {
    pub(super) fn new(poller: &Poller, fd: OwnedFd, number: u32) -> io::Result<Self> {
        super::set_nonblocking(&fd)?;
        let fd = Watched::new(poller, fd, Source::Stdin(number), Interest::Nothing)?;
        Ok(Self {
            fd,
            pending: Vec::new(),
            closing: false,
        })
    }

    /// Whether the container has yet to take something. No more is read from clients until it did.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Hands bytes to the container, after those that wait.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.pending.extend_from_slice(bytes);
        self.flush()
    }

    /// Hands over what waits. An error means that the input is closed: by the container, or by us as was asked.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.fd, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.fd.wake_on(Interest::Write),
                Err(error) => return Err(error.into()),
            }
        }
        if self.closing {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.fd.wake_on(Interest::Nothing)
    }

    /// Closes it after the bytes that wait.
    pub(super) fn close_when_empty(&mut self) {
        self.closing = true;
    }
}
