//! A client of registries: the distribution specification's "pull".
//!
//! Written over hyper and not over the `oci-client` crate, because that one reads manifests of any size into memory, can't
//! be made on a machine without certificate authorities (which loopback needs none of), sends credentials to token servers
//! over plain HTTP, and knows no identity tokens.

mod blob;
mod body;
mod challenge;
mod failure;
mod hosts;
mod http;
mod patience;
mod tls;
mod token;

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue, LOCATION, RANGE, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Request, Response, StatusCode, Uri};
use tokio::sync::Mutex;

use self::body::read_limited;
use self::failure::{Failure, Subject};
pub(crate) use self::http::is_loopback;
use self::http::{Http, empty};
pub(crate) use self::patience::Patience;
use crate::credentials::Credentials;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::hosts::Host;
use crate::manifest::{ACCEPTED, MAX_MANIFEST};
use crate::reference::Reference;

/// How often a request is tried.
const ATTEMPTS: u32 = 5;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause that a server may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: u32 = 5;
/// The largest answer that tells of an error.
const MAX_ERROR: u64 = 64 * 1024;

/// One repository of a registry.
#[derive(Debug)]
pub(crate) struct Registry {
    http: Http,
    host: Host,
    subject: Subject,
    credentials: Credentials,
    authorization: Mutex<Option<HeaderValue>>,
    patience: Arc<Patience>,
}

impl Registry {
    /// A repository as one of its hosts has it.
    pub(crate) fn new(
        reference: &Reference,
        host: Host,
        credentials: Credentials,
        patience: Arc<Patience>,
    ) -> Result<Self, ImageError> {
        let subject = Subject {
            reference: reference.clone(),
        };
        let http = Http::new(&host.tls).map_err(|why| subject.registry(&why))?;
        Ok(Self {
            http,
            host,
            subject,
            credentials,
            authorization: Mutex::new(None),
            patience,
        })
    }

    /// A manifest or index, by tag or digest, with its digest. A digest is checked.
    pub(crate) async fn manifest(&self, version: &str) -> Result<(Digest, Vec<u8>), ImageError> {
        let path = format!("manifests/{version}");
        let accept = ACCEPTED.join(", ");
        let bytes = self.get_small(&path, &accept, MAX_MANIFEST).await?;
        let digest = match version.parse::<Digest>() {
            Ok(digest) => self.check(&bytes, digest)?,
            Err(_) => Digest::sha256(&bytes),
        };
        Ok((digest, bytes))
    }

    /// A small blob in memory, checked.
    pub(crate) async fn small_blob(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self.get_small(&format!("blobs/{digest}"), "*/*", size).await?;
        if bytes.len() as u64 != size {
            return Err(ImageError::Corrupt(format!(
                "{}: blob {digest} has {} bytes, and the manifest says {size}",
                self.subject.reference,
                bytes.len()
            )));
        }
        self.check(&bytes, digest.clone())?;
        Ok(bytes)
    }

    fn check(&self, bytes: &[u8], digest: Digest) -> Result<Digest, ImageError> {
        let mut hasher = digest.hasher();
        hasher.update(bytes);
        let found = hasher.finish();
        if found == digest {
            return Ok(digest);
        }
        Err(ImageError::Corrupt(format!(
            "{}: the registry sent {found} when asked for {digest}. It, or something on the way, changes contents",
            self.subject.reference
        )))
    }

    async fn get_small(&self, path: &str, accept: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let bytes = self
            .patience
            .wait(self.try_get_small(path, accept, limit))
            .await?;
        self.patience.progressed();
        Ok(bytes)
    }

    async fn try_get_small(&self, path: &str, accept: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 1;
        loop {
            let outcome = match self.try_get(path, accept, None).await {
                Ok(answer) => read_limited(answer.into_body(), limit)
                    .await
                    .map_err(|e| self.subject.broken(&e)),
                Err(failure) => Err(failure),
            };
            match outcome {
                Ok(bytes) => return Ok(bytes),
                Err(failure) => pause = wait(failure, &mut attempt, pause).await?,
            }
        }
    }

