//! Talking to a running container: a command in it, or its own streams, by descriptors.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::engine::EngineError;

/// Which streams somebody wants of a command or a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOptions {
    /// Give it input.
    pub stdin: bool,
    /// See its standard output.
    pub stdout: bool,
    /// See its standard error. A terminal has no such stream.
    pub stderr: bool,
    /// Run the command on a terminal. For a container: it was made with one.
    pub tty: bool,
    /// How large the terminal is to begin with, if that is known.
    pub size: Option<TerminalSize>,
}

impl StreamOptions {
    /// What upstream's streaming server requires of them.
    ///
    /// # Errors
    /// No stream at all, or a standard error of a terminal.
    pub fn validate(&self) -> Result<(), EngineError> {
        if self.tty && self.stderr {
            return Err(EngineError::InvalidArgument(
                "tty and stderr cannot both be true: a terminal has one output.".into(),
            ));
        }
        if !(self.stdin || self.stdout || self.stderr) {
            return Err(EngineError::InvalidArgument(
                "one of stdin, stdout, or stderr must be set.".into(),
            ));
        }
        Ok(())
    }
}

/// A terminal's size in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A command that was started, or a container that somebody is attached to. Dropping it lets go: a terminal hangs up,
/// pipes break, and a command goes on without them if it can, as over ssh(1).
#[derive(Debug)]
pub struct Session {
    /// Write its input here; closing it is the end of the input (but of a terminal's).
    pub stdin: Option<OwnedFd>,
    /// Read its output here. With a terminal the end may be the error `EIO`.
    pub stdout: Option<OwnedFd>,
    /// Read its error output here.
    pub stderr: Option<OwnedFd>,
    /// Sets the terminal's size; without a terminal nothing comes of it.
    pub resize: watch::Sender<Option<TerminalSize>>,
    /// The exit code: 0-255; 128 + signal if a signal ended it.
    pub end: oneshot::Receiver<Result<i32, EngineError>>,
    /// What it wrote before its end can be read after it. How much longer output is waited for, since a process that
    /// it left behind may hold it open; `None` means that it is sure to end.
    pub drain: Option<Duration>,
}
