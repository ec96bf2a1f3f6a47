//! What came of one attempt of a probe.

use crate::probe::Outcome as Counted;

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The container answered as it should.
    Success,
    /// As good as success, with something to say about it.
    Warning(String),
    /// The container did not answer as it should.
    Failure(String),
    /// The probe itself could not be done; this says nothing about the container.
    Error(String),
}

impl Outcome {
    /// What it counts as; `None` if it does not count.
    pub fn counts_as(&self) -> Option<Counted> {
        match self {
            Outcome::Success | Outcome::Warning(_) => Some(Counted::Success),
            Outcome::Failure(_) => Some(Counted::Failure),
            Outcome::Error(_) => None,
        }
    }

    /// What there is to say about it, or empty.
    pub fn message(&self) -> &str {
        match self {
            Outcome::Success => "",
            Outcome::Warning(message) | Outcome::Failure(message) | Outcome::Error(message) => message,
        }
    }
}
