//! The tcpSocket probe: a port that takes a connection.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::outcome::Outcome;

/// Connects once.
pub(super) async fn attempt(host: &str, port: u16, limit: Duration) -> Outcome {
    match timeout(limit, TcpStream::connect((host, port))).await {
        Ok(Ok(_)) => Outcome::Success,
        Ok(Err(error)) => Outcome::Failure(format!("dial tcp {host}:{port}: {error}")),
        Err(_) => Outcome::Failure(format!("dial tcp {host}:{port}: no answer within {limit:?}")),
    }
}
