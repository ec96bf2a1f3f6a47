//! The three standard streams of a container's process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Dev, FileType, Mode, OFlags, Uid, fchown, fstat, makedev, openat2};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::Result;
use crate::devices::open_null;
use crate::error::Doing;
use crate::mount::INSIDE;
use crate::terminal::make_controlling;

/// Linux's number for `/dev/null`; see null(4).
fn null_device() -> Dev {
    makedev(1, 3)
}

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
    /// A null device of the host is exchanged for the container's own in `root`: nothing of the host's file system stays
    /// open, which a checkpoint could not write.
    pub(crate) fn install(&self, root: impl AsFd, user: Uid) -> Result<()> {
        match self {
            Streams::Inherited => {}
            Streams::Files([stdin, stdout, stderr]) => install(stdin, stdout, stderr)?,
            Streams::Terminal(terminal) => {
                make_controlling(terminal)?;
                install(terminal, terminal, terminal)?;
            }
        }
        give_streams_to(root, user);
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
fn give_streams_to(root: impl AsFd, user: Uid) {
    let streams = [
        rustix::stdio::stdin(),
        rustix::stdio::stdout(),
        rustix::stdio::stderr(),
    ];
    let is_null = streams.map(|stream| give(stream, user));
    if is_null.contains(&true)
        && let Some(null) = own_null(root)
    {
        // Where it fails the stream stays what it was.
        for (fd, _) in (0..3).zip(is_null).filter(|(_, is_null)| *is_null) {
            let _ = match fd {
                0 => dup2_stdin(&null),
                1 => dup2_stdout(&null),
                _ => dup2_stderr(&null),
            };
        }
    }
}

/// Gives a stream to the user. Returns whether it is the null device.
fn give(stream: BorrowedFd<'_>, user: Uid) -> bool {
    let Ok(stat) = fstat(stream) else { return false };
    let kind = FileType::from_raw_mode(stat.st_mode);
    if stat.st_uid != user.as_raw() && matches!(kind, FileType::Fifo | FileType::Socket) {
        // A refusal costs the program nothing but the opening by name.
        let _ = fchown(stream, Some(user), None);
    }
    kind == FileType::CharacterDevice && stat.st_rdev == null_device()
}

/// The container's null device, if it has one.
pub(crate) fn own_null(root: impl AsFd) -> Option<OwnedFd> {
    open_null(&root).ok()?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let null = openat2(&root, "/dev/null", flags, Mode::empty(), INSIDE).ok()?;
    fstat(&null)
        .is_ok_and(|stat| stat.st_rdev == null_device())
        .then_some(null)
}
