//! The one place where the shim waits: an epoll instance, and what its wake-ups mean.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::log::Stream;

/// What woke the shim. Numbers are never used twice, so that a late wake-up can't be taken for somebody else's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A client wants to connect.
    Listener,
    /// A signal arrived.
    Signals,
    /// A client sent something, takes something, or went.
    Client(u32),
    /// A container's cgroup may be out of memory.
    Oom(u32),
    /// A container wrote something.
    Output(u32, Stream),
    /// A container takes more input.
    Stdin(u32),
    /// An attached client takes more of an output, or went: container and client.
    Sink(u32, u16, Stream),
    /// An attached client typed something.
    Input(u32, u16),
    /// A command that is run to its end wrote something.
    Printed(u32, Stream),
}

impl Source {
    fn encode(self) -> u64 {
        let pack = |kind: u64, stream: usize, reader: u16, number: u32| {
            kind << 56 | (stream as u64) << 48 | u64::from(reader) << 32 | u64::from(number)
        };
        match self {
            Self::Listener => pack(0, 0, 0, 0),
            Self::Signals => pack(1, 0, 0, 0),
            Self::Client(number) => pack(2, 0, 0, number),
            Self::Oom(number) => pack(3, 0, 0, number),
            Self::Output(number, stream) => pack(4, stream.index(), 0, number),
            Self::Stdin(number) => pack(5, 0, 0, number),
            Self::Sink(number, reader, stream) => pack(6, stream.index(), reader, number),
            Self::Input(number, reader) => pack(7, 0, reader, number),
            Self::Printed(number, stream) => pack(8, stream.index(), 0, number),
        }
    }

    fn decode(data: u64) -> Option<Self> {
        let bytes = data.to_be_bytes();
        let stream = if bytes[1] == 0 {
            Stream::Stdout
        } else {
            Stream::Stderr
        };
        let reader = u16::from_be_bytes([bytes[2], bytes[3]]);
        let number = u32::from_be_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Some(match bytes[0] {
            0 => Self::Listener,
            1 => Self::Signals,
            2 => Self::Client(number),
            3 => Self::Oom(number),
            4 => Self::Output(number, stream),
            5 => Self::Stdin(number),
            6 => Self::Sink(number, reader, stream),
            7 => Self::Input(number, reader),
            8 => Self::Printed(number, stream),
            _ => return None,
        })
    }
}

/// What to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    /// Nothing at all, not even the other side's going.
    Nothing,
    /// The other side's going.
    Hangup,
    /// Bytes to read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    ReadWrite,
    /// Exceptional news, as of `memory.events`.
    Priority,
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Nothing | Self::Hangup => EventFlags::empty(),
            Self::Read => EventFlags::IN,
            Self::Write => EventFlags::OUT,
            Self::ReadWrite => EventFlags::IN | EventFlags::OUT,
            Self::Priority => EventFlags::PRI,
        }
    }
}

/// One wake-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wakeup {
    pub(crate) source: Source,
    pub(crate) writable: bool,
    pub(crate) readable: bool,
}

/// The epoll instance. Copies are the same one.
#[derive(Clone)]
pub(crate) struct Poller(Rc<OwnedFd>);

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(Rc::new(epoll::create(CreateFlags::CLOEXEC)?)))
    }

    /// Waits for wake-ups, at most `timeout`; none if the time was over first.
    pub(crate) fn wait(&self, timeout: Option<Duration>, wakeups: &mut Vec<Wakeup>) -> io::Result<()> {
        const NONE: Event = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let timeout = timeout.map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut events = [NONE; 16];
        let (events, _) = match epoll::wait(&*self.0, &mut events[..], timeout.as_ref()) {
            Ok(count) => events.split_at(count),
            Err(Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        wakeups.extend(events.iter().filter_map(|event| {
            let (flags, data) = (event.flags, event.data);
            let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP);
            Some(Wakeup {
                source: Source::decode(data.u64())?,
                writable: gone || flags.contains(EventFlags::OUT),
                readable: gone || flags.intersects(EventFlags::IN | EventFlags::PRI),
            })
        }));
        Ok(())
    }
}

/// A descriptor that is watched for as long as it is held.
pub(crate) struct Watched<F: AsFd> {
    fd: F,
    poller: Poller,
    source: Source,
    interest: Interest,
}

impl<F: AsFd> Watched<F> {
    /// Begins to watch.
    pub(crate) fn new(poller: &Poller, fd: F, source: Source, interest: Interest) -> io::Result<Self> {
        let mut watched = Self {
            fd,
            poller: poller.clone(),
            source,
            interest: Interest::Nothing,
        };
        watched.wake_on(interest)?;
        Ok(watched)
    }

    /// Changes what to be woken for.
    pub(crate) fn wake_on(&mut self, interest: Interest) -> io::Result<()> {
        let (data, flags) = (EventData::new_u64(self.source.encode()), interest.flags());
        match (self.interest, interest) {
            (old, new) if old == new => {}
            (Interest::Nothing, _) => epoll::add(&*self.poller.0, &self.fd, data, flags)?,
            (_, Interest::Nothing) => epoll::delete(&*self.poller.0, &self.fd)?,
            _ => epoll::modify(&*self.poller.0, &self.fd, data, flags)?,
        }
        self.interest = interest;
        Ok(())
    }

    pub(crate) fn get(&self) -> &F {
        &self.fd
    }

    pub(crate) fn get_mut(&mut self) -> &mut F {
        &mut self.fd
    }
}

impl<F: AsFd> AsFd for Watched<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<F: AsFd> Drop for Watched<F> {
    /// Closing alone would not do: a client's descriptor is open in the client too, and would go on waking us.
    fn drop(&mut self) {
        let _ = self.wake_on(Interest::Nothing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_survives_its_encoding() {
        let sources = [
            Source::Listener,
            Source::Signals,
            Source::Client(7),
            Source::Oom(u32::MAX),
            Source::Output(1, Stream::Stderr),
            Source::Stdin(2),
            Source::Sink(3, u16::MAX, Stream::Stdout),
            Source::Input(u32::MAX, 9),
            Source::Printed(4, Stream::Stderr),
        ];
        for source in sources {
            assert_eq!(Source::decode(source.encode()), Some(source));
        }
    }
}
