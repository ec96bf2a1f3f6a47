//! WebSockets that carry several streams: the first byte of a message is the number of its channel.
//!
//! With version 5 a client can say that a channel has ended; before, only that it leaves.

mod tunnel;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};

use super::activity::Activity;
use super::stream::{Closed, Input};

pub(super) use tokio_tungstenite::tungstenite::protocol::Role;
pub(super) use tunnel::tunnel;

/// A message may not be longer than this, in bytes: some clients send all that they have in one.
const MAX_MESSAGE: usize = 16 << 20;
/// Messages of all channels that wait to be written.
const QUEUED_MESSAGES: usize = 8;
/// The channel by which version 5 says that another one has ended.
const CLOSE_CHANNEL: u8 = 255;

/// How channels are put into messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Codec {
    /// Text instead of bytes: a digit, and the content in base64.
    pub(super) base64: bool,
    /// The client may end a channel.
    pub(super) half_close: bool,
}

/// The writing end of a channel.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    channel: u8,
    /// Its end can be told: by a client, since version 5.
    ends: bool,
    messages: mpsc::Sender<Outgoing>,
}

#[derive(Debug)]
enum Outgoing {
    Data { channel: u8, bytes: Bytes },
    End { channel: u8 },
    Close,
}

impl Writer {
    pub(super) async fn write(&self, bytes: Bytes) -> Result<(), Closed> {
        let channel = self.channel;
        let message = Outgoing::Data { channel, bytes };
        self.messages.send(message).await.map_err(|_| Closed)
    }

    /// Mostly there is no way to say so but to close the connection, when all is said.
    pub(super) async fn finish(&self) -> Result<(), Closed> {
        if self.ends {
            let channel = self.channel;
            let message = Outgoing::End { channel };
            self.messages.send(message).await.map_err(|_| Closed)
        } else if self.messages.is_closed() {
            Err(Closed)
        } else {
            Ok(())
        }
    }
}

/// A WebSocket whose messages belong to channels. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    messages: mpsc::Sender<Outgoing>,
    inputs: Vec<Option<Input>>,
    ends: bool,
    closed: Arc<watch::Sender<bool>>,
    _tasks: JoinSet<()>,
}

/// A channel's queue, and what tells its reader that the client broke off.
type Queue = (mpsc::Sender<Bytes>, Arc<AtomicBool>);

impl Connection {
    /// Serves a connection on which HTTP has ended. The channels of `readable` have an input.
    pub(super) async fn new<T>(io: T, codec: Codec, readable: &[bool], activity: Activity) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::with_role(io, Role::Server, codec, readable, activity).await
    }

    /// The client's end of such a connection.
    pub(super) async fn client<T>(io: T, codec: Codec, readable: &[bool], activity: Activity) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        Self::with_role(io, Role::Client, codec, readable, activity).await
    }

    async fn with_role<T>(io: T, role: Role, codec: Codec, readable: &[bool], activity: Activity) -> Self
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = frames(io, role).await.split();
        let (messages, queued) = mpsc::channel(QUEUED_MESSAGES);
        let closed = Arc::new(watch::Sender::new(false));
        let (mut inputs, mut queues) = (Vec::new(), Vec::new());
        for readable in readable {
            let (input, queue) = match readable.then(|| Input::new(None)) {
                Some((input, sender, broken)) => (Some(input), Some((sender, broken))),
                None => (None, None),
            };
            inputs.push(input);
            queues.push(queue);
        }
        let mut tasks = JoinSet::new();
        let reader = Reader {
            codec,
            queues,
            activity: activity.clone(),
        };
        let over = Arc::clone(&closed);
        tasks.spawn(async move {
            reader.run(stream).await;
            over.send_replace(true);
        });
        let over = Arc::clone(&closed);
        tasks.spawn(async move {
            write_all(sink, codec, queued, activity).await;
            over.send_replace(true);
        });
        Self {
            messages,
            inputs,
            ends: codec.half_close && role == Role::Client,
            closed,
            _tasks: tasks,
        }
    }

    /// Takes a channel's input.
    pub(super) fn input(&mut self, channel: u8) -> Option<Input> {
        self.inputs.get_mut(usize::from(channel))?.take()
    }

    /// A channel's output.
    pub(super) fn output(&self, channel: u8) -> Writer {
        Writer {
            channel,
            ends: self.ends,
            messages: self.messages.clone(),
        }
    }

    /// Says that all is said. The client is to leave then.
    pub(super) async fn close(&self) {
        // A client that has left need not be told.
        let _ = self.messages.send(Outgoing::Close).await;
    }

    /// Resolves when the client has left.
    pub(super) fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut closed = self.closed.subscribe();
        async move {
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }
}

