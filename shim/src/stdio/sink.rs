//! Where a copy of a container's output goes: a descriptor of an attached client, which may be slow or gone.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use crate::poller::{Interest, Poller, Source, Watched};

/// One output of an attached client.
pub(super) struct Sink {
    fd: Watched<OwnedFd>,
    /// Files can't be waited for, and never need to be.
    pollable: bool,
    pending: Vec<u8>,
    /// No more will come: closed once the pending bytes are out.
    ended: bool,
}

impl Sink {
    pub(super) fn new(poller: &Poller, fd: OwnedFd, source: Source) -> io::Result<Self> {
        super::set_nonblocking(&fd)?;
        let mut fd = Watched::new(poller, fd, source, Interest::Nothing)?;
        let pollable = match fd.wake_on(Interest::Hangup) {
            Ok(()) => true,
            Err(error) if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => false,
            Err(error) => return Err(error),
        };
        Ok(Self {
            fd,
            pollable,
            pending: Vec::new(),
            ended: false,
        })
    }

    /// Passes bytes on, after those that wait. `false` once nobody reads any more.
    pub(super) fn write(&mut self, mut bytes: &[u8]) -> bool {
        while self.pending.is_empty() && !bytes.is_empty() {
            match rustix::io::write(&self.fd, bytes) {
                Ok(count) => bytes = &bytes[count..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if self.pollable => break,
                Err(_) => return false,
            }
        }
        self.pending.extend_from_slice(bytes);
        self.fd.wake_on(self.interest()).is_ok()
    }

    fn interest(&self) -> Interest {
        match (self.pollable, self.pending.is_empty()) {
            (false, _) => Interest::Nothing,
            (true, true) => Interest::Hangup,
            (true, false) => Interest::Write,
        }
    }

    /// The other side takes more, or went. `false` once this sink is done with.
    pub(super) fn on_writable(&mut self) -> bool {
        if self.pending.is_empty() {
            // Woken without having asked: nobody is there any more.
            return false;
        }
        let pending = std::mem::take(&mut self.pending);
        self.write(&pending) && !(self.ended && self.pending.is_empty())
    }

    /// No more will come. `false` if this sink is done with.
    pub(super) fn end(&mut self) -> bool {
        self.ended = true;
        !self.pending.is_empty()
    }

    /// Whether bytes wait.
    pub(super) fn is_behind(&self) -> bool {
        !self.pending.is_empty()
    }
}
