//! From gRPC's errors to the engine's: the code says which one it is, the other side's sentence why, and who said it is named.

use std::error::Error;

use tonic::{Code, Status};

use super::link::Link;
use crate::cannot_run;
use crate::engine::EngineError;
use crate::server::failure::{CANNOT_RUN, KIND};

/// What the failure of a call means.
pub(super) fn error(link: &Link, verb: &str, status: &Status) -> EngineError {
    if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
        return EngineError::Internal(format!(
            "The answer of {} to {verb} is longer than this engine takes: {}.",
            link.who(),
            status.message()
        ));
    }
    // What the connection and not the runtime says has a cause on this side.
    if let Some(cause) = status.source() {
        return EngineError::Unavailable(format!(
            "The connection to {} failed while it was asked for {verb}: {}.",
            link.who(),
            root(cause)
        ));
    }
    let said = said(link, status.message());
    match status.code() {
        Code::NotFound => EngineError::NotFound(said),
        Code::InvalidArgument if verb == "PullImage" => EngineError::InvalidImageName(said),
        Code::InvalidArgument => EngineError::InvalidArgument(said),
        Code::FailedPrecondition => EngineError::FailedPrecondition(said),
        Code::DeadlineExceeded => EngineError::DeadlineExceeded(said),
        // What tonic and grpc-go answer when the time that came with the request is over.
        Code::Cancelled if status.message().eq_ignore_ascii_case("timeout expired") => {
            EngineError::DeadlineExceeded(said)
        }
        Code::Unimplemented => EngineError::Unimplemented(format!(
            "{} does not know the verb {verb}: {}",
            link.who(),
            sentence(status.message())
        )),
        _ if verb == "PullImage" => EngineError::ImagePull(said),
        _ if cannot_run(status) => EngineError::CannotRun {
            exit_code: cannot_run::exit_code(status.message()).unwrap_or(cannot_run::NOT_EXECUTABLE),
            message: said,
        },
        Code::Unavailable | Code::ResourceExhausted => EngineError::Unavailable(said),
        _ => EngineError::Internal(said),
    }
}

/// Another berth says so beside the code; others only in the words of runc and crun.
fn cannot_run(status: &Status) -> bool {
    let kind = status.metadata().get(KIND).map(|kind| kind.as_bytes());
    let words = status.message();
    kind == Some(CANNOT_RUN.as_bytes())
        || words.contains("executable file") && words.contains("not found in $PATH")
}

fn said(link: &Link, message: &str) -> String {
    format!("{} says: {}", link.who(), sentence(message))
}

/// With a full stop at its end; of an error without words something that says so.
fn sentence(message: &str) -> String {
    let message = message.trim();
    if message.is_empty() {
        return "nothing more.".to_owned();
    }
    if message.ends_with(['.', '!', '?']) {
        message.to_owned()
    } else {
        format!("{message}.")
    }
}

/// Whether the connection was found closed before anything of the request was on it.
pub(super) fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

fn root(error: &dyn Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_code_decides_and_the_other_sides_sentence_is_kept() {
        let link = Link::new("/run/x.sock").unwrap();
        link.set_name("other 1.0".to_owned());
        let of = |verb: &str, code| error(&link, verb, &Status::new(code, "no such thing"));
        assert!(matches!(of("X", Code::NotFound), EngineError::NotFound(_)));
        assert!(matches!(
            of("PullImage", Code::Unknown),
            EngineError::ImagePull(_)
        ));
        assert!(matches!(
            of("PullImage", Code::NotFound),
            EngineError::NotFound(_)
        ));
        assert!(matches!(of("X", Code::Unknown), EngineError::Internal(_)));
        assert!(matches!(of("X", Code::Unavailable), EngineError::Unavailable(_)));
        let words = "exec: \"x\": executable file not found in $PATH: unknown";
        let missing = error(&link, "ExecSync", &Status::new(Code::Unknown, words));
        assert!(matches!(missing, EngineError::CannotRun { exit_code: 127, .. }));
        let sent = crate::server::failure::status(EngineError::CannotRun {
            exit_code: 126,
            message: "No program.".to_owned(),
        });
        assert!(matches!(
            error(&link, "ExecSync", &sent),
            EngineError::CannotRun { exit_code: 126, .. }
        ));
        assert_eq!(
            of("X", Code::Unknown).to_string(),
            "other 1.0 at unix:///run/x.sock says: no such thing."
        );
        assert_eq!(
            of("Status", Code::Unimplemented).to_string(),
            "other 1.0 at unix:///run/x.sock does not know the verb Status: no such thing."
        );
    }
}
