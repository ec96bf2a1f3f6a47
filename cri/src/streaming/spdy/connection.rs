//! One end of a SPDY connection: the client opens streams, one task reads, one writes.
//!
//! Data that nobody takes yet waits in its stream's short queue; then the connection is not read any further, as with
//! `moby/spdystream`: memory is bounded, and TCP tells the client to wait.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::frame::{Decoder, Frame, ProtocolError, SETTINGS_INITIAL_WINDOW_SIZE, reset};
use super::headers::Headers;
use super::outgoing::{Control, Credit, QUEUED_FRAMES, Writer, write_all};
use crate::streaming::activity::Activity;
use crate::streaming::stream::{Input, Output};

/// Streams that a peer may have open at a time.
const MAX_STREAMS: usize = 1024;
/// New streams that wait for whoever handles them.
const QUEUED_STREAMS: usize = 16;
/// How long a peer that breaks the protocol has to read that it does.
const LAST_WORD: Duration = Duration::from_secs(1);
/// How much is read at once, in bytes.
const READ: usize = 64 << 10;
/// The first size of every window, until SETTINGS say another, in bytes.
const FIRST_WINDOW: u32 = 64 << 10;
/// Windows can't be larger, in bytes.
const MAX_WINDOW: usize = (1 << 31) - 1;

/// Which end of a connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The peer opens streams.
    Server,
    /// We open streams.
    Client,
}

/// A connection whose client side opens streams. It ends when it is dropped.
#[derive(Debug)]
pub(in crate::streaming) struct Connection {
    shared: Arc<Shared>,
    incoming: mpsc::Receiver<Stream>,
    _tasks: JoinSet<()>,
}

/// A stream that the client opened, and that nobody has answered yet.
#[derive(Debug)]
pub(in crate::streaming) struct Stream {
    pub(in crate::streaming) id: u32,
    pub(in crate::streaming) headers: Headers,
    input: Input,
    writer: Writer,
}

impl Stream {
    /// Takes the stream.
    pub(in crate::streaming) fn accept(self) -> (Input, Output) {
        let reply = Frame::SynReply {
            stream: self.id,
            fin: false,
            headers: Headers::default(),
        };
        // A peer that floods is let go by the task that reads.
        let _ = self.writer.shared.control.push(reply);
        (self.input, Output::Spdy(self.writer))
    }

    /// Does not take the stream.
    pub(in crate::streaming) fn refuse(self) {
        self.writer.shared.forget(self.id);
        let _ = self.writer.shared.reset(self.id, reset::REFUSED_STREAM);
    }
}

/// What both tasks and all streams know of the connection.
#[derive(Debug)]
pub(super) struct Shared {
    streams: Mutex<HashMap<u32, Entry>>,
    pub(super) data: mpsc::Sender<Frame>,
    pub(super) control: Control,
    closed: watch::Sender<bool>,
    pub(super) activity: Activity,
    /// How much the peer takes on all streams together.
    pub(super) window: Arc<Semaphore>,
    /// The last stream that was opened.
    last_stream: AtomicU32,
    /// Whether the peer keeps to windows.
    keeps_windows: AtomicBool,
    initial_window: AtomicU32,
}

#[derive(Debug)]
struct Entry {
    /// Who waits for the peer to accept the stream that we opened.
    accepted: Option<oneshot::Sender<()>>,
    /// `None` once the peer has no more to say.
    input: Option<mpsc::Sender<Bytes>>,
    output_finished: bool,
    broken: Arc<AtomicBool>,
    window: Option<Arc<Semaphore>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.input.is_some() || !self.output_finished {
            self.broken.store(true, Ordering::Release);
        }
        if let Some(window) = &self.window {
            window.close();
        }
    }
}

