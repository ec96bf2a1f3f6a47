//! Clients of a streaming server: what kubectl and crictl do, by either protocol.

pub(crate) mod spdy;
pub(crate) mod websocket;

use std::collections::BTreeMap;

use berth_cri::StreamOptions;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub(crate) use spdy::Spdy;
pub(crate) use websocket::WebSocket;

/// The host and the path of `http://HOST/PATH`.
pub(crate) fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").unwrap();
    let slash = rest.find('/').unwrap();
    (&rest[..slash], &rest[slash..])
}

/// An answer's status and headers, with names in lower case.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
}

/// Sends a request's head and reads the answer's.
pub(crate) async fn request(url: &str, method: &str, headers: &[(&str, &str)]) -> (TcpStream, Answer) {
    let (host, path) = parts(url);
    let mut stream = TcpStream::connect(host).await.unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let text = String::from_utf8(answer).unwrap();
    let mut lines = text.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    (stream, Answer { status, headers })
}

/// What a client was told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) error: Vec<u8>,
}

impl Told {
    pub(crate) fn status(&self) -> Value {
        serde_json::from_slice(&self.error)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&self.error)))
    }

    /// The exit code that `metav1.Status` tells.
    pub(crate) fn exit_code(&self) -> i32 {
        let status = self.status();
        if status["status"] == "Success" {
            return 0;
        }
        assert_eq!(status["reason"], "NonZeroExitCode", "{status}");
        let cause = &status["details"]["causes"][0];
        assert_eq!(cause["reason"], "ExitCode", "{status}");
        cause["message"].as_str().unwrap().parse().unwrap()
    }
}

/// A way to talk to a command: all that the tests below do with both.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Transport {
    /// With this subprotocol.
    WebSocket(&'static str),
    /// With this protocol of streams.
    Spdy(&'static str),
}

/// Those with which a client can end the input.
pub(crate) const BOTH: [Transport; 2] = [
    Transport::WebSocket("v5.channel.k8s.io"),
    Transport::Spdy("v4.channel.k8s.io"),
];

impl Transport {
    /// Gives the command all of `stdin`, the end of it, and reads until it has ended.
    pub(crate) async fn run(self, url: &str, options: StreamOptions, stdin: &[u8]) -> Told {
        match self {
            Self::WebSocket(protocol) => {
                let client = WebSocket::connect(url, Some(protocol)).await.unwrap();
                client.run(options, stdin).await
            }
            Self::Spdy(protocol) => {
                let client = Spdy::connect(url, &[protocol]).await.unwrap();
                client.run(options, stdin).await
            }
        }
    }
}
