//! The engine's end of a shim's socket.
//!
//! One task owns the receiving half: replies go to whoever waits for them, events to the sandbox in the order in which
//! they came. When the socket closes, every waiting call fails and the sandbox hears [`ShimMessage::Gone`].
//!
//! A shim may be stopped, or hang in the kernel, with its socket open. So no call waits for a shim that says nothing: one
//! that takes long asks in between whether anybody is there.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_shim::protocol::{
    Call, Event, Failure, FailureCode, MAX_FRAME, Message, Request, Response, SOCKET_NAME, ShimState,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixStream;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot};

use crate::cannot_run;
use crate::engine::EngineError;

/// A connection to a shim. Cheap to clone; the connection closes when the last one is dropped.
#[derive(Clone, Debug)]
pub(crate) struct ShimClient {
    shared: Arc<Shared>,
}

/// What a shim says unasked.
#[derive(Debug)]
pub(crate) enum ShimMessage {
    /// Something happened in the pod.
    Event(Event),
    /// The connection is over: the shim has ended, or is not one.
    Gone,
}

#[derive(Debug)]
struct Shared {
    stream: Arc<UnixStream>,
    next: AtomicU64,
    /// Frames must not interleave, and a frame may take several writes.
    sending: Arc<tokio::sync::Mutex<()>>,
    waiting: Waiting,
    /// How many calls there are during which the shim may be unable to answer others.
    blocking: AtomicUsize,
    /// A call was given up because the shim said nothing, and it has said nothing since.
    silent: Arc<AtomicBool>,
    /// It knows [`Request::Run`].
    runs_commands: AtomicBool,
    /// It knows [`Run::period_ms`](berth_shim::protocol::Run::period_ms).
    repeats_commands: AtomicBool,
    reader: tokio::task::AbortHandle,
}

/// What came of a call, and the descriptors that came along.
type Reply = Result<(Response, Vec<OwnedFd>), Failure>;

/// The calls that have no reply yet; `None` once the connection is over.
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Reply>>>>>;

/// Descriptors that come with a frame.
const MAX_FDS: usize = 4;
/// How long a call waits before it asks whether the shim is there at all, and then for an answer to that.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a call waits for a shim that was found silent before.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// The same for a call that is expected to take for ever: asking costs more than what is asked for.
const REPEAT_PATIENCE: Duration = Duration::from_secs(60);
/// How long a shim may say nothing while it makes, starts or deletes a container: hooks run then. It is as long as a
/// kubelet waits (`runtimeRequestTimeout`).
const LONG_PATIENCE: Duration = Duration::from_secs(120);

impl Drop for Shared {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl ShimClient {
    /// Connects to the shim of a sandbox directory and subscribes to its events. The state is the one right before the
    /// first message on the channel. This waits for a silent shim until that answers, or ends.
    pub(crate) async fn connect(
        directory: &Path,
    ) -> Result<(Self, ShimState, mpsc::UnboundedReceiver<ShimMessage>), Failure> {
        let stream = connect_beneath(directory).await.map_err(|error| {
            unreachable_shim(&format!(
                "could not be reached in {}: {error}",
                directory.display()
            ))
        })?;
        let stream = Arc::new(stream);
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let silent = Arc::new(AtomicBool::new(false));
        let (messages, receiver) = mpsc::unbounded_channel();
        let task = tokio::spawn(receive(
            Arc::clone(&stream),
            Arc::clone(&waiting),
            Arc::clone(&silent),
            messages,
        ));
        let shared = Shared {
            stream,
            next: AtomicU64::new(1),
            sending: Arc::default(),
            waiting,
            blocking: AtomicUsize::new(0),
            silent,
            runs_commands: AtomicBool::new(false),
            repeats_commands: AtomicBool::new(false),
            reader: task.abort_handle(),
        };
        let client = Self {
            shared: Arc::new(shared),
        };
        let mut call = client.begin(Request::Subscribe, &[]).await?;
        match call.reply().await?.0 {
            Response::State(state) => {
                let Shared {
                    runs_commands,
                    repeats_commands,
                    ..
                } = &*client.shared;
                runs_commands.store(state.runs_commands, Ordering::Relaxed);
                repeats_commands.store(state.repeats_commands, Ordering::Relaxed);
                Ok((client, state, receiver))
            }
            other => Err(unreachable_shim(&format!(
                "answered a subscription with {other:?}"
            ))),
        }
    }

    /// Whether the shim runs commands to their ends: [`Request::Run`].
    pub(crate) fn runs_commands(&self) -> bool {
        self.shared.runs_commands.load(Ordering::Relaxed)
    }

