//! Why a request failed, and what the client is told.

use std::io;

use berth_runtime::cgroups::CgroupError;

use crate::protocol::{Failure, FailureCode};

/// A request that could not be done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("There is no container {0} in this pod.")]
    NoContainer(String),
    #[error("There is no exec {0} in this pod.")]
    NoExec(String),
    #[error("There is already a {what} {id} in this pod.")]
    Exists { what: &'static str, id: String },
    #[error("The {what} {id} {state}.")]
    WrongState {
        what: &'static str,
        id: String,
        state: &'static str,
    },
    #[error("{0}.")]
    Invalid(String),
    #[error("Commands of container {0} can't be repeated by the shim.")]
    NotRepeated(String),
    #[error("The configuration of container {id} can't be used: {reason}.")]
    Bundle { id: String, reason: String },
    #[error(transparent)]
    Runtime(#[from] berth_runtime::Error),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("The runtime {name} could not {doing}: {reason}.")]
    Handler {
        /// As the node's configuration calls it.
        name: String,
        doing: String,
        reason: String,
        /// The program to run is missing or can't be executed.
        cannot_run: bool,
    },
    #[error("Could not {doing}: {source}.")]
    Io { doing: String, source: io::Error },
}

impl RequestError {
    /// Says what was attempted when the kernel or a file system refused; begins with a verb.
    pub(crate) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::Io {
            doing,
            source: source.into(),
        }
    }

    /// The descriptors of an exec are not what one takes.
    pub(crate) fn exec_streams() -> Self {
        let streams = "An exec takes three descriptors (stdin, stdout, stderr), or none and a terminal";
        Self::Invalid(streams.into())
    }

    fn code(&self) -> FailureCode {
        match self {
            Self::NoContainer(_) | Self::NoExec(_) => FailureCode::NotFound,
            Self::Exists { .. } => FailureCode::AlreadyExists,
            Self::WrongState { .. } => FailureCode::WrongState,
            Self::Runtime(berth_runtime::Error::CannotRun { .. })
            | Self::Handler { cannot_run: true, .. } => FailureCode::CannotRun,
            Self::NotRepeated(_) => FailureCode::Unsupported,
            Self::Invalid(_)
            | Self::Bundle { .. }
            | Self::Runtime(
                berth_runtime::Error::Invalid { .. } | berth_runtime::Error::Unsupported { .. },
            ) => FailureCode::Invalid,
            Self::Runtime(_) | Self::Handler { .. } | Self::Cgroup(_) | Self::Io { .. } => {
                FailureCode::Internal
            }
        }
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        Self {
            code: error.code(),
            exit_code: match &error {
                RequestError::Runtime(berth_runtime::Error::CannotRun { exit_code, .. }) => Some(*exit_code),
                _ => None,
            },
            message: error.to_string(),
        }
    }
}
