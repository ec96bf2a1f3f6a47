//! A plugin's socket: calls to the plugin and calls from it, at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use prost::Message as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use super::frame::{self, Channel, Decoder, Kind, Message};
use super::lock;

const PLUGIN_SERVICE: &str = "nri.pkg.api.v1alpha1.Plugin";
const RUNTIME_SERVICE: &str = "nri.pkg.api.v1alpha1.Runtime";
const READ_SIZE: usize = 32 << 10;
/// Messages that wait for the plugin to read.
const OUTGOING: usize = 16;
/// Calls of the plugin that are answered at once.
const SERVED_AT_ONCE: usize = 16;
/// How long a plugin may leave an answer unread.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A call: ttrpc's `Request`.
#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
    #[prost(string, tag = "2")]
    method: String,
    #[prost(bytes = "vec", tag = "3")]
    payload: Vec<u8>,
    #[prost(int64, tag = "4")]
    timeout_nano: i64,
}

/// Its answer: ttrpc's `Response`.
#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(message, optional, tag = "1")]
    status: Option<Status>,
    #[prost(bytes = "vec", tag = "2")]
    payload: Vec<u8>,
}

/// Why a call failed: `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "1")]
    pub(super) code: i32,
    #[prost(string, tag = "2")]
    pub(super) message: String,
}

impl Status {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;

    pub(super) fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Why a call of a plugin has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The plugin says no.
    #[error("{}", .0.message)]
    Refused(Status),
    /// The plugin is gone.
    #[error("it is gone")]
    Gone,
    /// The plugin took too long, and is closed.
    #[error("it did not answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The plugin's answer is no answer, and it is closed.
    #[error("its answer can't be read: {0}")]
    Unreadable(prost::DecodeError),
    /// What is asked is too long for the protocol.
    #[error("the request is {0}")]
    TooLong(frame::FrameError),
}

/// What answers a plugin's calls.
#[async_trait]
pub(super) trait Service: Send + Sync + 'static {
    async fn serve(&self, method: &str, payload: &[u8]) -> Result<Vec<u8>, Status>;
}

/// A plugin's socket. It is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    outgoing: mpsc::Sender<Vec<u8>>,
    calls: Arc<Mutex<Calls>>,
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Calls {
    count: u32,
    closed: bool,
    waiting: HashMap<u32, oneshot::Sender<Vec<u8>>>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.close();
    }
}

impl Connection {
    pub(super) fn open(socket: UnixStream, service: Arc<dyn Service>) -> Self {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (closed, _) = watch::channel(false);
        let calls = Arc::new(Mutex::new(Calls::default()));
        let (reader, writer) = socket.into_split();
        tokio::spawn(write(writer, messages, closed.subscribe()));
        let reading = Reading {
            outgoing: outgoing.clone(),
            calls: Arc::clone(&calls),
            closed: closed.clone(),
            service,
            places: Arc::new(Semaphore::new(SERVED_AT_ONCE)),
        };
        tokio::spawn(reading.run(reader));
        Self {
            outgoing,
            calls,
            closed,
        }
    }

    /// Calls a method of the plugin. A plugin that takes too long is closed: what it would still say is of no use.
    pub(super) async fn call(
        &self,
        method: &str,
        payload: Vec<u8>,
        timeout: Duration,
    ) -> Result<Vec<u8>, CallError> {
        let request = Request {
            service: PLUGIN_SERVICE.to_owned(),
            method: method.to_owned(),
            payload,
            timeout_nano: i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX),
        };
        let answer = tokio::time::timeout(timeout, self.exchange(request.encode_to_vec())).await;
        let answer = answer.unwrap_or_else(|_| {
            self.close();
            Err(CallError::TimedOut(timeout))
        })?;
        let response = Response::decode(answer.as_slice()).map_err(|error| {
            self.close();
            CallError::Unreadable(error)
        })?;
        match response.status {
            Some(status) if status.code != 0 => Err(CallError::Refused(status)),
            _ => Ok(response.payload),
        }
    }

    async fn exchange(&self, body: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let place = self.outgoing.reserve().await.map_err(|_| CallError::Gone)?;
        let (sender, answer) = oneshot::channel();
        {
            // Numbers go out in their order: the plugin takes none that is lower than one before.
            let mut calls = lock(&self.calls);
            if calls.closed {
                return Err(CallError::Gone);
            }
            let stream = calls.count.wrapping_mul(2).wrapping_add(1);
            calls.count = calls.count.wrapping_add(1);
            let message = Message {
                channel: Channel::Plugin,
                stream,
                kind: Kind::Request,
                body,
            };
            let bytes = frame::encode(&message).map_err(CallError::TooLong)?;
            calls.waiting.insert(stream, sender);
            place.send(bytes);
        }
        answer.await.map_err(|_| CallError::Gone)
    }

    pub(super) fn close(&self) {
        close(&self.calls, &self.closed);
    }

    pub(super) fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }

    /// Returns when the plugin is gone.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let closed = self.closed.subscribe();
        async move { until(closed).await }
    }
}

