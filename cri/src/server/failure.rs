//! From the engine's errors to gRPC's.

use tonic::{Code, Status};

use crate::engine::EngineError;

/// The code by which a kubelet acts, and the sentence for people.
pub(super) fn status(error: EngineError) -> Status {
    let code = match &error {
        EngineError::NotFound(_) => Code::NotFound,
        EngineError::InvalidArgument(_) | EngineError::InvalidImageName(_) => Code::InvalidArgument,
        EngineError::FailedPrecondition(_) => Code::FailedPrecondition,
        EngineError::DeadlineExceeded(_) => Code::DeadlineExceeded,
        EngineError::Unimplemented(_) => Code::Unimplemented,
        EngineError::Unavailable(_) => Code::Unavailable,
        // The kubelet takes any other code for the reason that the verb itself stands for.
        EngineError::ImagePull(_) | EngineError::CannotRun(_) | EngineError::Internal(_) => Code::Unknown,
    };
    Status::new(code, error.to_string())
}
