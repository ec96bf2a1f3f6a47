//! One client. It may come and go at any time, send nonsense, or not read its replies: none of that blocks the shim
//! or costs it more than a bounded amount of memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::frame::{self, FrameError};
use crate::protocol::MAX_FRAME;

/// Descriptors that a peer may have in flight towards us.
const MAX_FDS: usize = 8;
/// Bytes that a peer may leave unread.
const MAX_QUEUED: usize = MAX_FRAME + (64 << 10);

/// Why a client was let go.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// It left.
    #[error("The peer closed the connection.")]
    Closed,
    /// The bytes are not the protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// More descriptors than any request has.
    #[error("The peer sent more than {MAX_FDS} descriptors at once.")]
    TooManyDescriptors,
    /// It does not read.
    #[error("The peer left more than {MAX_QUEUED} bytes unread.")]
    TooSlow,
    /// The socket failed.
    #[error("The socket failed: {0}.")]
    Socket(#[from] io::Error),
}

impl From<Errno> for ConnectionError {
    fn from(error: Errno) -> Self {
        Self::Socket(error.into())
    }
}

/// Descriptors, and the position in the stream of the last byte that they arrived with.
struct Attached {
    last_byte: u64,
    fds: Vec<OwnedFd>,
}

struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    fds: Vec<OwnedFd>,
}

/// A stream socket that carries frames and descriptors.
pub(crate) struct Connection {
    socket: OwnedFd,
    input: Vec<u8>,
    /// Where in the stream `input` begins.
    position: u64,
    attached: VecDeque<Attached>,
    output: VecDeque<Outgoing>,
    queued: usize,
}

