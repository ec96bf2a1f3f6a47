//! A small synchronous client, for tests and tools. The engine has one of its own.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::connection::{Connection, ConnectionError};
use crate::protocol::{Call, Event, Failure, Message, Request, Response, SOCKET_NAME};

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The shim can't be reached or broke the protocol.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// The shim refused.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// Nothing came in time.
    #[error("The shim did not answer within {0:?}.")]
    TimedOut(Duration),
}

/// A connection to a shim.
pub struct Client {
    connection: Connection,
    seq: u64,
    events: VecDeque<Event>,
    patience: Duration,
}

impl Client {
    /// Connects to the shim of a sandbox directory.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(sandbox: &Path) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        // The path of a sandbox can be longer than a socket's address.
        let held = std::fs::File::open(sandbox)?;
        let stream = UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", held.as_raw_fd()))?;
        stream.set_nonblocking(true)?;
        let patience = Duration::from_secs(30);
        Ok(Self {
            connection: Connection::new(stream.into()),
            seq: 0,
            events: VecDeque::new(),
            patience,
        })
    }

    /// Asks, and waits for the answer. Events that come meanwhile are kept.
    ///
    /// # Errors
    /// When the shim refuses, goes, or takes longer than half a minute.
    pub fn call(
        &mut self,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Result<(Response, Vec<OwnedFd>), ClientError> {
        self.seq += 1;
        self.connection.send(
            &Call {
                seq: self.seq,
                request,
            },
            fds,
        )?;
        let deadline = Instant::now() + self.patience;
        loop {
            match self.next_message(deadline)? {
                (Message::Reply { seq, result }, fds) if seq == self.seq => {
                    return result
                        .map(|response| (response, fds))
                        .map_err(ClientError::Refused);
                }
                (Message::Reply { .. }, _) => {}
                (Message::Event(event), _) => self.events.push_back(event),
            }
        }
    }

    /// The next event, or an error after `patience`.
    ///
    /// # Errors
    /// When the shim goes or nothing happens in time.
    pub fn event(&mut self, patience: Duration) -> Result<Event, ClientError> {
        if let Some(event) = self.events.pop_front() {
            return Ok(event);
        }
        let deadline = Instant::now() + patience;
        loop {
            if let (Message::Event(event), _) = self.next_message(deadline)? {
                return Ok(event);
            }
        }
    }

    fn next_message(&mut self, deadline: Instant) -> Result<(Message, Vec<OwnedFd>), ClientError> {
        loop {
            if let Some(message) = self.connection.next()? {
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::TimedOut(self.patience));
            }
            self.wait(left)?;
            self.connection.flush()?;
            self.connection.receive()?;
        }
    }

    fn wait(&self, left: Duration) -> Result<(), ClientError> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, self.connection.has_output());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let socket = self.connection.as_fd();
        match poll(&mut [PollFd::new(&socket, wanted)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(ConnectionError::from(error).into()),
        }
    }
}
