//! A client that is attached to a container: it gets a copy of the output, and may give input.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::input::Stdin;
use super::sink::Sink;
use crate::log::Stream;
use crate::poller::{Interest, Poller, Source, Watched};

/// Input is read in pieces of this size.
const INPUT: usize = 4096;

/// One attached client.
pub(super) struct Attached {
    container: u32,
    pub(super) number: u16,
    sinks: [Option<Sink>; 2],
    input: Option<Watched<OwnedFd>>,
}

impl Attached {
    pub(super) fn new(
        poller: &Poller,
        container: u32,
        number: u16,
        outputs: [OwnedFd; 2],
    ) -> io::Result<Self> {
        let [stdout, stderr] = outputs;
        let sink = |fd, stream| Sink::new(poller, fd, Source::Sink(container, number, stream));
        let sinks = [
            Some(sink(stdout, Stream::Stdout)?),
            Some(sink(stderr, Stream::Stderr)?),
        ];
        Ok(Self {
            container,
            number,
            sinks,
            input: None,
        })
    }

    /// Takes the client's input from a pipe, socket or terminal.
    pub(super) fn give_input(&mut self, poller: &Poller, fd: OwnedFd) -> io::Result<()> {
        super::set_nonblocking(&fd)?;
        let source = Source::Input(self.container, self.number);
        self.input = Some(Watched::new(poller, fd, source, Interest::Read)?);
        Ok(())
    }

    pub(super) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.keep_if(stream, |sink| sink.write(bytes));
    }

    pub(super) fn on_writable(&mut self, stream: Stream) {
        self.keep_if(stream, Sink::on_writable);
    }

    pub(super) fn end(&mut self, stream: Stream) {
        self.keep_if(stream, Sink::end);
    }

    fn keep_if(&mut self, stream: Stream, act: impl FnOnce(&mut Sink) -> bool) {
        let sink = &mut self.sinks[stream.index()];
        if sink.as_mut().is_some_and(|open| !act(open)) {
            *sink = None;
        }
    }

    /// Whether it has yet to take what the container wrote.
    pub(super) fn is_behind(&self, stream: Stream) -> bool {
        self.sinks[stream.index()].as_ref().is_some_and(Sink::is_behind)
    }

    /// Whether nothing connects it to the container any more.
    pub(super) fn is_gone(&self) -> bool {
        self.sinks.iter().all(Option::is_none) && self.input.is_none()
    }

    /// Reads a piece of input for the container. `false` when no more will come.
    pub(super) fn pass_input(&mut self, stdin: &mut Stdin) -> bool {
        let Some(input) = &self.input else { return true };
        let mut piece = [0; INPUT];
        match rustix::io::read(input, &mut piece[..]) {
            Ok(0) => false,
            Ok(count) => stdin.write(&piece[..count]).is_ok(),
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    pub(super) fn poll_input(&mut self, interest: Interest) {
        if self
            .input
            .as_mut()
            .is_some_and(|input| input.wake_on(interest).is_err())
        {
            self.input = None;
        }
    }

    pub(super) fn drop_input(&mut self) {
        self.input = None;
    }
}
