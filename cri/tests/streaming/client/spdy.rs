//! A SPDY client as `moby/spdystream` is one: it never opens a window and never looks at one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use berth_cri::StreamOptions;
use berth_cri::spdy::{Decoder, Encoder, Frame, Headers};
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

use super::{Answer, Told, request};

type Sender = mpsc::Sender<Result<Bytes, Reset>>;

/// The server broke a stream off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reset(pub(crate) u32);

/// Anything that carries bytes.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) struct Spdy {
    writer: Arc<tokio::sync::Mutex<Writer>>,
    streams: Arc<Mutex<HashMap<u32, Sender>>>,
    next: Mutex<u32>,
    /// The server's last word, once it has left.
    pub(crate) end: watch::Receiver<Option<Option<u32>>>,
}

struct Writer {
    io: WriteHalf<Box<dyn Io>>,
    encoder: Encoder,
}

/// A stream that was opened.
pub(crate) struct Stream {
    pub(crate) id: u32,
    writer: Arc<tokio::sync::Mutex<Writer>>,
    data: mpsc::Receiver<Result<Bytes, Reset>>,
}

impl Spdy {
    /// Asks for the upgrade with these protocols of streams.
    pub(crate) async fn connect(url: &str, protocols: &[&str]) -> Result<Self, Answer> {
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
        headers.extend(
            protocols
                .iter()
                .map(|protocol| ("X-Stream-Protocol-Version", *protocol)),
        );
        let (stream, answer) = request(url, "POST", &headers).await;
        if answer.status != 101 {
            return Err(answer);
        }
        assert_eq!(answer.headers["upgrade"], "SPDY/3.1");
        assert_eq!(answer.headers["connection"].to_ascii_lowercase(), "upgrade");
        assert!(protocols.contains(&answer.headers["x-stream-protocol-version"].as_str()));
        Ok(Self::over(Box::new(stream)))
    }

    pub(crate) fn over(io: Box<dyn Io>) -> Self {
        let (read, write) = tokio::io::split(io);
        let (tell, end) = watch::channel(None);
        let streams = Arc::new(Mutex::new(HashMap::new()));
        tokio::spawn(receive(read, Arc::clone(&streams), tell));
        let writer = Writer {
            io: write,
            encoder: Encoder::default(),
        };
        Self {
            writer: Arc::new(tokio::sync::Mutex::new(writer)),
            streams,
            next: Mutex::new(1),
            end,
        }
    }

    pub(crate) async fn send(&self, frame: Frame) {
        self.writer.lock().await.send(&frame).await;
    }

    /// Sends any bytes at all.
    pub(crate) async fn send_raw(&self, bytes: &[u8]) {
        // The server may have had enough.
        let _ = self.writer.lock().await.io.write_all(bytes).await;
    }

    pub(crate) async fn open(&self, headers: &[(&str, &str)]) -> Stream {
        let (sender, data) = mpsc::channel(4);
        let id = {
            let mut next = self.next.lock().unwrap();
            *next += 2;
            *next - 2
        };
        self.streams.lock().unwrap().insert(id, sender);
        self.send(Frame::SynStream {
            stream: id,
            fin: false,
            unidirectional: false,
            headers: Headers::new(headers.iter().copied()),
        })
        .await;
        Stream {
            id,
            writer: Arc::clone(&self.writer),
            data,
        }
    }

    pub(crate) async fn run(self, options: StreamOptions, stdin: &[u8]) -> Told {
        let error = self.open(&[("streamtype", "error")]).await;
        let open = async |wanted: bool, kind| match wanted {
            true => Some(self.open(&[("streamtype", kind)]).await),
            false => None,
        };
        let input = open(options.stdin, "stdin").await;
        let stdout = open(options.stdout, "stdout").await;
        let stderr = open(options.stderr, "stderr").await;
        let write = async {
            if let Some(input) = &input {
                for piece in stdin.chunks(32 << 10) {
                    input.send(piece, false).await;
                }
                input.send(b"", true).await;
            }
        };
        let read = async |stream: Option<Stream>| match stream {
            Some(stream) => stream.read_to_end().await.unwrap(),
            None => Vec::new(),
        };
        let ((), stdout, stderr, error) = tokio::join!(write, read(stdout), read(stderr), read(Some(error)));
        self.leave().await;
        Told {
            stdout,
            stderr,
            error,
        }
    }

    /// Says goodbye and leaves.
    pub(crate) async fn leave(self) {
        self.send(Frame::GoAway {
            last_stream: 0,
            status: 0,
        })
        .await;
        let _ = self.writer.lock().await.io.shutdown().await;
    }

    /// Waits until the server has left, and tells its last word: the status of its GOAWAY.
    pub(crate) async fn left(&mut self) -> Option<u32> {
        self.end.wait_for(Option::is_some).await.unwrap().unwrap()
    }
}

impl Writer {
    async fn send(&mut self, frame: &Frame) {
        let mut wire = BytesMut::new();
        self.encoder.encode(frame, &mut wire);
        // The server may have left.
        let _ = self.io.write_all(&wire).await;
    }
}

impl Stream {
    pub(crate) async fn send(&self, bytes: &[u8], fin: bool) {
        let frame = Frame::Data {
            stream: self.id,
            fin,
            bytes: Bytes::copy_from_slice(bytes),
        };
        self.writer.lock().await.send(&frame).await;
    }

    pub(crate) async fn reset(&self) {
        let frame = Frame::Reset {
            stream: self.id,
            status: 5,
        };
        self.writer.lock().await.send(&frame).await;
    }

    /// The next piece; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<Result<Bytes, Reset>> {
        self.data.recv().await
    }

    pub(crate) async fn read_to_end(mut self) -> Result<Vec<u8>, Reset> {
        let mut all = Vec::new();
        while let Some(piece) = self.read().await {
            all.extend_from_slice(&piece?);
        }
        Ok(all)
    }
}

async fn receive(
    mut io: ReadHalf<Box<dyn Io>>,
    streams: Arc<Mutex<HashMap<u32, Sender>>>,
    tell: watch::Sender<Option<Option<u32>>>,
) {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    let mut last_word = None;
    let mut replied = Vec::new();
    loop {
        while let Some(frame) = decoder.decode(&mut input).unwrap() {
            match frame {
                Frame::SynReply { stream, .. } => replied.push(stream),
                Frame::Data { stream, fin, bytes } => {
                    // spdystream throws away what comes before the reply.
                    assert!(replied.contains(&stream), "data before the reply");
                    let sender = streams.lock().unwrap().get(&stream).cloned();
                    if let Some(sender) = sender
                        && !bytes.is_empty()
                    {
                        let _ = sender.send(Ok(bytes)).await;
                    }
                    if fin {
                        streams.lock().unwrap().remove(&stream);
                    }
                }
                Frame::Reset { stream, status } => {
                    let sender = streams.lock().unwrap().remove(&stream);
                    if let Some(sender) = sender {
                        let _ = sender.send(Err(Reset(status))).await;
                    }
                }
                Frame::GoAway { status, .. } => last_word = Some(status),
                Frame::WindowUpdate { .. } | Frame::Ping(_) => {}
                other => panic!("a server sends no {other:?}"),
            }
        }
        input.reserve(32 << 10);
        match io.read_buf(&mut input).await {
            Ok(1..) => {}
            _ => break,
        }
    }
    streams.lock().unwrap().clear();
    tell.send_replace(Some(last_word));
}