impl Connection {
    /// Serves a connection on which HTTP has ended.
    /// The server's end.
    pub(in crate::streaming) fn new<T>(io: T, activity: Activity) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::with_role(io, activity, Role::Server)
    }

    /// The client's end.
    pub(in crate::streaming) fn client<T>(io: T, activity: Activity) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        Self::with_role(io, activity, Role::Client)
    }

    fn with_role<T>(io: T, activity: Activity, role: Role) -> Self
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (data, queued) = mpsc::channel(QUEUED_FRAMES);
        let (offer, incoming) = mpsc::channel(QUEUED_STREAMS);
        let shared = Arc::new(Shared {
            streams: Mutex::default(),
            data,
            control: Control::default(),
            closed: watch::Sender::new(false),
            activity,
            window: Arc::new(Semaphore::new(FIRST_WINDOW as usize)),
            last_stream: AtomicU32::new(0),
            keeps_windows: AtomicBool::new(false),
            initial_window: AtomicU32::new(FIRST_WINDOW),
        });
        let (reading, writing) = tokio::io::split(io);
        let mut tasks = JoinSet::new();
        let reader = Reader {
            shared: Arc::clone(&shared),
            offer,
            role,
        };
        tasks.spawn(reader.run(reading));
        let writer = Arc::clone(&shared);
        tasks.spawn(async move {
            if let Err(error) = write_all(&writer, queued, writing).await {
                tracing::debug!("A streaming client can't be written to: {error}.");
            }
            writer.close();
        });
        Self {
            shared,
            incoming,
            _tasks: tasks,
        }
    }

    /// The next stream that the client opens; `None` once it has left.
    pub(in crate::streaming) async fn next_stream(&mut self) -> Option<Stream> {
        self.incoming.recv().await
    }

    /// Opens a stream, and waits until the server has accepted it; `None` if it does not. The server is not told how much
    /// of it was taken: none keeps to windows that it was not told of, and one that has closed its end must find nothing
    /// more in its socket, or TCP throws away what it said last.
    pub(in crate::streaming) async fn open_stream(&self, headers: Headers) -> Option<(Input, Output)> {
        let last = self.shared.last_stream.load(Ordering::Relaxed);
        let id = if last == 0 { 1 } else { last.checked_add(2)? };
        self.shared.last_stream.store(id, Ordering::Relaxed);
        let (accepted, reply) = oneshot::channel();
        let (input, writer) = self.shared.insert(id, false, None, Some(accepted));
        let open = Frame::SynStream {
            stream: id,
            fin: false,
            unidirectional: false,
            headers,
        };
        self.shared.control.push(open).ok()?;
        if *self.shared.closed.borrow() {
            self.shared.forget(id);
        }
        // Dropped with the entry if the stream is refused or the connection ends.
        reply.await.ok()?;
        Some((input, Output::Spdy(writer)))
    }

    /// Refuses all streams from now on.
    pub(in crate::streaming) fn refuse_streams(&mut self) {
        self.incoming.close();
        while let Ok(stream) = self.incoming.try_recv() {
            stream.refuse();
        }
    }

    /// Resolves when the client has left.
    pub(in crate::streaming) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.shared.closed.subscribe();
        async move {
            // The sender is gone with the connection.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }
}

impl Shared {
    fn streams(&self) -> MutexGuard<'_, HashMap<u32, Entry>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.streams().clear();
        self.window.close();
        self.closed.send_replace(true);
        // One that was entered meanwhile; whoever enters another now finds the connection closed.
        self.streams().clear();
    }

    pub(super) fn forget(&self, stream: u32) {
        self.streams().remove(&stream);
        self.control.forget(stream);
    }

    pub(super) fn output_finished(&self, stream: u32) {
        let mut streams = self.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.output_finished = true;
            if entry.input.is_none() {
                streams.remove(&stream);
                self.control.forget(stream);
            }
        }
    }

    fn input_finished(&self, stream: u32) {
        let mut streams = self.streams();
        if let Some(entry) = streams.get_mut(&stream) {
            entry.input = None;
            if entry.output_finished {
                streams.remove(&stream);
                self.control.forget(stream);
            }
        }
    }

    /// Enters a stream that was opened.
    fn insert(
        self: &Arc<Self>,
        id: u32,
        fin: bool,
        credit: Option<Credit>,
        accepted: Option<oneshot::Sender<()>>,
    ) -> (Input, Writer) {
        let window = self.keeps_windows.load(Ordering::Relaxed).then(|| {
            let size = self.initial_window.load(Ordering::Relaxed);
            Arc::new(Semaphore::new(size as usize))
        });
        let (input, sender, broken) = Input::new(credit);
        let writer = Writer {
            shared: Arc::clone(self),
            stream: id,
            broken: Arc::clone(&broken),
            window: window.clone(),
        };
        let entry = Entry {
            accepted,
            input: (!fin).then_some(sender),
            output_finished: false,
            broken,
            window,
        };
        self.streams().insert(id, entry);
        (input, writer)
    }

    /// The peer has accepted a stream.
    fn accepted(&self, stream: u32) {
        let mut streams = self.streams();
        if let Some(accepted) = streams.get_mut(&stream).and_then(|entry| entry.accepted.take()) {
            // Whoever opened it may have given up.
            let _ = accepted.send(());
        }
    }

    pub(super) fn reset(&self, stream: u32, status: u32) -> Result<(), ProtocolError> {
        self.control.push(Frame::Reset { stream, status })
    }
}

/// The task that reads.
struct Reader {
    shared: Arc<Shared>,
    offer: mpsc::Sender<Stream>,
    role: Role,
}