fn close(calls: &Mutex<Calls>, closed: &watch::Sender<bool>) {
    let mut calls = lock(calls);
    calls.closed = true;
    calls.waiting.clear();
    closed.send_replace(true);
}

async fn until(mut closed: watch::Receiver<bool>) {
    // The sender goes when nobody is interested in the socket any more.
    let _ = closed.wait_for(|closed| *closed).await;
}

async fn write(
    mut writer: OwnedWriteHalf,
    mut messages: mpsc::Receiver<Vec<u8>>,
    closed: watch::Receiver<bool>,
) {
    let work = async {
        while let Some(message) = messages.recv().await {
            if writer.write_all(&message).await.is_err() {
                // The reading side finds the same, and says so.
                break;
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = until(closed) => {}
    }
}

/// The reading side of a socket.
struct Reading {
    outgoing: mpsc::Sender<Vec<u8>>,
    calls: Arc<Mutex<Calls>>,
    closed: watch::Sender<bool>,
    service: Arc<dyn Service>,
    places: Arc<Semaphore>,
}

impl Reading {
    async fn run(self, mut reader: OwnedReadHalf) {
        let closed = self.closed.subscribe();
        tokio::select! {
            () = self.read(&mut reader) => {}
            () = until(closed) => {}
        }
        close(&self.calls, &self.closed);
    }

    async fn read(&self, reader: &mut OwnedReadHalf) {
        let mut decoder = Decoder::default();
        let mut bytes = vec![0; READ_SIZE];
        loop {
            let read = match reader.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let messages = match decoder.feed(bytes.get(..read).unwrap_or_default()) {
                Ok(messages) => messages,
                Err(error) => {
                    tracing::warn!("An NRI plugin is closed: it sent {error}.");
                    return;
                }
            };
            for message in messages {
                match (message.channel, message.kind) {
                    (Channel::Plugin, Kind::Response) => {
                        let waiting = lock(&self.calls).waiting.remove(&message.stream);
                        // Whoever asked may have given up.
                        let _ = waiting.map(|sender| sender.send(message.body));
                    }
                    (Channel::Runtime, Kind::Request) => self.serve(message).await,
                    _ => {}
                }
            }
        }
    }

    /// Answers a call, while further messages are read. A call that comes when there are too many is refused, and no further
    /// message is read before that is sent: a plugin that asks without pause can neither pile up work, nor lose an
    /// answer, nor keep its answers to the runtime's own calls from being read for longer than it leaves these unread.
    async fn serve(&self, message: Message) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let (service, outgoing) = (Arc::clone(&self.service), self.outgoing.clone());
        let (calls, closed) = (Arc::clone(&self.calls), self.closed.clone());
        let Ok(place) = place else {
            let busy = Status::new(Status::RESOURCE_EXHAUSTED, "Too many calls at once.");
            respond(message.stream, Err(busy), &outgoing, (&calls, &closed)).await;
            return;
        };
        tokio::spawn(async move {
            let stream = message.stream;
            let work = async {
                let result = answer(&*service, &message.body).await;
                respond(stream, result, &outgoing, (&calls, &closed)).await;
            };
            tokio::select! {
                () = work => {}
                () = until(closed.subscribe()) => {}
            }
            drop(place);
        });
    }
}

async fn answer(service: &dyn Service, body: &[u8]) -> Result<Vec<u8>, Status> {
    let request = Request::decode(body)
        .map_err(|error| Status::new(Status::INVALID_ARGUMENT, format!("That is no request: {error}.")))?;
    if request.service != RUNTIME_SERVICE {
        return Err(Status::new(
            Status::UNIMPLEMENTED,
            format!("There is no service {:?}.", request.service),
        ));
    }
    service.serve(&request.method, &request.payload).await
}

/// Sends an answer. A plugin that does not read its answers is closed.
async fn respond(
    stream: u32,
    result: Result<Vec<u8>, Status>,
    outgoing: &mpsc::Sender<Vec<u8>>,
    (calls, closed): (&Mutex<Calls>, &watch::Sender<bool>),
) {
    let Some(bytes) = response(stream, result) else {
        return;
    };
    let sent = tokio::time::timeout(ANSWER_TIMEOUT, outgoing.send(bytes)).await;
    if sent.is_err() {
        tracing::warn!("An NRI plugin is closed: it does not read its answers.");
        close(calls, closed);
    }
}

fn response(stream: u32, result: Result<Vec<u8>, Status>) -> Option<Vec<u8>> {
    let (status, payload) = match result {
        Ok(payload) => (None, payload),
        Err(status) => (Some(status), Vec::new()),
    };
    let message = Message {
        channel: Channel::Runtime,
        stream,
        kind: Kind::Response,
        body: Response { status, payload }.encode_to_vec(),
    };
    frame::encode(&message).ok()
}
