//! Layers: streams that go on where they broke.

use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;

use super::body::next_chunk;
use super::{FIRST_PAUSE, Registry, wait};
use crate::digest::Digest;
use crate::error::ImageError;

/// A blob on its way. Broken connections are mended with a request for the rest.
pub(crate) struct BlobStream<'a> {
    registry: &'a Registry,
    path: String,
    size: u64,
    body: Option<Incoming>,
    /// Bytes handed out.
    offset: u64,
    /// Bytes that the server sends again, although they were not asked for.
    skip: u64,
    attempt: u32,
    pause: Duration,
    /// Bytes handed out when the attempts were counted anew.
    mark: u64,
}

/// So much must come between two breaks for the attempts to be counted anew.
const PROGRESS: u64 = 64 * 1024;

impl Registry {
    /// The bytes of a blob. They are not checked; nothing is requested before the first of them is.
    pub(crate) fn blob(&self, digest: &Digest, size: u64) -> BlobStream<'_> {
        BlobStream {
            registry: self,
            path: format!("blobs/{digest}"),
            size,
            body: None,
            offset: 0,
            skip: 0,
            attempt: 1,
            pause: FIRST_PAUSE,
            mark: 0,
        }
    }
}

impl BlobStream<'_> {
    /// The next bytes; `None` at the end. It ends early only with an error.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ImageError> {
        let patience = &self.registry.patience;
        let next = patience.wait(self.receive()).await?;
        match &next {
            Some(bytes) => patience.received(bytes.len()),
            None => patience.progressed(),
        }
        Ok(next)
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, ImageError> {
        loop {
            let Some(body) = &mut self.body else {
                if self.offset > 0 && self.offset >= self.size {
                    return Ok(None);
                }
                self.connect().await?;
                continue;
            };
            let failure = match next_chunk(body).await {
                Ok(Some(chunk)) => match self.unseen(chunk) {
                    Some(chunk) => return Ok(Some(chunk)),
                    None => continue,
                },
                Ok(None) if self.offset >= self.size => return Ok(None),
                Ok(None) => {
                    let early = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "it ended too early");
                    self.registry.subject.broken(&early)
                }
                Err(e) => self.registry.subject.broken(&e),
            };
            self.body = None;
            self.pause = wait(failure, &mut self.attempt, self.pause).await?;
        }
    }

    async fn connect(&mut self) -> Result<(), ImageError> {
        match self.registry.try_get(&self.path, "*/*", Some(self.offset)).await {
            Ok(answer) => {
                self.skip = if answer.status() == StatusCode::PARTIAL_CONTENT {
                    0
                } else {
                    self.offset
                };
                self.body = Some(answer.into_body());
            }
            Err(failure) => self.pause = wait(failure, &mut self.attempt, self.pause).await?,
        }
        Ok(())
    }

    /// What is new of a chunk. Real progress earns new attempts.
    fn unseen(&mut self, mut chunk: Bytes) -> Option<Bytes> {
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
        self.skip -= known as u64;
        let new = chunk.split_off(known);
        if new.is_empty() {
            return None;
        }
        self.offset += new.len() as u64;
        if self.offset - self.mark >= PROGRESS {
            self.mark = self.offset;
            self.attempt = 1;
            self.pause = FIRST_PAUSE;
        }
        Some(new)
    }
}
