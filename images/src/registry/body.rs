//! Bodies of answers.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How long a server may send nothing in the middle of an answer.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// The next bytes; `None` at the end.
pub(super) async fn next_chunk(body: &mut Incoming) -> Result<Option<Bytes>, io::Error> {
    loop {
        let frame = tokio::time::timeout(IDLE_TIMEOUT, body.frame())
            .await
            .map_err(|_| {
                let why = format!("nothing came for {} seconds", IDLE_TIMEOUT.as_secs());
                io::Error::new(io::ErrorKind::TimedOut, why)
            })?;
        match frame {
            None => return Ok(None),
            Some(Err(e)) => return Err(io::Error::other(e)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole body, of up to `limit` bytes.
pub(super) async fn read_limited(mut body: Incoming, limit: u64) -> Result<Vec<u8>, io::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = next_chunk(&mut body).await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the answer is longer than {limit} bytes"),
            ));
        }
    }
    Ok(bytes)
}
