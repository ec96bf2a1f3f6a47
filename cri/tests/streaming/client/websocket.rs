//! A WebSocket client as client-go is one.

use berth_cri::StreamOptions;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::{Told, parts};

pub(crate) struct WebSocket {
    pub(crate) sink: SplitSink<WebSocketStream<TcpStream>, Message>,
    pub(crate) stream: SplitStream<WebSocketStream<TcpStream>>,
    base64: bool,
    half_close: bool,
}

impl WebSocket {
    pub(crate) async fn connect(url: &str, protocol: Option<&str>) -> Result<Self, Box<Error>> {
        let mut request = url.replacen("http", "ws", 1).into_client_request().unwrap();
        if let Some(protocol) = protocol {
            let value = HeaderValue::from_str(protocol).unwrap();
            request.headers_mut().insert("Sec-WebSocket-Protocol", value);
        }
        let tcp = TcpStream::connect(parts(url).0).await.unwrap();
        let (socket, answer) = tokio_tungstenite::client_async(request, tcp).await?;
        let agreed = answer.headers().get("Sec-WebSocket-Protocol");
        assert_eq!(agreed.map(|agreed| agreed.to_str().unwrap()), protocol);
        let (sink, stream) = socket.split();
        let protocol = protocol.unwrap_or_default();
        Ok(Self {
            sink,
            stream,
            base64: protocol.contains("base64"),
            half_close: protocol.starts_with("v5"),
        })
    }

    pub(crate) async fn send(&mut self, channel: u8, bytes: &[u8]) {
        self.sink
            .send(message(self.base64, channel, bytes))
            .await
            .unwrap();
    }

    /// The next message's channel and content; `None` at the end, which has to be a normal close.
    pub(crate) async fn read(&mut self) -> Option<(u8, Vec<u8>)> {
        read(&mut self.stream, self.base64).await
    }

    pub(crate) async fn run(self, options: StreamOptions, stdin: &[u8]) -> Told {
        let Self {
            mut sink,
            mut stream,
            base64,
            half_close,
        } = self;
        let write = async {
            if !options.stdin {
                return;
            }
            for piece in stdin.chunks(32 << 10) {
                // The command may have ended meanwhile.
                if sink.send(message(base64, 0, piece)).await.is_err() {
                    return;
                }
            }
            if half_close {
                let _ = sink.send(Message::Binary(vec![255, 0].into())).await;
            }
        };
        let read = async {
            let mut told = Told::default();
            while let Some((channel, bytes)) = read(&mut stream, base64).await {
                match channel {
                    1 => told.stdout.extend_from_slice(&bytes),
                    2 => told.stderr.extend_from_slice(&bytes),
                    3 => told.error.extend_from_slice(&bytes),
                    other => panic!("channel {other}"),
                }
            }
            told
        };
        let ((), told) = tokio::join!(write, read);
        told
    }

    /// The bytes that go through it as a tunnel.
    pub(crate) fn tunnel(self) -> DuplexStream {
        let Self {
            mut sink, mut stream, ..
        } = self;
        let (inside, outside) = tokio::io::duplex(64 << 10);
        let (mut from_inside, mut to_inside) = tokio::io::split(outside);
        tokio::spawn(async move {
            while let Some(Ok(message)) = stream.next().await {
                if let Message::Binary(bytes) = message
                    && to_inside.write_all(&bytes).await.is_err()
                {
                    return;
                }
            }
            let _ = to_inside.shutdown().await;
        });
        tokio::spawn(async move {
            // Cut where it has no meaning.
            let mut buffer = vec![0; 9999];
            while let Ok(count @ 1..) = from_inside.read(&mut buffer).await {
                if sink
                    .send(Message::Binary(buffer[..count].to_vec().into()))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            let _ = sink.close().await;
        });
        inside
    }
}

fn message(base64: bool, channel: u8, bytes: &[u8]) -> Message {
    use base64::Engine;
    if base64 {
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        return Message::Text(format!("{channel}{text}").into());
    }
    Message::Binary([&[channel], bytes].concat().into())
}

async fn read(stream: &mut SplitStream<WebSocketStream<TcpStream>>, base64: bool) -> Option<(u8, Vec<u8>)> {
    use base64::Engine;
    loop {
        match stream.next().await?.unwrap() {
            Message::Binary(bytes) => {
                assert!(!base64, "bytes where text was agreed on");
                return Some((bytes[0], bytes[1..].to_vec()));
            }
            Message::Text(text) => {
                assert!(base64, "text where bytes were agreed on");
                let bytes = base64::engine::general_purpose::STANDARD
                    .decode(&text[1..])
                    .unwrap();
                return Some((text.as_bytes()[0] - b'0', bytes));
            }
            Message::Close(frame) => {
                assert_eq!(frame.unwrap().code, CloseCode::Normal);
                return None;
            }
            _ => {}
        }
    }
}
