//! A byte stream in a WebSocket: binary messages are its bytes, however they are cut. SPDY goes through it.

use bytes::{Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio_tungstenite::tungstenite::Message;

use super::{Role, frames, normal_close};

/// Bytes that wait in the tunnel, in each direction.
const TUNNEL: usize = 128 << 10;

/// The stream inside, and the work that keeps it going until either side ends.
pub(in crate::streaming) async fn tunnel<T>(
    io: T,
    role: Role,
) -> (DuplexStream, impl Future<Output = ()> + Send)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sink, mut messages) = frames(io, role).await.split();
    let (inside, outside) = tokio::io::duplex(TUNNEL);
    let (mut from_inside, mut to_inside) = tokio::io::split(outside);
    let incoming = async move {
        while let Some(Ok(message)) = messages.next().await {
            let bytes: Bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Text(_) => {
                    tracing::warn!("The other end of a tunnel is let go: it sent text through it.");
                    break;
                }
                Message::Close(_) => break,
                _ => continue,
            };
            if to_inside.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The end for whoever reads inside.
        let _ = to_inside.shutdown().await;
    };
    let outgoing = async move {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(TUNNEL);
            match from_inside.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => break,
            }
            if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                return;
            }
        }
        let _ = sink.send(normal_close()).await;
    };
    let work = async move {
        tokio::join!(incoming, outgoing);
    };
    (inside, work)
}
