//! From the engine's errors to gRPC's.

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};

use crate::engine::EngineError;

/// Where an error says of which kind it is, if its code does not: for clients that are berth themselves.
pub(crate) const KIND: &str = "berth-error-kind";
/// The program is missing or can't be executed.
pub(crate) const CANNOT_RUN: &str = "cannot-run";

/// The code by which a kubelet acts, and the sentence for people.
pub(crate) fn status(error: EngineError) -> Status {
    let code = match &error {
        EngineError::NotFound(_) => Code::NotFound,
        EngineError::InvalidArgument(_) | EngineError::InvalidImageName(_) => Code::InvalidArgument,
        EngineError::FailedPrecondition(_) => Code::FailedPrecondition,
        EngineError::DeadlineExceeded(_) => Code::DeadlineExceeded,
        EngineError::Unimplemented(_) => Code::Unimplemented,
        EngineError::Unavailable(_) => Code::Unavailable,
        // The kubelet takes any other code for the reason that the verb itself stands for.
        EngineError::ImagePull(_) | EngineError::CannotRun { .. } | EngineError::Internal(_) => Code::Unknown,
    };
    let mut metadata = MetadataMap::new();
    if matches!(error, EngineError::CannotRun { .. }) {
        metadata.insert(KIND, MetadataValue::from_static(CANNOT_RUN));
    }
    Status::with_metadata(code, shortened(error.to_string()), metadata)
}

/// gRPC sends a message as a header, of which clients take 16 KiB: more, and they see no error but a broken answer.
const MAX_MESSAGE: usize = 4 << 10;

/// A message may quote what a client sent.
fn shortened(mut message: String) -> String {
    if message.len() > MAX_MESSAGE {
        let end = message.floor_char_boundary(MAX_MESSAGE);
        message.truncate(end);
        message.push_str("….");
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_fits_into_a_header() {
        let of = |text: &str| {
            status(EngineError::NotFound(text.to_owned()))
                .message()
                .to_owned()
        };
        assert_eq!(of("There is no container x."), "There is no container x.");
        let long = of(&"ä".repeat(MAX_MESSAGE));
        assert!(
            long.len() < MAX_MESSAGE + 10 && long.ends_with("ä…."),
            "{}",
            long.len()
        );
    }
}
