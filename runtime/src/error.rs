//! What can go wrong between a spec and a running process.

use std::io;

/// Why an operation on a container failed. Each message is a sentence that names the object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself or the runtime specification.
    #[error("The configuration is invalid: {field}: {reason}.")]
    Invalid {
        /// The path of the field in `config.json`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The configuration asks for something that this runtime, or this kernel, can't do.
    #[error("{what} is not supported: {reason}.")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why not, and what to do about it.
        reason: String,
    },
    /// The kernel or a file system refused.
    #[error("Could not {doing}: {source}.")]
    System {
        /// What was attempted, beginning with a verb.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program to run is missing (127) or can't be executed (126).
    #[error("{message}.")]
    CannotRun {
        /// The exit code that a shell would give, 126 or 127.
        exit_code: u8,
        /// Which program, and why.
        message: String,
    },
    /// The container's process failed while it set itself up; the message is its own.
    #[error("{0}")]
    Setup(String),
    /// The container's process disappeared while it set itself up.
    #[error("The container's process ended before it was set up: {0}.")]
    Vanished(String),
    /// The container's process was killed by the kernel while it set itself up, since it needs more memory than it may have.
    #[error(
        "The container's process was OOM-killed before it was set up: {}.",
        too_low(*.limit)
    )]
    OutOfMemory {
        /// The container's own limit, in bytes. Without one, it is that of a group above.
        limit: Option<i64>,
    },
    /// A hook failed or took too long.
    #[error("error running {kind} hook #{number}: {path}: {reason}.")]
    Hook {
        /// Which of the six kinds.
        kind: &'static str,
        /// Its place in the list, from 0.
        number: usize,
        /// The hook's program.
        path: String,
        /// How.
        reason: String,
    },
    /// There is no container of that id.
    #[error("The container {0:?} can't be found: container does not exist.")]
    NoContainer(String),
    /// A control group could not be made or configured.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroups::CgroupError),
    /// The seccomp profile could not be compiled.
    #[error(transparent)]
    Seccomp(#[from] crate::seccomp::SeccompError),
}

fn too_low(limit: Option<i64>) -> String {
    match limit {
        Some(limit) => format!("its memory limit of {limit} bytes is too low"),
        None => "the memory limit of the groups above its own is too low".to_owned(),
    }
}

/// The result of an operation on a container.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }

    pub(crate) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> Error {
        Error::Unsupported {
            what: what.into(),
            reason: reason.into(),
        }
    }
}

/// Adds what was attempted to a refused system call.
pub(crate) trait Doing<T> {
    /// `doing` begins with a verb: "mount /proc".
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::System {
            doing: doing(),
            source: e.into(),
        })
    }
}
