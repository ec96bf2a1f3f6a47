//! One of a connection's streams, whatever protocol carries it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::spdy;
use super::websocket;

/// Pieces of input that wait for whoever reads them; while they do the connection is not read any further.
pub(super) const QUEUED_PIECES: usize = 4;

/// The client has left, or does not want this stream any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("The client has left.")]
pub(super) struct Closed;

/// What a client sends on a stream. What comes after it was dropped is thrown away.
#[derive(Debug)]
pub(super) struct Input {
    queue: mpsc::Receiver<Bytes>,
    broken: Arc<AtomicBool>,
    credit: Option<spdy::Credit>,
}

impl Input {
    /// An input, and the other end of it. `broken` is set, if ever, before that end goes.
    pub(super) fn new(credit: Option<spdy::Credit>) -> (Self, mpsc::Sender<Bytes>, Arc<AtomicBool>) {
        let (sender, queue) = mpsc::channel(QUEUED_PIECES);
        let broken = Arc::new(AtomicBool::new(false));
        let input = Self {
            queue,
            broken: Arc::clone(&broken),
            credit,
        };
        (input, sender, broken)
    }

    /// The next piece; `None` once the client has no more to say.
    pub(super) async fn read(&mut self) -> Option<Bytes> {
        let piece = self.queue.recv().await?;
        if let Some(credit) = &self.credit {
            credit.give(piece.len());
        }
        Some(piece)
    }

    /// Whether the client broke off, rather than come to an end.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

/// What a client is told on a stream.
#[derive(Clone, Debug)]
pub(super) enum Output {
    Spdy(spdy::Writer),
    WebSocket(websocket::Writer),
}

impl Output {
    /// Sends a piece, after those before it. Waits while the client does not read.
    pub(super) async fn write(&self, piece: Bytes) -> Result<(), Closed> {
        match self {
            Self::Spdy(writer) => writer.write(piece).await,
            Self::WebSocket(writer) => writer.write(piece).await,
        }
    }

    /// Says that no more will come.
    pub(super) async fn finish(&self) -> Result<(), Closed> {
        match self {
            Self::Spdy(writer) => writer.finish().await,
            Self::WebSocket(writer) => writer.finish().await,
        }
    }

    /// Breaks off, after what was sent before. A WebSocket has no way to say so.
    pub(super) async fn reset(&self) -> Result<(), Closed> {
        match self {
            Self::Spdy(writer) => writer.reset().await,
            Self::WebSocket(_) => Ok(()),
        }
    }
}