    /// Whether the shim repeats commands: [`Run::period_ms`](berth_shim::protocol::Run::period_ms).
    pub(crate) fn repeats_commands(&self) -> bool {
        self.shared.repeats_commands.load(Ordering::Relaxed)
    }

    /// Asks, and waits for the reply.
    ///
    /// # Errors
    /// The shim refused, ended, or said nothing for so long that it can't be waited for: [`ShimClient::is_silent`].
    pub(crate) async fn call(&self, request: Request) -> Result<Response, Failure> {
        self.call_with(request, &[]).await.map(|(response, _)| response)
    }

    /// Asks with descriptors, and waits for the reply with its own. The caller keeps its descriptors.
    ///
    /// # Errors
    /// As [`ShimClient::call`].
    pub(crate) async fn call_with(&self, request: Request, fds: &[OwnedFd]) -> Reply {
        let blocks = matches!(
            request,
            Request::Create(_) | Request::Start { .. } | Request::Delete { .. }
        );
        let _blocking = blocks.then(|| Blocking::begin(&self.shared.blocking));
        let begun = Instant::now();
        let was_silent = self.is_silent();
        let patience = if was_silent { SHORT_PATIENCE } else { PATIENCE };
        let between = match &request {
            Request::Run(run) if run.period_ms > 0 && !was_silent => REPEAT_PATIENCE,
            _ => patience,
        };
        let mut call = within(patience, self.begin(request, fds))
            .await
            .ok_or_else(|| self.hung())??;
        loop {
            if let Some(reply) = within(between, call.reply()).await {
                return reply;
            }
            let there = !self.is_silent() && self.is_there().await;
            let others_block = self.shared.blocking.load(Ordering::Relaxed) > usize::from(blocks);
            let may_block = others_block || (blocks && !was_silent && begun.elapsed() < LONG_PATIENCE);
            if !there && !may_block {
                return Err(self.hung());
            }
        }
    }

    /// Whether the shim was waited for in vain and has said nothing since.
    pub(crate) fn is_silent(&self) -> bool {
        self.shared.silent.load(Ordering::Acquire)
    }

    fn hung(&self) -> Failure {
        self.shared.silent.store(true, Ordering::Release);
        unreachable_shim("does not answer; it is stopped, or hangs")
    }

    /// Whether the shim answers what takes it no time.
    async fn is_there(&self) -> bool {
        let answer = async {
            let mut call = self.begin(Request::State, &[]).await?;
            call.reply().await
        };
        within(PATIENCE, answer).await.is_some()
    }

    async fn begin(&self, request: Request, fds: &[OwnedFd]) -> Result<Pending, Failure> {
        let seq = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&Call { seq, request })?;
        let (sender, reply) = oneshot::channel();
        match lock(&self.shared.waiting).as_mut() {
            Some(waiting) => waiting.insert(seq, sender),
            None => return Err(unreachable_shim("has ended")),
        };
        let pending = Pending {
            waiting: Arc::clone(&self.shared.waiting),
            seq,
            reply,
        };
        match self.send(frame, fds).await {
            Ok(()) => Ok(pending),
            Err(error) => Err(unreachable_shim(&format!("could not be written to: {error}"))),
        }
    }

    /// Sends a frame. Who stops waiting for this leaves no half of one behind, which would be the end of the connection.
    async fn send(&self, mut frame: Vec<u8>, fds: &[OwnedFd]) -> io::Result<()> {
        let turn = Arc::clone(&self.shared.sending).lock_owned().await;
        let stream = &self.shared.stream;
        let first = || send_once(stream, &frame, fds);
        let sent = stream.async_io(Interest::WRITABLE, first).await?;
        if sent < frame.len() {
            frame.drain(..sent);
            let rest = tokio::spawn(send_rest(Arc::clone(stream), frame, turn));
            return rest.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        }
        Ok(())
    }
}

/// A call that was sent. Its reply is not waited for any more once this is dropped.
struct Pending {
    waiting: Waiting,
    seq: u64,
    reply: oneshot::Receiver<Reply>,
}

impl Pending {
    async fn reply(&mut self) -> Reply {
        let reply = (&mut self.reply).await;
        reply.unwrap_or_else(|_| Err(unreachable_shim("ended before it answered")))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.remove(&self.seq);
        }
    }
}

/// One among the calls that may keep others from being answered.
struct Blocking<'a>(&'a AtomicUsize);

impl<'a> Blocking<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Blocking<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(patience, work).await.ok()
}

