//! A question that was put to a process, and what came back: an answer, descriptors, and the end of a command.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::super::lock::PodLock;
use super::error::CallError;
use super::protocol::{Answer, Ended, Reply, Request, Resize};
use super::wire::Wire;

/// A connection with its first answer.
pub(super) struct Call {
    pub(super) wire: Wire,
    pub(super) answer: Answer,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) _here: Option<Here>,
}

/// This process looks after a pod that nobody runs, as long as it is asked about it.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) task: JoinHandle<()>,
    pub(super) _lock: PodLock,
}

impl Drop for Here {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A command's streams, or a container's.
pub struct Streams {
    /// Its input.
    pub stdin: Option<OwnedFd>,
    /// Its output; of a terminal, all of it.
    pub stdout: Option<OwnedFd>,
    /// Its error output.
    pub stderr: Option<OwnedFd>,
    /// It has a terminal.
    pub tty: bool,
    /// How much longer output is waited for after the end; `None` means that it is sure to end.
    pub drain: Option<Duration>,
    /// The terminal's size goes this way.
    pub end: EndOf,
}

/// The connection that the end of a command is told over.
pub struct EndOf {
    wire: Wire,
    _here: Option<Here>,
}

impl EndOf {
    /// Tells the size of the terminal.
    ///
    /// # Errors
    /// The process that runs the pod has gone.
    pub async fn resize(&self, width: u16, height: u16) -> io::Result<()> {
        self.wire.send(&Resize { width, height }, &[]).await
    }

    /// Returns with the exit code when it has ended.
    ///
    /// # Errors
    /// It is not known how it ends.
    pub async fn ended(&self) -> Result<i32, CallError> {
        match self.wire.receive::<Ended>().await? {
            Some((Ended { result }, _)) => Ok(result?),
            None => Err(CallError::Lost),
        }
    }
}

/// The root directory of a container, and who its first process is.
pub struct RootOf {
    /// Opened as a place only (`O_PATH`).
    pub directory: File,
    /// The user's id, as the host numbers it.
    pub uid: u32,
    /// The group's id, as the host numbers it.
    pub gid: u32,
    pub(super) _here: Option<Here>,
}

/// Puts the one question of a connection.
pub(super) async fn question(wire: Wire, request: Request, here: Option<Here>) -> Result<Call, CallError> {
    match wire.send(&request, &[]).await {
        // What it has said before it ended may still be read.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error.into()),
        _ => {}
    }
    match wire.receive::<Reply>().await {
        Ok(Some((reply, fds))) => Ok(Call {
            answer: reply?,
            wire,
            fds,
            _here: here,
        }),
        Ok(None) => Err(CallError::Lost),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CallError::OtherVersion(format!(
            "Its answer can't be read: {error}."
        ))),
        Err(error) => Err(error.into()),
    }
}

impl Call {
    /// The streams that came along.
    pub(super) fn streams(self) -> Result<Streams, CallError> {
        let Answer::Session {
            stdin,
            stdout,
            stderr,
            tty,
            drain,
        } = self.answer
        else {
            return Err(CallError::Lost);
        };
        let mut fds = self.fds.into_iter();
        let mut next = |wanted: bool| wanted.then(|| fds.next()).flatten();
        Ok(Streams {
            stdin: next(stdin),
            stdout: next(stdout),
            stderr: next(stderr),
            tty,
            drain,
            end: EndOf {
                wire: self.wire,
                _here: self._here,
            },
        })
    }
}
