//! How a command fails.

/// What is said and returned by a command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// A sentence.
    pub(crate) message: String,
    /// The program's exit code.
    pub(crate) exit_code: u8,
    /// A container had begun to be when it happened, and its hooks may have run.
    pub(crate) had_begun: bool,
}

/// The exit code of a command that was called the wrong way, or that failed.
const FAILED: u8 = 1;
/// That of `exec`, which else is the program's.
const EXEC_FAILED: u8 = 255;
/// That of a command that does not exist.
const UNKNOWN: u8 = 3;

impl Failure {
    /// The same, as `exec` fails.
    pub(crate) fn of_exec(self) -> Failure {
        Failure {
            exit_code: EXEC_FAILED,
            ..self
        }
    }
}

/// A command line that makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        exit_code: FAILED,
        had_begun: false,
    }
}

/// A command that does not exist.
pub(crate) fn unknown_command(name: &str) -> Failure {
    Failure {
        message: format!("There is no command {name:?}; see berth-oci --help."),
        exit_code: UNKNOWN,
        had_begun: false,
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        usage(format!(
            "The command line is not understood: {error}; see berth-oci --help."
        ))
    }
}

impl From<berth_runtime::Error> for Failure {
    fn from(error: berth_runtime::Error) -> Failure {
        let refused = matches!(
            error,
            berth_runtime::Error::Invalid { .. } | berth_runtime::Error::Unsupported { .. }
        );
        Failure {
            had_begun: !refused,
            ..usage(error.to_string())
        }
    }
}

impl From<berth_runtime::cgroups::CgroupError> for Failure {
    fn from(error: berth_runtime::cgroups::CgroupError) -> Failure {
        usage(error.to_string())
    }
}

/// Adds what was attempted to an operating system's error.
pub(crate) trait Attempt<T> {
    /// `doing` begins with a verb.
    fn attempt(self, doing: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T, E: Into<std::io::Error>> Attempt<T> for Result<T, E> {
    fn attempt(self, doing: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| usage(format!("Could not {}: {}.", doing(), e.into())))
    }
}
