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
        EngineError::ImagePull(_) | EngineError::CannotRun(_) | EngineError::Internal(_) => Code::Unknown,
    };
    let mut metadata = MetadataMap::new();
    if matches!(error, EngineError::CannotRun(_)) {
        metadata.insert(KIND, MetadataValue::from_static(CANNOT_RUN));
    }
    Status::with_metadata(code, error.to_string(), metadata)
}
