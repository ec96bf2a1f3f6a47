//! The gRPC probe: `grpc.health.v1.Health/Check` over HTTP/2 without TLS.
//!
//! One call with one short message each way needs no generated code: the request has one field (`service`, 1), the answer
//! one (`status`, 1), and the call's own status is a trailer.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, TE, USER_AGENT};
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::outcome::Outcome;
use crate::defaults::{MAX_PROBE_OUTPUT, PROBE_USER_AGENT};

/// `grpc-status: UNIMPLEMENTED`.
const UNIMPLEMENTED: &str = "12";
/// `grpc-status: DEADLINE_EXCEEDED`.
const DEADLINE_EXCEEDED: &str = "4";

/// What to ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grpc {
    /// An address or a name.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The service whose health is asked for; empty is the server as a whole.
    pub(crate) service: String,
}

/// The server did not answer as it should.
enum Fault {
    /// Connecting failed.
    Connect(String),
    /// The call failed.
    Call(String),
}

/// Asks once. Connection and call have the time limit together, as upstream has it.
pub(super) async fn attempt(grpc: &Grpc, limit: Duration) -> Outcome {
    let end = Instant::now() + limit;
    let address = authority(grpc);
    let stream = match timeout_at(end, TcpStream::connect((grpc.host.as_str(), grpc.port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return connect_failed(&address, &error.to_string()),
        Err(_) => {
            return Outcome::Failure(format!(
                "timeout: failed to connect service \"{address}\" within {limit:?}"
            ));
        }
    };
    match timeout_at(end, call(grpc, stream)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(Fault::Connect(error))) => connect_failed(&address, &error),
        Ok(Err(Fault::Call(error))) => Outcome::Failure(format!("error: health rpc probe failed: {error}")),
        Err(_) => Outcome::Failure(format!("timeout: health rpc did not complete within {limit:?}")),
    }
}

fn connect_failed(address: &str, error: &str) -> Outcome {
    Outcome::Failure(format!(
        "error: failed to connect service at \"{address}\": {error}"
    ))
}

fn authority(grpc: &Grpc) -> String {
    if grpc.host.contains(':') {
        format!("[{}]:{}", grpc.host, grpc.port)
    } else {
        format!("{}:{}", grpc.host, grpc.port)
    }
}

async fn call(grpc: &Grpc, stream: TcpStream) -> Result<Outcome, Fault> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| Fault::Connect(error.to_string()))?;
    // The connection ends with this set, whatever ends this future.
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{}/grpc.health.v1.Health/Check", authority(grpc)))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, PROBE_USER_AGENT)
        .body(Full::new(Bytes::from(message(&grpc.service))))
        .map_err(|error| Fault::Call(error.to_string()))?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| Fault::Call(error.to_string()))?;
    judge(response).await
}

/// The request as a message of the stream: not compressed, its length, and the field `service`.
fn message(service: &str) -> Vec<u8> {
    let mut field = Vec::new();
    if !service.is_empty() {
        field.push(0x0a);
        varint(service.len(), &mut field);
        field.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
    let mut message = vec![0];
    message.extend_from_slice(&length.to_be_bytes());
    message.extend(field);
    message
}

fn varint(mut number: usize, to: &mut Vec<u8>) {
    while number >= 0x80 {
        to.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    to.push(u8::try_from(number).unwrap_or(0));
}

async fn judge(response: Response<Incoming>) -> Result<Outcome, Fault> {
    let status = response.status();
    if !status.is_success() {
        return Err(Fault::Call(format!(
            "the server answered with HTTP status {status}"
        )));
    }
    // A call without an answer has its status among the headers.
    let mut headers = response.headers().clone();
    let collected = Limited::new(response.into_body(), MAX_PROBE_OUTPUT)
        .collect()
        .await;
    let collected = collected.map_err(|error| Fault::Call(error.to_string()))?;
    if let Some(trailers) = collected.trailers() {
        headers.extend(trailers.clone());
    }
    let text = |name: &str| text(&headers, name);
    match text("grpc-status").as_deref() {
        Some("0") => {}
        Some(UNIMPLEMENTED) => {
            return Ok(Outcome::Failure(format!(
                "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {}",
                text("grpc-message").unwrap_or_default()
            )));
        }
        Some(DEADLINE_EXCEEDED) => {
            return Ok(Outcome::Failure(
                "timeout: health rpc did not complete in time".to_owned(),
            ));
        }
        Some(code) => {
            let message = text("grpc-message").unwrap_or_default();
            return Err(Fault::Call(format!(
                "rpc error: code = {}: {message}",
                code_name(code)
            )));
        }
        None => return Err(Fault::Call("the answer has no grpc-status".to_owned())),
    }
    match serving_status(&collected.to_bytes()) {
        Some(1) => Ok(Outcome::Success),
        Some(status) => Ok(Outcome::Failure(format!(
            "service unhealthy (responded with \"{}\")",
            status_name(status)
        ))),
        None => Err(Fault::Call("the answer is no HealthCheckResponse".to_owned())),
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The field `status` of the answer; 0 if it is left out. `None` if it is not such a message.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (&compressed, rest) = body.split_first()?;
    let (length, rest) = rest.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let mut message = rest.get(..usize::try_from(length).ok()?)?;
    if compressed != 0 {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let tag = take_varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = take_varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(take_varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn take_varint(from: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = from.split_first()?;
        *from = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn status_name(status: u64) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => other.to_string(),
    }
}

/// A code as gRPC's libraries write it.
fn code_name(code: &str) -> &str {
    match code {
        "1" => "Canceled",
        "2" => "Unknown",
        "3" => "InvalidArgument",
        "5" => "NotFound",
        "7" => "PermissionDenied",
        "8" => "ResourceExhausted",
        "13" => "Internal",
        "14" => "Unavailable",
        "16" => "Unauthenticated",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_is_one_message_with_the_service() {
        assert_eq!(message(""), [0, 0, 0, 0, 0]);
        assert_eq!(message("db"), [0, 0, 0, 0, 4, 0x0a, 2, b'd', b'b']);
        let long = message(&"x".repeat(200));
        assert_eq!(long[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn answers_are_read_to_the_byte() {
        for (body, status) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 7, 0x12, 1, b'x', 0x1d, 0, 0, 0], None),
            (&[0, 0, 0, 0, 10, 0x12, 1, b'x', 0x1d, 0, 0, 0, 0, 8, 2], Some(2)),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0], None),
            (&[0, 0, 0, 0, 2, 15, 1], None),
        ] {
            assert_eq!(serving_status(body), status, "{body:?}");
        }
    }
}
