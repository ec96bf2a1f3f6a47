//! What a container's process and its creator say to each other, over a socket pair that no program inherits.
//!
//! The end of the stream says something too: to the process that its creator is gone, to the creator that the
//! program runs (its exec closed the socket) or that the process died.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::Error;
use crate::seccomp::Handover;
use crate::sys::sendmmsg_descriptor;

/// Longer messages are cut: a message is a sentence.
const MAX_MESSAGE: usize = 4096;

/// What fits into a message beside its tag and its code.
pub(crate) const MAX_ARGUMENTS: usize = MAX_MESSAGE - 2;

/// As many descriptors as a message may bring: more than there are control group hierarchies.
const MAX_DESCRIPTORS: usize = 32;

/// The bytes of [`Message::Listener`].
const LISTENER: [u8; 2] = [b'l', 0];

/// One end of the socket pair.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What is said. The first byte on the wire is the variant, the rest its text.
#[derive(Debug)]
pub(crate) enum Message {
    /// Creator: the user namespace's maps are written. Process: the namespaces exist, write them.
    Mapped,
    /// Process: the namespaces and the root are there, run the hooks of the host. Creator: they ran.
    HostHooks,
    /// Process: this is the terminal's master.
    Terminal(OwnedFd),
    /// Process: this is the listener of my filter.
    Listener(OwnedFd),
    /// Creator: the control groups are there, these are the files to enter them by.
    Groups(Vec<OwnedFd>),
    /// Process: this was refused, I go on without it.
    Warning(String),
    /// Process: everything is set up. Creator: run the program.
    Ready,
    /// Creator: don't die with me any more. Process: I won't.
    Detach,
    /// Process: this is my pid, made by a process between us.
    Pid(i32),
    /// Creator, to a launcher: start this.
    Launch(Launch),
    /// Repeater: the command ended for the last time.
    Ended(Ended),
    /// Process: this went wrong, I end.
    Failed(Failure),
    /// The other end is closed.
    End,
}

/// A command for a launcher to start.
#[derive(Debug)]
pub(crate) struct Launch {
    /// The arguments, the first one included, each ended by a zero byte.
    pub(crate) arguments: String,
    /// Its three streams, and what [`GroupBy`] says.
    pub(crate) files: Vec<OwnedFd>,
    /// The group of its own.
    pub(crate) group: GroupBy,
}

/// How a command ended that is not run again.
#[derive(Debug, Default)]
pub struct Ended {
    /// 0-255; 128 + signal if a signal ended it.
    pub exit_code: i32,
    /// It was killed because its time was over.
    pub timed_out: bool,
    /// So many bytes at the beginning of the file are standard output.
    pub stdout: u64,
    /// And so many bytes after them standard error.
    pub stderr: u64,
    /// The file; none is needed where nothing was printed.
    pub output: Option<OwnedFd>,
}

impl Ended {
    const LENGTH: usize = 20;

    fn numbers(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&self.exit_code.to_ne_bytes());
        bytes[4..12].copy_from_slice(&self.stdout.to_ne_bytes());
        bytes[12..].copy_from_slice(&self.stderr.to_ne_bytes());
        bytes
    }

    fn new(timed_out: u8, numbers: &[u8], output: Option<OwnedFd>) -> Option<Ended> {
        let (exit_code, sizes) = numbers.split_first_chunk::<4>()?;
        let (stdout, stderr) = sizes.split_first_chunk::<8>()?;
        let ended = Ended {
            exit_code: i32::from_ne_bytes(*exit_code),
            timed_out: timed_out != 0,
            stdout: u64::from_ne_bytes(*stdout),
            stderr: u64::from_ne_bytes(stderr.try_into().ok()?),
            output,
        };
        Some(ended)
    }
}

/// How a process comes into a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GroupBy {
    /// There is none.
    None,
    /// It begins in the directory that came with the streams.
    Directory,
    /// It writes to the file that came with the streams.
    File,
}

impl GroupBy {
    const ALL: [GroupBy; 3] = [GroupBy::None, GroupBy::Directory, GroupBy::File];
}

/// An error that crosses a process boundary.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 126 or 127 for a program that can't run, else 0.
    pub(crate) exit_code: u8,
    /// The error's text.
    pub(crate) text: String,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Failure {
        match error {
            Error::CannotRun { exit_code, message } => Failure {
                exit_code: *exit_code,
                text: message.clone(),
            },
            other => Failure {
                exit_code: 0,
                text: other.to_string(),
            },
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        match failure.exit_code {
            0 => Error::Setup(failure.text),
            exit_code => Error::CannotRun {
                exit_code,
                message: failure.text,
            },
        }
    }
}