impl Connection {
    /// Takes over a connected stream socket.
    pub(crate) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            input: Vec::new(),
            position: 0,
            attached: VecDeque::new(),
            output: VecDeque::new(),
            queued: 0,
        }
    }

    /// Reads once what is there. On a blocking socket it waits for something.
    ///
    /// # Errors
    /// When the peer is gone or breaks the protocol. Nothing to read is no error.
    pub(crate) fn receive(&mut self) -> Result<(), ConnectionError> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut chunk = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = match recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut ancillary,
            flags,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            other => other?,
        };
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ConnectionError::TooManyDescriptors);
        }
        if received.bytes == 0 {
            return Err(ConnectionError::Closed);
        }
        self.input.extend_from_slice(&chunk[..received.bytes]);
        // The kernel ends a read after the bytes that descriptors came with: they belong to the frame of its last byte.
        if !fds.is_empty() {
            let held: usize = self.attached.iter().map(|a| a.fds.len()).sum();
            if held + fds.len() > MAX_FDS {
                return Err(ConnectionError::TooManyDescriptors);
            }
            let last_byte = self.position + self.input.len() as u64 - 1;
            self.attached.push_back(Attached { last_byte, fds });
        }
        Ok(())
    }

    /// Takes the next whole message and its descriptors.
    ///
    /// # Errors
    /// When the bytes are not the protocol.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> Result<Option<(T, Vec<OwnedFd>)>, ConnectionError> {
        let Some((payload, used)) = frame::split(&self.input)? else {
            return Ok(None);
        };
        let message = frame::decode(payload)?;
        self.position += used as u64;
        self.input.drain(..used);
        if self.input.is_empty() {
            // One large request does not stay in memory.
            self.input = Vec::new();
        }
        let mut fds = Vec::new();
        while self
            .attached
            .front()
            .is_some_and(|first| first.last_byte < self.position)
        {
            fds.extend(self.attached.pop_front().into_iter().flat_map(|first| first.fds));
        }
        Ok(Some((message, fds)))
    }

    /// Queues a message, and sends what the socket takes.
    ///
    /// # Errors
    /// When the peer is gone or does not read.
    pub(crate) fn send<T: Serialize>(
        &mut self,
        message: &T,
        fds: Vec<OwnedFd>,
    ) -> Result<(), ConnectionError> {
        let bytes = frame::encode(message)?;
        self.queued += bytes.len();
        self.output.push_back(Outgoing { bytes, sent: 0, fds });
        self.flush()?;
        if self.queued > MAX_QUEUED {
            Err(ConnectionError::TooSlow)
        } else {
            Ok(())
        }
    }

    /// Sends what the socket takes of what is queued.
    ///
    /// # Errors
    /// When the peer is gone.
    pub(crate) fn flush(&mut self) -> Result<(), ConnectionError> {
        while let Some(first) = self.output.front_mut() {
            match send_once(self.socket.as_fd(), first) {
                Ok(sent) => {
                    first.sent += sent;
                    self.queued -= sent;
                    // They are the peer's now; what is left of the frame goes without.
                    first.fds.clear();
                    if first.sent == first.bytes.len() {
                        self.output.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(ConnectionError::Closed),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether the socket has yet to take something.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send_once(socket: BorrowedFd<'_>, frame: &Outgoing) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<BorrowedFd<'_>> = frame.fds.iter().map(AsFd::as_fd).collect();
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::INVAL);
    }
    sendmsg(
        socket,
        &[IoSlice::new(&frame.bytes[frame.sent..])],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::protocol::{Call, Request};

    fn pair() -> (Connection, Connection) {
        let (a, b) = UnixStream::pair().unwrap();
        a.set_nonblocking(true).unwrap();
        b.set_nonblocking(true).unwrap();
        (Connection::new(a.into()), Connection::new(b.into()))
    }

    fn pump<T: DeserializeOwned>(
        from: &mut Connection,
        to: &mut Connection,
        wanted: usize,
    ) -> Vec<(T, usize)> {
        let mut got = Vec::new();
        while got.len() < wanted {
            from.flush().unwrap();
            to.receive().unwrap();
            while let Some((message, fds)) = to.next().unwrap() {
                got.push((message, fds.len()));
            }
        }
        got
    }

    fn call(seq: u64, container: String) -> Call {
        Call {
            seq,
            request: Request::Start { container },
        }
    }

    #[test]
    fn descriptors_arrive_with_their_frame() {
        let (mut client, mut shim) = pair();
        let null = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        client.send(&call(1, "a".into()), vec![]).unwrap();
        client
            .send(&call(2, "b".repeat(100_000)), vec![null(), null()])
            .unwrap();
        client.send(&call(3, "c".into()), vec![]).unwrap();
        client.send(&call(4, "d".into()), vec![null()]).unwrap();
        client
            .send(&call(5, "e".into()), vec![null(), null(), null()])
            .unwrap();
        let got: Vec<(Call, usize)> = pump(&mut client, &mut shim, 5);
        assert_eq!(
            got.iter().map(|(call, fds)| (call.seq, *fds)).collect::<Vec<_>>(),
            [(1, 0), (2, 2), (3, 0), (4, 1), (5, 3)]
        );
    }

    #[test]
    fn a_peer_that_does_not_read_is_let_go() {
        let (mut client, _shim) = pair();
        let big = call(1, "x".repeat(1 << 20));
        let error = (0..20).find_map(|_| client.send(&big, vec![]).err());
        assert!(matches!(error, Some(ConnectionError::TooSlow)));
    }

    #[test]
    fn nonsense_and_too_many_descriptors_are_errors() {
        let (a, b) = UnixStream::pair().unwrap();
        (&a).write_all(b"\xff\xff\xff\xffhello").unwrap();
        let mut shim = Connection::new(b.into());
        shim.receive().unwrap();
        assert!(shim.next::<Call>().is_err());

        let (mut client, mut shim) = pair();
        let fds = || {
            (0..8)
                .map(|_| std::fs::File::open("/dev/null").unwrap().into())
                .collect()
        };
        client.socket = client.socket.try_clone().unwrap();
        client.output.push_back(Outgoing {
            bytes: vec![200, 0, 0, 0],
            sent: 0,
            fds: fds(),
        });
        client.output.push_back(Outgoing {
            bytes: vec![b' '],
            sent: 0,
            fds: fds(),
        });
        client.queued = 5;
        client.flush().unwrap();
        assert!((0..4).any(|_| matches!(shim.receive(), Err(ConnectionError::TooManyDescriptors))));
    }
}
