//! Host ports where the node's network is not the machine's: slirp4netns(1) or what stands in for its API is asked to forward the
//! machine's ports to the node, where they are mapped to pods as ever.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::records;
use crate::engine::EngineError;
use crate::types::{PortMapping, Protocol};

/// What was asked for, in the sandbox's run directory.
const RECORD: &str = "host-ports.json";
/// An answer is a number, or a sentence.
const MAX_ANSWER: u64 = 64 << 10;

/// What a sandbox has of a forwarder's.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Forwards {
    /// Numbers mean something only to the one that gave them.
    forwarder: (u64, u64),
    ids: Vec<i64>,
}

/// Forwards the machine's ports of a sandbox. What was forwarded before something fails is recorded, for [`remove`].
pub(super) async fn add(
    socket: &Path,
    sandbox_run: &Path,
    mappings: &[PortMapping],
) -> Result<(), EngineError> {
    let unavailable = |error: io::Error| {
        EngineError::Unavailable(format!(
            "The machine's ports can't be forwarded by way of {}: {error}.",
            socket.display()
        ))
    };
    let mut forwards = Forwards {
        forwarder: identity(socket).map_err(unavailable)?,
        ids: Vec::new(),
    };
    for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
        let answer = ask(socket, &request(mapping)?).await.map_err(unavailable)?;
        let Some(id) = answer.pointer("/return/id").and_then(Value::as_i64) else {
            return Err(EngineError::Unavailable(refusal(mapping, &answer)));
        };
        forwards.ids.push(id);
        records::write(&sandbox_run.join(RECORD), &forwards).map_err(unavailable)?;
    }
    Ok(())
}

/// Takes back what the sandbox had forwarded. Idempotent.
pub(super) async fn remove(socket: &Path, sandbox_run: &Path) -> Result<(), EngineError> {
    let path = sandbox_run.join(RECORD);
    let failed = |error: io::Error| {
        EngineError::Internal(format!(
            "The machine's ports in {} can't be taken back: {error}.",
            path.display()
        ))
    };
    let Some(forwards) = records::read::<Forwards>(&path).map_err(failed)? else {
        return Ok(());
    };
    // With the program, its ports have gone.
    if identity(socket).is_ok_and(|identity| identity == forwards.forwarder) {
        for id in &forwards.ids {
            let request = json!({ "execute": "remove_hostfwd", "arguments": { "id": id } });
            // One that is not there is gone.
            ask(socket, &request).await.map_err(failed)?;
        }
    }
    std::fs::remove_file(&path).map_err(failed)
}

fn identity(socket: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::metadata(socket)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn request(mapping: &PortMapping) -> Result<Value, EngineError> {
    let proto = match mapping.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => {
            return Err(EngineError::InvalidArgument(format!(
                "Port {} of the machine can't be forwarded: TCP and UDP are forwarded to an ordinary user's node, SCTP is not.",
                mapping.host_port
            )));
        }
    };
    let address = match mapping.host_ip {
        None => "0.0.0.0".to_owned(),
        Some(address) => address.to_string(),
    };
    // Without an address of the node's it is whichever the node has.
    Ok(json!({ "execute": "add_hostfwd", "arguments": {
        "proto": proto,
        "host_addr": address,
        "host_port": mapping.host_port,
        "guest_port": mapping.host_port,
    }}))
}

fn refusal(mapping: &PortMapping, answer: &Value) -> String {
    let said = answer.pointer("/error/desc").and_then(Value::as_str);
    format!(
        "Port {} of the machine can't be had: something listens on it, or only root may ({}).",
        mapping.host_port,
        said.unwrap_or("what forwards ports said nothing")
            .trim_end_matches('.')
    )
}

/// One request, one answer, one connection.
async fn ask(socket: &Path, request: &Value) -> io::Result<Value> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(request.to_string().as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    serde_json::from_slice(&answer).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn mapping(host_port: u16) -> PortMapping {
        PortMapping {
            host_port,
            container_port: 80,
            protocol: Protocol::Udp,
            host_ip: Some([127, 0, 0, 1].into()),
        }
    }

    /// Answers one request after the other.
    fn forwarder(path: &Path, answers: &'static [&str]) -> tokio::task::JoinHandle<Vec<Value>> {
        let listener = UnixListener::bind(path).unwrap();
        tokio::spawn(async move {
            let mut heard = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                heard.push(serde_json::from_slice(&text).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heard
        })
    }

    #[tokio::test]
    async fn what_is_forwarded_is_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let answers = forwarder(
            &socket,
            &[
                r#"{"return":{"id":7}}"#,
                r#"{"error":{"desc":"busy"}}"#,
                r#"{"return":{}}"#,
            ],
        );
        let error = add(&socket, dir.path(), &[mapping(0), mapping(8080), mapping(8081)])
            .await
            .unwrap_err();
        assert!(error.to_string().contains("Port 8081") && error.to_string().contains("busy"));
        remove(&socket, dir.path()).await.unwrap();
        // Nothing is left to do.
        remove(&socket, dir.path()).await.unwrap();
        let heard = answers.await.unwrap();
        assert_eq!(heard[0]["arguments"]["host_addr"], "127.0.0.1");
        assert_eq!(heard[0]["arguments"]["proto"], "udp");
        assert_eq!(heard[0]["arguments"]["guest_port"], 8080);
        assert_eq!(heard[2]["execute"], "remove_hostfwd");
        assert_eq!(heard[2]["arguments"]["id"], 7);
    }

    #[tokio::test]
    async fn another_forwarder_has_other_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let first = forwarder(&socket, &[r#"{"return":{"id":7}}"#]);
        add(&socket, dir.path(), &[mapping(8080)]).await.unwrap();
        first.await.unwrap();
        // Kept, so that the file system does not give its number to the next one.
        std::fs::rename(&socket, dir.path().join("old")).unwrap();
        let _second = UnixListener::bind(&socket).unwrap();
        remove(&socket, dir.path()).await.unwrap();
        assert!(!dir.path().join(RECORD).exists());
    }
}
