//! Terminals: handed to a caller's socket, or relayed to this process's own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{
    OptionalActions, OutputModes, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize,
};

use crate::failure::{Attempt, Failure, usage};
use crate::handover;

/// Checks that there is somebody to take a terminal, if there will be one.
pub(crate) fn check_socket(terminal: bool, socket: Option<&Path>, detached: bool) -> Result<(), Failure> {
    match (terminal, socket) {
        (false, Some(_)) => Err(usage(
            "--console-socket needs process.terminal in the configuration.",
        )),
        (true, Some(_)) if !detached => Err(usage(
            "--console-socket is for a terminal that somebody else serves; use --detach, or leave it out.",
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
    let connection = handover::connect_to(path)?;
    handover::send(&connection, b"/dev/ptmx", master.as_fd())
        .attempt(|| format!("hand the terminal to {}", path.display()))
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
            raw.output_modes |= OutputModes::OPOST;
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

    /// What to wait for: the container's output while there is any, then this process's input likewise.
    pub(crate) fn interest(&self) -> Vec<PollFd<'a>> {
        // A terminal that nobody has open would wake the poll again and again.
        let output = self.output.then(|| self.master.as_fd());
        let input = self.input.then(stdin);
        let both = output.into_iter().chain(input);
        both.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect()
    }

    /// Copies what is there.
    pub(crate) fn copy(&mut self, ready: &[bool]) -> Result<(), Failure> {
        let mut ready = ready.iter();
        if self.output && ready.next() == Some(&true) {
            self.output = copy_some(self.master, stdout())?;
        }
        if self.input && ready.next() == Some(&true) {
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
