//! What went wrong with a registry, told with the way out.

use std::error::Error;
use std::io;
use std::time::Duration;

use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::http::has_roots;
use crate::credentials::Credentials;
use crate::error::ImageError;
use crate::reference::Reference;

/// A failed request.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: ImageError,
    /// Whether trying again may help, and when the server wants it.
    pub(super) retry: Option<Option<Duration>>,
}

impl Failure {
    pub(super) fn fatal(error: ImageError) -> Self {
        Self { error, retry: None }
    }

    fn passing(error: ImageError) -> Self {
        Self {
            error,
            retry: Some(None),
        }
    }
}

/// What is asked for: the object of all messages.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    pub(super) reference: Reference,
}

/// The distribution specification's body of errors.
#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    errors: Vec<ErrorItem>,
    #[serde(default)]
    details: String,
}

#[derive(Deserialize)]
struct ErrorItem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Subject {
    pub(super) fn registry(&self, why: &str) -> ImageError {
        ImageError::Registry(format!("{} can't be pulled: {why}", self.reference))
    }

    /// No connection stands, or no answer came.
    pub(super) fn unreachable(&self, uri: &Uri, error: &(dyn Error + Send + Sync + 'static)) -> Failure {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let mut refused = false;
        let mut passing = true;
        let mut tls = false;
        let mut deepest = error.to_string();
        let mut next: Option<&(dyn Error + 'static)> = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<io::Error>() {
                refused |= error.kind() == io::ErrorKind::ConnectionRefused;
                passing &= !matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused
                        | io::ErrorKind::HostUnreachable
                        | io::ErrorKind::NetworkUnreachable
                );
                // An io::Error hides the error that it wraps from `source`.
                tls |= error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            }
            tls |= error.is::<rustls::Error>();
            deepest = error.to_string();
            next = error.source();
        }
        let why = if refused {
            format!("nothing listens at {host}: check the registry's name, and whether it runs")
        } else if tls && !has_roots() {
            format!(
                "{host} can't be trusted: this machine has no certificate authorities. Install ca-certificates"
            )
        } else if tls {
            format!(
                "the TLS connection to {host} failed: {deepest}. Plain HTTP is spoken with registries on loopback only"
            )
        } else {
            format!("{host} can't be reached: {deepest}")
        };
        let error = self.registry(&why);
        if passing && !tls {
            Failure::passing(error)
        } else {
            Failure::fatal(error)
        }
    }

    /// The answer ended early.
    pub(super) fn broken(&self, error: &io::Error) -> Failure {
        let mut deepest = error.to_string();
        let mut next = error.source();
        while let Some(error) = next {
            deepest = error.to_string();
            next = error.source();
        }
        let answer = self.registry(&format!(
            "the connection broke in the middle of an answer: {deepest}"
        ));
        if error.kind() == io::ErrorKind::FileTooLarge {
            Failure::fatal(answer)
        } else {
            Failure::passing(answer)
        }
    }

    /// An answer that is no success.
    pub(super) fn status(&self, status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Failure {
        let said = said(body);
        let reference = &self.reference;
        let registry = reference.registry();
        match status {
            StatusCode::NOT_FOUND => Failure::fatal(ImageError::NotFound(format!(
                "{reference} is not in the registry {registry}{said}. Check the name and the tag"
            ))),
            StatusCode::TOO_MANY_REQUESTS => Failure {
                error: self.registry(&format!(
                    "{registry} allows no more requests for now{said}. Try later, or log in with `docker login {registry}`"
                )),
                retry: Some(retry_after),
            },
            status if status.is_server_error() => Failure {
                error: self.registry(&format!("{registry} has a problem: it answers {status}{said}. Try again later")),
                retry: Some(retry_after),
            },
            status => Failure::fatal(self.registry(&format!("{registry} answers {status}{said}"))),
        }
    }

    /// The registry wants other credentials.
    pub(super) fn denied(&self, body: &[u8], credentials: &Credentials) -> Failure {
        let registry = self.reference.registry();
        let hint = match credentials {
            Credentials::Anonymous => format!(
                "Either it does not exist, or it needs credentials: log in with `docker login {registry}`"
            ),
            _ => format!(
                "The credentials do not allow it: correct the pull secret, or renew those in docker's config.json with \
                 `docker login {registry}`"
            ),
        };
        Failure::fatal(ImageError::Unauthorized(format!(
            "{registry} refuses access to {}{}. {hint}",
            self.reference,
            said(body)
        )))
    }
}

/// What the registry says itself, if it does: `: "…"`.
fn said(body: &[u8]) -> String {
    let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(body) else {
        return String::new();
    };
    let said = match answer.errors.first() {
        Some(item) if !item.message.is_empty() => &item.message,
        Some(item) => &item.code,
        None => &answer.details,
    };
    let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
    if said.is_empty() {
        String::new()
    } else {
        format!(" (it says: {said})")
    }
}