impl Channel {
    /// Both ends: the creator's and the process's.
    pub(crate) fn pair() -> rustix::io::Result<(Channel, Channel)> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Channel(ours), Channel(theirs)))
    }

    /// A connected socket as one end.
    pub(crate) fn from_socket(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// Sends one message; a closed other end is EPIPE.
    pub(crate) fn send(&self, message: &Message) -> rustix::io::Result<()> {
        let (tag, code, text, fd) = match message {
            Message::Groups(files) => {
                let count = u8::try_from(files.len()).map_err(|_| Errno::TOOMANYREFS)?;
                let files: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
                return self.send_raw(&[&[b'g', count], &[]], &files);
            }
            Message::Mapped => (b'm', 0, "", None),
            Message::HostHooks => (b'h', 0, "", None),
            Message::Terminal(fd) => (b't', 0, "", Some(fd.as_fd())),
            Message::Listener(fd) => (LISTENER[0], LISTENER[1], "", Some(fd.as_fd())),
            Message::Warning(text) => (b'w', 0, text.as_str(), None),
            Message::Ready => (b'r', 0, "", None),
            Message::Detach => (b'd', 0, "", None),
            Message::Pid(pid) => {
                let bytes = pid.to_ne_bytes();
                return self.send_raw(&[&[b'p', 0], &bytes], &[]);
            }
            Message::Launch(launch) => {
                if launch.arguments.len() > MAX_ARGUMENTS {
                    return Err(Errno::TOOBIG);
                }
                let files: Vec<BorrowedFd<'_>> = launch.files.iter().map(AsFd::as_fd).collect();
                return self.send_raw(
                    &[&[b'x', launch.group as u8], launch.arguments.as_bytes()],
                    &files,
                );
            }
            Message::Ended(ended) => {
                let output = ended.output.as_ref().map(AsFd::as_fd);
                return self.send_raw(
                    &[&[b'c', u8::from(ended.timed_out)], &ended.numbers()],
                    output.as_slice(),
                );
            }
            Message::Failed(failure) => (b'e', failure.exit_code, failure.text.as_str(), None),
            Message::End => return Ok(()),
        };
        let text = &text.as_bytes()[..text.len().min(MAX_MESSAGE - 2)];
        self.send_raw(&[&[tag, code], text], fd.as_slice())
    }

    /// Sends [`Message::Listener`] with nothing but that one system call.
    pub(crate) fn send_listener(&self, listener: OwnedFd, by: Handover) -> std::io::Result<()> {
        match by {
            Handover::SendMsg => Ok(self.send(&Message::Listener(listener))?),
            Handover::SendMMsg => sendmmsg_descriptor(self.0.as_fd(), LISTENER, listener.as_fd()),
        }
    }

    fn send_raw(&self, parts: &[&[u8]], fds: &[BorrowedFd<'_>]) -> rustix::io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::TOOMANYREFS);
        }
        let parts: [IoSlice<'_>; 2] = [IoSlice::new(parts[0]), IoSlice::new(parts[1])];
        loop {
            match sendmsg(&self.0, &parts, &mut control, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }

    /// Waits for the next message.
    pub(crate) fn receive(&self) -> rustix::io::Result<Message> {
        let mut bytes = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = loop {
            match recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                // The other end closed without reading all: said once, and before what it had sent by then.
                Err(Errno::INTR | Errno::CONNRESET) => {}
                other => break other?.bytes,
            }
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(more) = message {
                fds.extend(more);
            }
        }
        let [tag, code, text @ ..] = &bytes[..length] else {
            return Ok(Message::End);
        };
        if *tag == b'c' {
            return Ended::new(*code, text, fds.pop())
                .map(Message::Ended)
                .ok_or(Errno::PROTO);
        }
        let text = || String::from_utf8_lossy(text).into_owned();
        if *tag == b'g' {
            // A process that may have no more descriptors gets fewer than were sent.
            return (fds.len() == usize::from(*code))
                .then_some(Message::Groups(fds))
                .ok_or(Errno::MFILE);
        }
        if *tag == b'x' {
            let group = GroupBy::ALL
                .get(usize::from(*code))
                .copied()
                .ok_or(Errno::PROTO)?;
            let expected = if group == GroupBy::None { 3 } else { 4 };
            let launch = Launch {
                arguments: text(),
                files: fds,
                group,
            };
            return (launch.files.len() == expected)
                .then_some(Message::Launch(launch))
                .ok_or(Errno::MFILE);
        }
        Ok(match (tag, fds.pop()) {
            (b'm', _) => Message::Mapped,
            (b'h', _) => Message::HostHooks,
            (b't', Some(fd)) => Message::Terminal(fd),
            (b'l', Some(fd)) => Message::Listener(fd),
            (b'w', _) => Message::Warning(text()),
            (b'r', _) => Message::Ready,
            (b'd', _) => Message::Detach,
            (b'p', _) => Message::Pid(bytes[2..6].try_into().map_or(0, i32::from_ne_bytes)),
            (b'e', _) => Message::Failed(Failure {
                exit_code: *code,
                text: text(),
            }),
            _ => Message::End,
        })
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_arrive_though_the_speaker_did_not_listen() {
        let (ours, theirs) = Channel::pair().unwrap();
        ours.send(&Message::Mapped).unwrap();
        let failure = Failure {
            exit_code: 0,
            text: "why".to_owned(),
        };
        theirs.send(&Message::Failed(failure)).unwrap();
        drop(theirs);
        assert!(matches!(ours.receive().unwrap(), Message::Failed(failure) if failure.text == "why"));
        assert!(matches!(ours.receive().unwrap(), Message::End));
    }
}
