//! Host ports where the node's network is not the machine's: a forwarder, which is in both, listens on the machine and carries
//! to the pod what comes.
//!
//! What a sandbox has is a record in its run directory, written before the forwarder is asked, so that one that was killed is
//! followed by one that forwards the same; see [`recorded`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::records;
use crate::engine::EngineError;
use crate::types::{PortMapping, Protocol};

/// A sandbox's [`HostPort`]s, in its run directory.
const RECORD: &str = "host-ports.json";
/// No request and no answer is longer, in bytes.
pub const MAX_MESSAGE: u64 = 64 << 10;
/// The machine's addresses of either family.
const ALL: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    IpAddr::V6(Ipv6Addr::UNSPECIFIED),
];
/// A forwarder that was killed is followed by another within this time.
const PATIENCE: Duration = Duration::from_secs(10);

/// An address of the machine that leads to one of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostPort {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On the machine. Each family has its own ports; all addresses of one that the machine lacks are none.
    pub at: SocketAddr,
    /// The pod's.
    pub to: SocketAddr,
}

/// What a forwarder is asked, as JSON; a connection has one request and one [`Answer`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Request {
    /// All of these, or none; again is no mistake.
    Forward {
        /// Whose they are.
        sandbox: String,
        /// All that it has.
        ports: Vec<HostPort>,
    },
    /// What a sandbox has, if anything.
    Release {
        /// Whose they were.
        sandbox: String,
    },
}

/// What a forwarder says, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It is so.
    Done,
    /// A port can't be had.
    Taken {
        /// Where it would be.
        at: SocketAddr,
        /// Part of a sentence.
        why: String,
    },
    /// The request is none.
    Misunderstood(String),
}

/// What all sandboxes have by their records, whose run directories are in `run`'s `sandboxes`: an id and its ports each.
#[must_use]
pub fn recorded(run: &Path) -> Vec<(String, Vec<HostPort>)> {
    let entries = std::fs::read_dir(run.join("sandboxes"));
    let of_sandbox = |entry: std::fs::DirEntry| {
        // One that is not there is one of a sandbox without ports, and one that can't be read is no forwarder's to mend.
        let ports = records::read(&entry.path().join(RECORD)).ok()??;
        Some((entry.file_name().to_string_lossy().into_owned(), ports))
    };
    entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(of_sandbox)
        .collect()
}

/// Forwards the machine's ports of a sandbox.
pub(super) async fn add(
    socket: &Path,
    (sandbox, run): (&str, &Path),
    ports: Vec<HostPort>,
) -> Result<(), EngineError> {
    if ports.is_empty() {
        return Ok(());
    }
    let unavailable = |error: io::Error| {
        EngineError::Unavailable(format!(
            "The machine's ports can't be forwarded by way of {}: {error}.",
            socket.display()
        ))
    };
    let record = run.join(RECORD);
    records::write(&record, &ports).map_err(unavailable)?;
    let request = Request::Forward {
        sandbox: sandbox.to_owned(),
        ports,
    };
    let asked = timeout(PATIENCE, ask_until_answered(socket, &request)).await;
    let answer = asked.map_err(|_| unavailable(io::ErrorKind::TimedOut.into()))?;
    let refused = match answer.map_err(unavailable)? {
        Answer::Done => return Ok(()),
        Answer::Taken { at, why } => format!(
            "Port {} of the machine can't be had at {}: {why}.",
            at.port(),
            at.ip()
        ),
        Answer::Misunderstood(why) => format!("The machine's ports can't be forwarded: {why}."),
    };
    std::fs::remove_file(&record).map_err(unavailable)?;
    Err(EngineError::Unavailable(refused))
}

/// Takes back what the sandbox had forwarded. Idempotent.
pub(super) async fn remove(socket: &Path, (sandbox, run): (&str, &Path)) -> Result<(), EngineError> {
    let path = run.join(RECORD);
    let failed = |error: io::Error| {
        EngineError::Internal(format!(
            "The machine's ports in {} can't be taken back: {error}.",
            path.display()
        ))
    };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let request = Request::Release {
        sandbox: sandbox.to_owned(),
    };
    match timeout(PATIENCE, ask(socket, &request)).await {
        Err(_) => Err(failed(io::ErrorKind::TimedOut.into())),
        // A forwarder that ends takes its ports along, and the next one finds no record of these.
        Ok(_) => Ok(()),
    }
}

/// Where each of a pod's ports leads, which has these addresses.
pub(super) fn ports(mappings: &[PortMapping], pod: &[IpAddr]) -> Result<Vec<HostPort>, EngineError> {
    let mut ports = Vec::new();
    for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
        if mapping.protocol == Protocol::Sctp {
            return Err(EngineError::InvalidArgument(format!(
                "Port {} of the machine can't be forwarded: TCP and UDP are forwarded to an ordinary user's pods, SCTP is not.",
                mapping.host_port
            )));
        }
        let of_four = pod.iter().find(|address| address.is_ipv4());
        let pod = of_four.or_else(|| pod.first());
        let pod = pod.ok_or_else(|| {
            EngineError::FailedPrecondition(format!(
                "Port {} of the machine leads nowhere: the pod has no address.",
                mapping.host_port
            ))
        })?;
        let at = match mapping.host_ip {
            Some(address) => vec![address],
            None => ALL.to_vec(),
        };
        ports.extend(at.into_iter().map(|address| HostPort {
            protocol: mapping.protocol,
            at: SocketAddr::new(address, mapping.host_port),
            to: SocketAddr::new(*pod, mapping.container_port),
        }));
    }
    Ok(ports)
}

/// Asks again where a forwarder ended before it answered.
async fn ask_until_answered(socket: &Path, request: &Request) -> io::Result<Answer> {
    loop {
        match ask(socket, request).await {
            Err(error) if is_end(error.kind()) => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

fn is_end(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// One request, one answer, one connection.
async fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(&serde_json::to_vec(request)?).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(MAX_MESSAGE).read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    serde_json::from_slice(&answer).map_err(io::Error::from)
}

#[cfg(test)]
mod tests;