/// WebSocket frames on a connection whose handshake is over.
async fn frames<T: AsyncRead + AsyncWrite + Unpin>(io: T, role: Role) -> WebSocketStream<T> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    WebSocketStream::from_raw_socket(io, role, Some(config)).await
}

fn normal_close() -> Message {
    Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }))
}

/// The task that reads.
struct Reader {
    codec: Codec,
    queues: Vec<Option<Queue>>,
    activity: Activity,
}

impl Reader {
    async fn run<T: AsyncRead + AsyncWrite + Unpin>(mut self, mut stream: SplitStream<WebSocketStream<T>>) {
        while let Some(message) = stream.next().await {
            self.activity.touch();
            let bytes = match message {
                Ok(Message::Binary(bytes)) => bytes,
                Ok(Message::Text(text)) => text.into(),
                Ok(Message::Close(_)) => break,
                Ok(_) => continue,
                Err(error) => {
                    tracing::debug!("A streaming client is gone: {error}.");
                    break;
                }
            };
            if let Err(what) = self.take(bytes).await {
                tracing::warn!("A streaming client is let go: it sent {what}.");
                break;
            }
        }
        for (_, broken) in self.queues.iter().flatten() {
            broken.store(true, Ordering::Release);
        }
    }

    async fn take(&mut self, mut message: Bytes) -> Result<(), &'static str> {
        if message.is_empty() {
            return Ok(());
        }
        let mut channel = message.split_to(1)[0];
        if self.codec.half_close && channel == CLOSE_CHANNEL {
            let ended = message.first().ok_or("a close of no channel")?;
            if let Some(queue) = self.queues.get_mut(usize::from(*ended)) {
                *queue = None;
            }
            return Ok(());
        }
        if self.codec.base64 {
            channel = channel.wrapping_sub(b'0');
            message = BASE64
                .decode(&message)
                .map_err(|_| "a message that is not base64")?
                .into();
        }
        // As upstream: what goes to a channel that takes nothing is dropped. So is what nobody wants any more.
        if let Some(Some((queue, _))) = self.queues.get(usize::from(channel))
            && !message.is_empty()
        {
            let _ = queue.send(message).await;
        }
        Ok(())
    }
}

async fn write_all<T: AsyncRead + AsyncWrite + Unpin>(
    mut sink: SplitSink<WebSocketStream<T>, Message>,
    codec: Codec,
    mut messages: mpsc::Receiver<Outgoing>,
    activity: Activity,
) {
    while let Some(message) = messages.recv().await {
        let (message, last) = match message {
            Outgoing::Data { channel, bytes } => (encode(codec, channel, &bytes), false),
            Outgoing::End { channel } => (Message::Binary(vec![CLOSE_CHANNEL, channel].into()), false),
            Outgoing::Close => (normal_close(), true),
        };
        let mut sent = sink.feed(message).await;
        if sent.is_ok() && messages.is_empty() {
            sent = sink.flush().await;
        }
        if let Err(error) = sent {
            tracing::debug!("A streaming client can't be written to: {error}.");
            return;
        }
        activity.touch();
        if last {
            break;
        }
    }
    // The client's answer to the close, or its leaving, ends the connection.
    std::future::pending().await
}

fn encode(codec: Codec, channel: u8, bytes: &[u8]) -> Message {
    if codec.base64 {
        let mut text = String::with_capacity(1 + bytes.len().div_ceil(3) * 4);
        text.push(char::from(b'0'.wrapping_add(channel)));
        BASE64.encode_string(bytes, &mut text);
        return Message::Text(text.into());
    }
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.put_slice(bytes);
    Message::Binary(message.freeze())
}
