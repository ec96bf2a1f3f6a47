//! Frames over a unix socket: a length (four bytes, the least first), JSON, and descriptors that come along with the first
//! byte (`SCM_RIGHTS`, unix(7)).

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// A frame is no longer than this: a pod with what it refers to fits in.
const MAX_FRAME: usize = 64 << 20;
/// Descriptors that come with a frame.
const MAX_FDS: usize = 3;
/// So much is read at once: the length that a frame claims is believed as far as it comes.
const CHUNK: usize = 64 << 10;

/// One end of a connection.
#[derive(Debug)]
pub(super) struct Wire(UnixStream);

impl Wire {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self(stream)
    }

    /// Both ends of a connection in this process.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self(one), Self(other)))
    }

    /// Connects to a socket by way of its directory's descriptor: a socket's address has room for 107 bytes, and a
    /// `--root` may be longer.
    pub(super) async fn connect(directory: &Path, name: &str) -> io::Result<Self> {
        let directory = File::open(directory)?;
        let address = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        Ok(Self(UnixStream::connect(address).await?))
    }

    /// The other end is a process of the same user, or of root.
    pub(super) fn is_trusted(&self) -> bool {
        let own = rustix::process::geteuid();
        self.0
            .peer_cred()
            .is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own.as_raw())
    }

    /// The process at the other end.
    pub(super) fn peer(&self) -> Option<u32> {
        let pid = self.0.peer_cred().ok()?.pid()?;
        u32::try_from(pid).ok()
    }

    /// Sends a message with descriptors, which the caller keeps.
    pub(super) async fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
        let length = length.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "the message is longer than a frame may be",
            )
        })?;
        let frame = [&length.to_le_bytes()[..], &body].concat();
        let mut sent = 0;
        while sent < frame.len() {
            let attached = if sent == 0 { fds } else { &[] };
            let once = || send_once(&self.0, &frame[sent..], attached);
            sent += self.0.async_io(Interest::WRITABLE, once).await?;
        }
        Ok(())
    }

    /// The next message with its descriptors; `None` at the end of the connection.
    pub(super) async fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut fds = Vec::new();
        let mut length = [0; 4];
        if !self.fill(&mut length, &mut fds, true).await? {
            return Ok(None);
        }
        let length = u32::from_le_bytes(length) as usize;
        if length > MAX_FRAME {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
        }
        let mut body = Vec::new();
        while body.len() < length {
            let start = body.len();
            body.resize(length.min(start + CHUNK), 0);
            self.fill(&mut body[start..], &mut fds, false).await?;
        }
        Ok(Some((serde_json::from_slice(&body)?, fds)))
    }

    /// Reads so many bytes. `false`: the connection has ended before the first one, where that is allowed.
    async fn fill(&self, buffer: &mut [u8], fds: &mut Vec<OwnedFd>, may_end: bool) -> io::Result<bool> {
        let mut read = 0;
        while read < buffer.len() {
            let once = || receive_once(&self.0, &mut buffer[read..], fds);
            match self.0.async_io(Interest::READABLE, once).await {
                Ok(0) if read == 0 && may_end => return Ok(false),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => read += count,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && may_end => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

fn send_once(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(sendmsg(
        stream.as_fd(),
        &[IoSlice::new(bytes)],
        &mut ancillary,
        flags,
    )?)
}

fn receive_once(stream: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(
        stream.as_fd(),
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        flags,
    )?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[tokio::test]
    async fn messages_come_whole_with_their_descriptors_and_end() {
        let (one, other) = Wire::pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let long = "x".repeat(3 << 20);
        let send = async {
            one.send(&"first", &[writer.as_fd()]).await.unwrap();
            one.send(&long, &[]).await.unwrap();
            drop(writer);
            drop(one);
        };
        let receive = async {
            let (first, fds) = other.receive::<String>().await.unwrap().unwrap();
            assert_eq!((first.as_str(), fds.len()), ("first", 1));
            let mut pipe = File::from(fds.into_iter().next().unwrap());
            pipe.write_all(b"through").unwrap();
            drop(pipe);
            let (second, fds) = other.receive::<String>().await.unwrap().unwrap();
            assert_eq!((second.len(), fds.len()), (long.len(), 0));
            assert!(other.receive::<String>().await.unwrap().is_none());
        };
        tokio::join!(send, receive);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        for bytes in [
            &[1, 0][..],
            &[255, 255, 255, 255],
            &[4, 0, 0, 0, b'{', b'{', b'{', b'{'],
            &[9, 0, 0, 0, b'1'],
        ] {
            let (one, other) = UnixStream::pair().unwrap();
            one.try_write(bytes).unwrap();
            drop(one);
            assert!(Wire::new(other).receive::<String>().await.is_err(), "{bytes:?}");
        }
    }
}
