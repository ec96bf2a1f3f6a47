//! Terminals: handed to a caller's socket, or relayed to this process's own.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use crate::failure::{Attempt, Failure, usage};

/// Checks that there is somebody to take a terminal, if there will be one.
pub(crate) fn check_socket(terminal: bool, socket: Option<&Path>, detached: bool) -> Result<(), Failure> {
    match (terminal, socket) {
        (false, Some(_)) => Err(usage(
            "--console-socket needs process.terminal in the configuration.",
        )),
        (true, None) if detached => Err(usage(
            "process.terminal needs --console-socket, to hand the terminal over.",
        )),
        _ => Ok(()),
    }
}

/// Sends a terminal's master to the socket that waits for it.
pub(crate) fn hand_over(master: Option<&OwnedFd>, socket: Option<&Path>) -> Result<(), Failure> {
    let (Some(master), Some(path)) = (master, socket) else {
        return Ok(());
    };
    let doing = || format!("hand the terminal to {}", path.display());
    let connection = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
    .attempt(doing)?;
    connect(&connection, &SocketAddrUnix::new(path).attempt(doing)?).attempt(doing)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [master.as_fd()];
    control.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(
        &connection,
        &[IoSlice::new(b"/dev/ptmx")],
        &mut control,
        SendFlags::empty(),
    )
    .attempt(doing)?;
    Ok(())
}

/// Copies between a container's terminal and this process's standard streams, which are in raw mode meanwhile.
pub(crate) struct Relay<'a> {
    master: &'a OwnedFd,
    saved: Option<Termios>,
    input: bool,
    output: bool,
}

impl<'a> Relay<'a> {
    /// Begins a relay.
    pub(crate) fn new(master: &'a OwnedFd) -> Result<Relay<'a>, Failure> {
        let saved = if isatty(stdin()) {
            let doing = || "put the terminal into raw mode".to_owned();
            let saved = tcgetattr(stdin()).attempt(doing)?;
            let mut raw = saved.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).attempt(doing)?;
            Some(saved)
        } else {
            None
        };
        let relay = Relay {
            master,
            saved,
            input: true,
            output: true,
        };
        relay.resize();
        Ok(relay)
    }

    /// Gives the container's terminal the size of this process's.
    pub(crate) fn resize(&self) {
        // Without a terminal of our own there is no size to pass on.
        if let Ok(size) = tcgetwinsize(stdin()) {
            let _ = tcsetwinsize(self.master, size);
        }
    }

    /// What to wait for: the container's output, then this process's input while there is any.
    pub(crate) fn interest(&self) -> Vec<PollFd<'a>> {
        let output = if self.output {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let mut fds = vec![PollFd::from_borrowed_fd(self.master.as_fd(), output)];
        if self.input {
            fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
        fds
    }

    /// Copies what is there.
    pub(crate) fn copy(&mut self, ready: &[bool]) -> Result<(), Failure> {
        if ready.first() == Some(&true) && self.output {
            self.output = copy_some(self.master, stdout())?;
        }
        if ready.get(1) == Some(&true) {
            self.input = copy_some(stdin(), self.master)?;
            if !self.input {
                // The end of input, as a terminal says it.
                const END_OF_INPUT: &[u8] = &[4];
                let _ = rustix::io::write(self.master, END_OF_INPUT);
            }
        }
        Ok(())
    }

    /// Copies what the program wrote before it ended.
    pub(crate) fn drain(&mut self) {
        // Readable until all is read; then it says EIO, or nothing while others still have the terminal open.
        loop {
            let mut fds = [PollFd::from_borrowed_fd(self.master.as_fd(), PollFlags::IN)];
            let now = rustix::event::Timespec::default();
            let readable = rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0);
            if !readable || !copy_some(self.master, stdout()).unwrap_or(false) {
                return;
            }
        }
    }
}

impl Drop for Relay<'_> {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Now, saved);
        }
    }
}

/// Copies what can be read at once; `false` at the end.
fn copy_some(from: impl AsFd, to: impl AsFd) -> Result<bool, Failure> {
    let mut buffer = [0; 4096];
    let length = match rustix::io::read(from, &mut buffer) {
        // A terminal whose other end nobody has open.
        Err(rustix::io::Errno::IO) | Ok(0) => return Ok(false),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(true),
        other => other.attempt(|| "read from the terminal".to_owned())?,
    };
    let mut left = &buffer[..length];
    while !left.is_empty() {
        match rustix::io::write(&to, left) {
            Ok(written) => left = &left[written..],
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::IO) => return Ok(false),
            Err(errno) => return Err(errno).attempt(|| "write to the terminal".to_owned()),
        }
    }
    Ok(true)
}
