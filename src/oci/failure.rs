//! How a command fails.

/// What is said and returned by a command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    /// A sentence.
    pub(crate) message: String,
    /// The program's exit code.
    pub(crate) exit_code: u8,
}

/// The exit code of a command that was called the wrong way, or that failed.
const FAILED: u8 = 1;

/// A command line that makes no sense.
pub(crate) fn usage(message: impl Into<String>) -> Failure {
    Failure {
        message: message.into(),
        exit_code: FAILED,
    }
}

impl From<lexopt::Error> for Failure {
    fn from(error: lexopt::Error) -> Failure {
        usage(format!("The command line is not understood: {error}."))
    }
}

impl From<berth_runtime::Error> for Failure {
    fn from(error: berth_runtime::Error) -> Failure {
        let exit_code = match &error {
            berth_runtime::Error::CannotRun { exit_code, .. } => *exit_code,
            _ => FAILED,
        };
        Failure {
            message: error.to_string(),
            exit_code,
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