async fn send_rest(stream: Arc<UnixStream>, frame: Vec<u8>, _turn: OwnedMutexGuard<()>) -> io::Result<()> {
    let mut sent = 0;
    while sent < frame.len() {
        let next = || send_once(&stream, &frame[sent..], &[]);
        sent += stream.async_io(Interest::WRITABLE, next).await?;
    }
    Ok(())
}

/// Connects by way of the directory's descriptor: a socket's address has room for 107 bytes, a `--root` may be longer.
async fn connect_beneath(directory: &Path) -> io::Result<UnixStream> {
    let directory = File::open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd())).await
}

fn send_once(stream: &UnixStream, bytes: &[u8], fds: &[OwnedFd]) -> io::Result<usize> {
    use std::os::fd::AsFd;
    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "more than four descriptors for one call",
        ));
    }
    let sent = sendmsg(
        stream,
        &[IoSlice::new(bytes)],
        &mut ancillary,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?;
    Ok(sent)
}

fn encode(call: &Call) -> Result<Vec<u8>, Failure> {
    let body = serde_json::to_vec(call)
        .map_err(|error| invalid(&format!("The call can't be written as JSON: {error}.")))?;
    let length = u32::try_from(body.len()).ok().filter(|_| body.len() <= MAX_FRAME);
    let length = length.ok_or_else(|| invalid("The call is longer than a frame may be."))?;
    Ok([&length.to_le_bytes()[..], &body].concat())
}

async fn receive(
    stream: Arc<UnixStream>,
    waiting: Waiting,
    silent: Arc<AtomicBool>,
    messages: mpsc::UnboundedSender<ShimMessage>,
) {
    while let Ok((message, fds)) = receive_one(&stream).await {
        silent.store(false, Ordering::Release);
        match message {
            Message::Event(event) => {
                // Nobody listens any more only while the engine shuts down.
                let _ = messages.send(ShimMessage::Event(event));
            }
            Message::Reply { seq, result } => {
                let sender = lock(&waiting).as_mut().and_then(|waiting| waiting.remove(&seq));
                if let Some(sender) = sender {
                    // A caller that gave up does not need its answer.
                    let _ = sender.send(result.map(|response| (response, fds)));
                }
            }
        }
    }
    lock(&waiting).take();
    let _ = messages.send(ShimMessage::Gone);
}

async fn receive_one(stream: &UnixStream) -> io::Result<(Message, Vec<OwnedFd>)> {
    let (length, fds) = receive_length(stream).await?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_FRAME {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
    }
    let mut body = vec![0; length];
    StreamReader(stream).read_exact(&mut body).await?;
    Ok((serde_json::from_slice(&body)?, fds))
}

/// A frame's descriptors come with its first byte, so they are here before the body is.
async fn receive_length(stream: &UnixStream) -> io::Result<([u8; 4], Vec<OwnedFd>)> {
    let mut length = [0; 4];
    let mut read = 0;
    let mut fds = Vec::new();
    while read < length.len() {
        let receive = || receive_once(stream, &mut length[read..], &mut fds);
        match stream.async_io(Interest::READABLE, receive).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => read += count,
        }
    }
    Ok((length, fds))
}

fn receive_once(stream: &UnixStream, buffer: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    Ok(received.bytes)
}

/// Reads from a shared stream, as `&TcpStream` does in the standard library.
struct StreamReader<'a>(&'a UnixStream);

impl tokio::io::AsyncRead for StreamReader<'_> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        loop {
            std::task::ready!(self.0.poll_read_ready(context))?;
            match self.0.try_read(buffer.initialize_unfilled()) {
                Ok(count) => {
                    buffer.advance(count);
                    return std::task::Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return std::task::Poll::Ready(Err(error)),
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shim's refusal in the engine's words.
pub(crate) fn engine_error(failure: Failure) -> EngineError {
    let message = failure.message;
    match failure.code {
        FailureCode::CannotRun => EngineError::CannotRun {
            exit_code: failure.exit_code.unwrap_or(cannot_run::NOT_EXECUTABLE),
            message,
        },
        FailureCode::Invalid => EngineError::InvalidArgument(message),
        FailureCode::WrongState => EngineError::FailedPrecondition(message),
        FailureCode::NotFound => EngineError::NotFound(message),
        FailureCode::AlreadyExists | FailureCode::Unsupported | FailureCode::Internal => {
            EngineError::Internal(message)
        }
    }
}

fn unreachable_shim(what: &str) -> Failure {
    Failure {
        code: FailureCode::Internal,
        exit_code: None,
        message: format!("The pod's shim {what}."),
    }
}

fn invalid(message: &str) -> Failure {
    Failure {
        code: FailureCode::Invalid,
        exit_code: None,
        message: message.to_owned(),
    }
}
