//! What goes to the peer: one task writes; control frames overtake data.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::connection::Shared;
use super::frame::{Encoder, Frame, MAX_PIECE, ProtocolError, reset};
use crate::streaming::stream::Closed;

/// Frames of all streams that wait to be written.
pub(super) const QUEUED_FRAMES: usize = 8;
/// Control frames that the peer may leave unread.
const MAX_CONTROL: usize = 1024;
/// So many frames are written at once, in bytes.
const BATCH: usize = 128 << 10;
/// A window is opened again after so many bytes.
const CREDIT: u32 = 32 << 10;

/// Control frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Control {
    queue: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Frame>,
    /// By how much windows are to be opened, by stream.
    credits: BTreeMap<u32, u32>,
    /// The last frame of the connection.
    last: Option<Frame>,
}

impl Control {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame.
    ///
    /// # Errors
    /// The peer has left very many unread.
    pub(super) fn push(&self, frame: Frame) -> Result<(), ProtocolError> {
        let mut waiting = self.waiting();
        if waiting.frames.len() >= MAX_CONTROL {
            return Err(ProtocolError::Flood);
        }
        waiting.frames.push_back(frame);
        self.wake.notify_one();
        Ok(())
    }

    /// Ends the connection with this frame.
    pub(super) fn push_last(&self, frame: Frame) {
        self.waiting().last = Some(frame);
        self.wake.notify_one();
    }

    /// Opens a stream's window and the whole connection's again, once there is enough to tell.
    pub(super) fn credit(&self, stream: u32, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut waiting = self.waiting();
        let mut enough = false;
        for stream in [0, stream] {
            let credit = waiting.credits.entry(stream).or_default();
            *credit = credit.saturating_add(count);
            enough |= *credit >= CREDIT;
        }
        if enough {
            self.wake.notify_one();
        }
    }

    pub(super) fn forget(&self, stream: u32) {
        self.waiting().credits.remove(&stream);
    }

    /// Appends what waits. `true` if that was the connection's last word.
    fn encode(&self, encoder: &mut Encoder, out: &mut BytesMut) -> bool {
        let mut waiting = self.waiting();
        for frame in waiting.frames.drain(..) {
            encoder.encode(&frame, out);
        }
        waiting.credits.retain(|stream, credit| {
            let keep = *credit < CREDIT;
            if !keep {
                let (stream, delta) = (*stream, *credit);
                encoder.encode(&Frame::WindowUpdate { stream, delta }, out);
            }
            keep
        });
        let last = waiting.last.take();
        if let Some(frame) = &last {
            encoder.encode(frame, out);
        }
        last.is_some()
    }
}

/// Opens the windows again as a stream's data is taken.
#[derive(Clone, Debug)]
pub(in crate::streaming) struct Credit {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: u32,
}

impl Credit {
    pub(in crate::streaming) fn give(&self, count: usize) {
        self.shared.control.credit(self.stream, count);
    }
}

/// The writing end of a stream.
#[derive(Clone, Debug)]
pub(in crate::streaming) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) stream: u32,
    pub(super) broken: Arc<AtomicBool>,
    /// How much the peer takes of it, if it keeps to windows.
    pub(super) window: Option<Arc<Semaphore>>,
}

impl Writer {
    /// Sends a piece, in as many frames as the windows need.
    pub(in crate::streaming) async fn write(&self, mut piece: Bytes) -> Result<(), Closed> {
        while !piece.is_empty() {
            let now = piece.split_to(piece.len().min(MAX_PIECE));
            self.take_window(now.len()).await?;
            self.send(now, false).await?;
        }
        Ok(())
    }

    async fn take_window(&self, count: usize) -> Result<(), Closed> {
        let Some(window) = &self.window else { return Ok(()) };
        let count = u32::try_from(count).map_err(|_| Closed)?;
        for window in [window, &self.shared.window] {
            let room = window.acquire_many(count).await.map_err(|_| Closed)?;
            room.forget();
        }
        Ok(())
    }

    async fn send(&self, bytes: Bytes, fin: bool) -> Result<(), Closed> {
        if self.broken.load(Ordering::Acquire) {
            return Err(Closed);
        }
        let stream = self.stream;
        let frame = Frame::Data { stream, fin, bytes };
        self.shared.data.send(frame).await.map_err(|_| Closed)
    }

    /// Says that no more will come.
    pub(in crate::streaming) async fn finish(&self) -> Result<(), Closed> {
        self.shared.output_finished(self.stream);
        self.send(Bytes::new(), true).await
    }

    /// Ends the stream in both directions, after what was sent on it.
    pub(in crate::streaming) async fn reset(&self) -> Result<(), Closed> {
        self.shared.forget(self.stream);
        let frame = Frame::Reset {
            stream: self.stream,
            status: reset::CANCEL,
        };
        self.shared.data.send(frame).await.map_err(|_| Closed)
    }
}

/// Writes until nobody can send any more, or the connection breaks.
pub(super) async fn write_all(
    shared: &Shared,
    mut data: mpsc::Receiver<Frame>,
    mut io: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut encoder = Encoder::default();
    let mut out = BytesMut::with_capacity(BATCH);
    loop {
        let frame = tokio::select! {
            biased;
            () = shared.control.wake.notified() => None,
            frame = data.recv() => frame,
        };
        let mut next = frame;
        let over = loop {
            // An accepted stream's reply goes before its data.
            let over = shared.control.encode(&mut encoder, &mut out);
            let Some(frame) = next.filter(|_| !over) else {
                break over;
            };
            encoder.encode(&frame, &mut out);
            next = if out.len() < BATCH {
                data.try_recv().ok()
            } else {
                None
            };
        };
        io.write_all(&out).await?;
        io.flush().await?;
        out.clear();
        shared.activity.touch();
        if over {
            return io.shutdown().await;
        }
    }
}
