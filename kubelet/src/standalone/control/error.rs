//! Why something could not be asked, or was not done.

use std::io;

use super::super::inspect::InspectError;
use super::super::lock::LockError;
use super::protocol::{Refusal, RefusalKind};

/// What a shell ends with if a program can't be executed.
const NOT_EXECUTABLE: u8 = 126;

/// Why something could not be asked, or was not done.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The pod can't be found.
    #[error(transparent)]
    Inspect(#[from] InspectError),
    /// Its lock can't be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The command can't be executed in the container.
    #[error("{message}")]
    CannotRun {
        /// What a shell would end with: 127 if there is no such program, 126 if it is none that can be executed.
        exit_code: u8,
        /// Which program, and why.
        message: String,
    },
    /// It was refused.
    #[error("{0}")]
    Refused(String),
    /// The process that runs the pod ended before it answered.
    #[error("The process that runs the pod ended before it answered; try again.")]
    Lost,
    /// The process that runs the pod is not to be reached.
    #[error("The process that runs the pod can't be reached: {0}.")]
    Io(#[from] io::Error),
    /// The process that runs the pod is of another version of berth.
    #[error("{0}")]
    OtherVersion(String),
    /// Nobody runs the pod, and this process can't look after it.
    #[error("{0}")]
    Unavailable(String),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal.kind {
            RefusalKind::CannotRun => Self::CannotRun {
                exit_code: refusal.exit_code.unwrap_or(NOT_EXECUTABLE),
                message: refusal.message,
            },
            RefusalKind::NotUnderstood => Self::OtherVersion(refusal.message),
            RefusalKind::NotMine => Self::Lost,
            RefusalKind::Other => Self::Refused(refusal.message),
        }
    }
}
