//! Port-forward: between a client's streams and a connection to the pod.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::remote_command::piece;
use super::stream::{Closed, Input, Output};
use crate::engine::Engine;
use crate::types::SandboxId;

/// What is read at once, in bytes.
const PIECE: usize = 32 << 10;

/// A client's connection to a port of a pod.
pub(super) struct Forward {
    pub(super) sandbox: SandboxId,
    pub(super) port: u16,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) error: Output,
}

impl Forward {
    /// Connects and passes everything on until both directions have ended. What goes wrong is said on the error
    /// stream, in upstream's words, and breaks the data stream off.
    pub(super) async fn run(self, engine: &dyn Engine) {
        let Self {
            sandbox,
            port,
            input,
            output,
            error,
        } = self;
        let why = match engine.port_forward(&sandbox, port).await {
            Ok(stream) => match copy(stream, input, &output).await {
                Ok(()) => None,
                Err(Broken::Client) => Some(String::new()),
                Err(Broken::Pod(error)) => Some(format!("the connection to the pod broke: {error}")),
            },
            Err(error) => Some(error.to_string()),
        };
        // Whoever has left misses nothing.
        if let Some(why) = why {
            if !why.is_empty() {
                let text = format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
                tracing::debug!("{text}");
                let _ = error.write(text.into()).await;
            }
            let _ = output.reset().await;
        }
        let _ = error.finish().await;
    }
}

/// Who broke a connection off.
enum Broken {
    Client,
    Pod(io::Error),
}

/// Says on a pair of streams that there is nothing behind them.
pub(super) async fn fail(error: &Output, why: String) {
    let _ = error.write(why.into()).await;
    let _ = error.finish().await;
}

/// Each direction ends by itself.
async fn copy(stream: TcpStream, input: Input, output: &Output) -> Result<(), Broken> {
    // Small answers are not to wait for more.
    let _ = stream.set_nodelay(true);
    let (from_pod, to_pod) = stream.into_split();
    tokio::try_join!(receive(from_pod, output), send(to_pod, input)).map(drop)
}

/// From the pod to the client.
async fn receive(mut from: OwnedReadHalf, to: &Output) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(PIECE, 0);
        let count = from.read(&mut buffer).await.map_err(Broken::Pod)?;
        let sent = match count {
            0 => return to.finish().await.map_err(|Closed| Broken::Client),
            count => to.write(piece(&mut buffer, count)).await,
        };
        sent.map_err(|Closed| Broken::Client)?;
    }
}

/// From the client to the pod. A pod that takes no more may still have something to say.
async fn send(mut to: OwnedWriteHalf, mut from: Input) -> Result<(), Broken> {
    while let Some(piece) = from.read().await {
        if let Err(error) = to.write_all(&piece).await {
            tracing::debug!("A pod takes no more of a forwarded connection: {error}.");
            return Ok(());
        }
    }
    if from.is_broken() {
        // The pod must not take what came so far for all.
        let _ = to.as_ref().set_zero_linger();
        to.forget();
        return Err(Broken::Client);
    }
    let _ = to.shutdown().await;
    Ok(())
}