/// Why reading ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client said so")]
    GoAway,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl Reader {
    async fn run(mut self, io: impl AsyncRead + Unpin) {
        match self.read(io).await {
            Ok(()) | Err(Ended::GoAway) => {}
            Err(Ended::Protocol(error)) => {
                tracing::warn!("A streaming client is let go: {error}");
                let go_away = Frame::GoAway {
                    last_stream: self.shared.last_stream.load(Ordering::Relaxed),
                    status: 1,
                };
                self.shared.control.push_last(go_away);
                let mut closed = self.shared.closed.subscribe();
                let _ = tokio::time::timeout(LAST_WORD, closed.wait_for(|closed| *closed)).await;
            }
            Err(Ended::Io(error)) => tracing::debug!("A streaming client is gone: {error}."),
        }
        self.shared.close();
    }

    async fn read(&mut self, mut io: impl AsyncRead + Unpin) -> Result<(), Ended> {
        let mut decoder = Decoder::default();
        let mut input = BytesMut::with_capacity(READ);
        loop {
            while let Some(frame) = decoder.decode(&mut input)? {
                self.handle(frame).await?;
            }
            if input.capacity() - input.len() < READ / 4 {
                input.reserve(READ);
            }
            if io.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            self.shared.activity.touch();
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Ended> {
        match frame {
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                headers,
            } => self.open(stream, fin, unidirectional, headers).await?,
            Frame::Data { stream, fin, bytes } => self.data(stream, fin, bytes).await?,
            Frame::Headers {
                stream, fin: true, ..
            } => self.shared.input_finished(stream),
            Frame::Reset { stream, .. } => self.shared.forget(stream),
            // Those of the peer; we send none.
            Frame::Ping(id) if (id % 2 == 1) == (self.role == Role::Server) => {
                self.shared.control.push(Frame::Ping(id))?;
            }
            // No more streams, but those there are come to their end.
            Frame::GoAway { .. } if self.role == Role::Client => {}
            Frame::GoAway { .. } => return Err(Ended::GoAway),
            Frame::SynReply { stream, fin, .. } if self.role == Role::Client => {
                self.shared.accepted(stream);
                if fin {
                    self.shared.input_finished(stream);
                }
            }
            Frame::Settings(settings) => self.settings(&settings)?,
            Frame::WindowUpdate { stream, delta } => self.open_window(stream, delta)?,
            Frame::Headers { .. } | Frame::SynReply { .. } | Frame::Ping(_) | Frame::Unknown(_) => {}
        }
        Ok(())
    }

    async fn open(
        &mut self,
        id: u32,
        fin: bool,
        unidirectional: bool,
        headers: Headers,
    ) -> Result<(), ProtocolError> {
        if self.role == Role::Client {
            // Servers of these protocols open none.
            return self.shared.reset(id, reset::REFUSED_STREAM);
        }
        if id.is_multiple_of(2) || id <= self.shared.last_stream.load(Ordering::Relaxed) {
            return Err(ProtocolError::StreamId(id));
        }
        self.shared.last_stream.store(id, Ordering::Relaxed);
        if unidirectional || self.shared.streams().len() >= MAX_STREAMS {
            return self.shared.reset(id, reset::REFUSED_STREAM);
        }
        let credit = Credit {
            shared: Arc::clone(&self.shared),
            stream: id,
        };
        let (input, writer) = self.shared.insert(id, fin, Some(credit), None);
        let stream = Stream {
            id,
            headers,
            input,
            writer,
        };
        if let Err(refused) = self.offer.send(stream).await {
            refused.0.refuse();
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, fin: bool, bytes: Bytes) -> Result<(), ProtocolError> {
        let known = self
            .shared
            .streams()
            .get(&stream)
            .map(|entry| entry.input.clone());
        match known {
            Some(Some(_)) if bytes.is_empty() => {}
            Some(Some(input)) => {
                let count = bytes.len();
                if input.send(bytes).await.is_err() && self.role == Role::Server {
                    // Nobody wants it any more; its room is free again.
                    self.shared.control.credit(stream, count);
                }
            }
            Some(None) => {
                self.shared.forget(stream);
                return self.shared.reset(stream, reset::STREAM_ALREADY_CLOSED);
            }
            None if stream > self.shared.last_stream.load(Ordering::Relaxed) => {
                return self.shared.reset(stream, reset::INVALID_STREAM);
            }
            // Sent before the peer knew that the stream is over.
            None if self.role == Role::Server => self.shared.control.credit(0, bytes.len()),
            None => {}
        }
        if fin {
            self.shared.input_finished(stream);
        }
        Ok(())
    }

    fn settings(&self, settings: &[(u32, u32)]) -> Result<(), ProtocolError> {
        self.shared.keeps_windows.store(true, Ordering::Relaxed);
        for (id, value) in settings {
            if *id != SETTINGS_INITIAL_WINDOW_SIZE {
                continue;
            }
            if *value as usize > MAX_WINDOW {
                return Err(ProtocolError::Window);
            }
            let before = self.shared.initial_window.swap(*value, Ordering::Relaxed);
            for entry in self.shared.streams().values() {
                let Some(window) = &entry.window else { continue };
                if *value >= before {
                    open(window, value - before)?;
                } else {
                    window.forget_permits((before - value) as usize);
                }
            }
        }
        Ok(())
    }

    fn open_window(&self, stream: u32, delta: u32) -> Result<(), ProtocolError> {
        if stream == 0 {
            return open(&self.shared.window, delta);
        }
        match self.shared.streams().get(&stream) {
            Some(Entry {
                window: Some(window), ..
            }) => open(window, delta),
            _ => Ok(()),
        }
    }
}

fn open(window: &Semaphore, delta: u32) -> Result<(), ProtocolError> {
    if window.available_permits() + delta as usize > MAX_WINDOW {
        return Err(ProtocolError::Window);
    }
    window.add_permits(delta as usize);
    Ok(())
}
