//! The three standard streams of a container's process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Uid, fchown, fstat};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::Result;
use crate::error::Doing;
use crate::terminal::make_controlling;

/// Where a process's standard streams go.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These descriptors, which are closed in the caller once the process has them.
    Fds {
        /// Read by the process.
        stdin: OwnedFd,
        /// Written by the process.
        stdout: OwnedFd,
        /// Written by the process.
        stderr: OwnedFd,
    },
    /// A new terminal of the container's devpts; its master is returned to the caller.
    Terminal {
        /// Columns; 0 leaves the size unset.
        width: u16,
        /// Rows.
        height: u16,
        /// A newline goes out as a carriage return and a newline. Otherwise as it is, for a caller whose own terminal
        /// adds the carriage return.
        carriage_returns: bool,
    },
}

/// The standard streams, ready to be put in place.
pub(crate) enum Streams<'a> {
    /// They are in place.
    Inherited,
    /// Input, output and errors.
    Files([BorrowedFd<'a>; 3]),
    /// A terminal for all three, which becomes the controlling one.
    Terminal(OwnedFd),
}

impl Streams<'_> {
    /// Puts the streams in place and lets the user open them again.
    pub(crate) fn install(&self, user: Uid) -> Result<()> {
        match self {
            Streams::Inherited => {}
            Streams::Files([stdin, stdout, stderr]) => install(stdin, stdout, stderr)?,
            Streams::Terminal(terminal) => {
                make_controlling(terminal)?;
                install(terminal, terminal, terminal)?;
            }
        }
        give_streams_to(user);
        Ok(())
    }
}

/// Puts open files in place of the three streams, which the program then inherits.
pub(crate) fn install(stdin: impl AsFd, stdout: impl AsFd, stderr: impl AsFd) -> Result<()> {
    let doing = || "set up the standard streams".to_owned();
    dup2_stdin(stdin).doing(doing)?;
    dup2_stdout(stdout).doing(doing)?;
    dup2_stderr(stderr).doing(doing)
}

/// Lets the process's user open the streams again (`/dev/stdout`), which takes permission where writing does not.
/// Only pipes and sockets are given away: a device or a file may be the host's own.
fn give_streams_to(user: Uid) {
    for stream in [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ] {
        give(stream, user);
    }
}

fn give(stream: BorrowedFd<'_>, user: Uid) {
    let Ok(stat) = fstat(stream) else { return };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if stat.st_uid != user.as_raw() && matches!(kind, FileType::Fifo | FileType::Socket) {
        // A refusal costs the program nothing but the opening by name.
        let _ = fchown(stream, Some(user), None);
    }
}
