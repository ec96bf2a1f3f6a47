//! What a client is told on the error stream at the end: `metav1.Status`, or a sentence in the oldest versions.

use serde_json::json;

use crate::engine::EngineError;

/// How a session ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The command ended with 0, or the container that was attached to has ended.
    Success,
    /// The command ended with something else.
    ExitCode { command: Vec<String>, code: i32 },
    /// It did not come to that: what could not be done, and why.
    Failed(&'static str, EngineError),
}

impl Outcome {
    /// As version 4 and later have it.
    pub(super) fn json(&self) -> Vec<u8> {
        let status = match self {
            Self::Success => json!({ "metadata": {}, "status": "Success" }),
            Self::ExitCode { code, .. } => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "NonZeroExitCode",
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failed(..) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.message(),
                "reason": "InternalError",
                "details": { "causes": [{ "message": self.cause() }] },
                "code": 500,
            }),
        };
        status.to_string().into_bytes()
    }

    /// As the versions before have it; nothing is success.
    pub(super) fn message(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode { .. } => {
                format!("command terminated with non-zero exit code: {}", self.cause())
            }
            Self::Failed(..) => format!("Internal error occurred: {}", self.cause()),
        }
    }

    fn cause(&self) -> String {
        match self {
            Self::Success => String::new(),
            Self::ExitCode { command, code } => {
                format!("error executing command {command:?}, exit code {code}")
            }
            Self::Failed(what, error) => format!("{what}: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause_that_kubectl_knows() {
        let command = vec!["false".to_owned()];
        let outcome = Outcome::ExitCode { command, code: 3 };
        let status: serde_json::Value = serde_json::from_slice(&outcome.json()).unwrap();
        assert_eq!(status["status"], "Failure");
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(
            status["details"]["causes"],
            json!([{ "reason": "ExitCode", "message": "3" }])
        );
        assert!(outcome.message().contains("exit code 3"));
        assert_eq!(Outcome::Success.message(), "");
    }
}
