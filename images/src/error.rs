//! Why an image could not be had.

use std::io;
use std::path::Path;

/// Why an operation on images failed. The text is a sentence for people that names the object and the way out; the
/// variant is for the caller.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ImageError {
    /// The name is not a name (`InvalidImageName`).
    #[error("{0}")]
    InvalidName(String),
    /// Neither here nor, if a registry was asked, there.
    #[error("{0}")]
    NotFound(String),
    /// The registry wants other credentials.
    #[error("{0}")]
    Unauthorized(String),
    /// The registry can't be reached, or it answers with errors.
    #[error("{0}")]
    Registry(String),
    /// What came is not what its digest or size says, or is cut short.
    #[error("{0}")]
    Corrupt(String),
    /// A layer tries what no honest layer does, or is past the limits.
    #[error("{0}")]
    Refused(String),
    /// A format, media type or platform that can't be used here.
    #[error("{0}")]
    Unsupported(String),
    /// The image has a lease.
    #[error("{0}")]
    InUse(String),
    /// The file system refused: permissions, space, a damaged store.
    #[error("{0}")]
    Io(String),
}

impl ImageError {
    /// Whether another host may do better: it is not there, lacks the image, refuses, or sends what it should not.
    pub(crate) fn is_of_the_host(&self) -> bool {
        matches!(
            self,
            Self::NotFound(_) | Self::Unauthorized(_) | Self::Registry(_) | Self::Corrupt(_)
        )
    }

    /// Says before the text what was being done, in errors about contents: the others say it themselves.
    pub(crate) fn about(self, what: &str) -> Self {
        let add = |text: String| format!("{what}: {text}");
        match self {
            Self::InvalidName(text) => Self::InvalidName(add(text)),
            Self::Corrupt(text) => Self::Corrupt(add(text)),
            Self::Refused(text) => Self::Refused(add(text)),
            Self::Unsupported(text) => Self::Unsupported(add(text)),
            other => other,
        }
    }

    /// A failed file operation: `what` is a verb phrase ("make the directory"), `path` its object.
    pub(crate) fn io(what: &str, path: &Path, error: &io::Error) -> Self {
        let hint = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                ". Free some space, or remove images with `berth image rm`"
            }
            io::ErrorKind::PermissionDenied => ". The image store belongs to root: run as root",
            _ => "",
        };
        Self::Io(format!("could not {what} {}: {error}{hint}", path.display()))
    }
}