    /// One try: follows redirects, and authenticates if asked to.
    async fn try_get(
        &self,
        path: &str,
        accept: &str,
        offset: Option<u64>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut url = format!(
            "{}/{}/{path}",
            self.host.base,
            self.subject.reference.repository()
        );
        if !self.host.upstream {
            // A mirror of several registries has to know which one is meant.
            url.push_str("?ns=");
            url.push_str(self.subject.reference.registry());
        }
        let first: Uri = url
            .parse()
            .map_err(|_| Failure::fatal(self.subject.registry(&format!("{url} is not a URL"))))?;
        let mut uri = first.clone();
        let mut authenticated = false;
        for _ in 0..=MAX_REDIRECTS + 1 {
            let ours = uri.authority() == first.authority() && uri.scheme() == first.scheme();
            let authorization = self.authorization.lock().await.clone().filter(|_| ours);
            let answer = self.request(&uri, accept, offset, authorization.as_ref()).await?;
            match answer.status() {
                StatusCode::OK | StatusCode::PARTIAL_CONTENT => return Ok(answer),
                StatusCode::UNAUTHORIZED if ours && !authenticated => {
                    authenticated = true;
                    self.authenticate(answer, authorization.as_ref()).await?;
                }
                status if status.is_redirection() => uri = self.redirect(&uri, &answer)?,
                _ => return Err(self.failed(answer).await),
            }
        }
        Err(Failure::fatal(self.subject.registry(&format!(
            "{first} redirects more than {MAX_REDIRECTS} times"
        ))))
    }

    async fn request(
        &self,
        uri: &Uri,
        accept: &str,
        offset: Option<u64>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().uri(uri).header(ACCEPT, accept);
        if let Some(offset) = offset.filter(|offset| *offset > 0) {
            request = request.header(RANGE, format!("bytes={offset}-"));
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if self.is_ours(uri) {
            for (name, value) in &self.host.headers {
                request = request.header(name, value);
            }
        }
        let request = request
            .body(empty())
            .map_err(|_| Failure::fatal(self.subject.registry(&format!("{uri} is not a URL"))))?;
        self.http
            .send(request)
            .await
            .map_err(|e| self.subject.unreachable(uri, &*e))
    }

    /// Whether a URL is of this host, and not one that it sends its clients to.
    fn is_ours(&self, uri: &Uri) -> bool {
        let base: Option<Uri> = self.host.base.parse().ok();
        base.is_some_and(|base| base.authority() == uri.authority() && base.scheme() == uri.scheme())
    }

    /// Gets what the registry wants to see. `used` is what it did not take.
    async fn authenticate(
        &self,
        answer: Response<Incoming>,
        used: Option<&HeaderValue>,
    ) -> Result<(), Failure> {
        let mut authorization = self.authorization.lock().await;
        if authorization.as_ref() != used {
            // Another request got a new one meanwhile.
            return Ok(());
        }
        let challenges: Vec<_> = answer
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let new = token::authorize(&self.http, &self.subject, &challenges, &self.credentials).await?;
        if new.is_none() || new.as_ref() == used {
            let body = read_limited(answer.into_body(), MAX_ERROR)
                .await
                .unwrap_or_default();
            return Err(self.subject.denied(&body, &self.credentials));
        }
        *authorization = new;
        Ok(())
    }

    fn redirect(&self, from: &Uri, answer: &Response<Incoming>) -> Result<Uri, Failure> {
        let bad = |why: String| Failure::fatal(self.subject.registry(&why));
        let location = answer
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let absolute = match (
            location.starts_with('/') && !location.starts_with("//"),
            from.authority(),
        ) {
            (true, Some(authority)) => {
                format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
            }
            _ => location.to_owned(),
        };
        let to: Uri = absolute
            .parse()
            .map_err(|_| bad(format!("{from} redirects to {location:?}, which is not a URL")))?;
        let allowed = match to.scheme_str() {
            Some("https") => true,
            Some("http") => {
                from.scheme_str() == Some("http")
                    && (to.host().is_some_and(is_loopback) || (self.host.plain && self.is_ours(&to)))
            }
            _ => false,
        };
        if allowed {
            Ok(to)
        } else {
            Err(bad(format!("{from} redirects to {to}, which is not HTTPS")))
        }
    }

    async fn failed(&self, answer: Response<Incoming>) -> Failure {
        let status = answer.status();
        let retry_after = answer
            .headers()
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| text.parse().ok())
            .map(Duration::from_secs);
        let body = read_limited(answer.into_body(), MAX_ERROR)
            .await
            .unwrap_or_default();
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.subject.denied(&body, &self.credentials),
            status => self.subject.status(status, &body, retry_after),
        }
    }
}

/// Waits before the next attempt, and tells the pause after that; or gives up.
async fn wait(failure: Failure, attempt: &mut u32, pause: Duration) -> Result<Duration, ImageError> {
    let Some(wanted) = failure.retry.filter(|_| *attempt < ATTEMPTS) else {
        return Err(failure.error);
    };
    if wanted.is_some_and(|wanted| wanted > MAX_PAUSE) {
        return Err(failure.error);
    }
    *attempt += 1;
    tokio::time::sleep(wanted.unwrap_or(pause)).await;
    Ok(pause * 2)
}
