//! Opening the streams of exec and attach.

use std::time::Duration;

use super::{Failure, Transport, Trust, http};
use crate::session::StreamOptions;
use crate::streaming::activity::Activity;
use crate::streaming::serve::channel;
use crate::streaming::spdy::{self, Headers};
use crate::streaming::stream::{Input, Output};
use crate::streaming::websocket::{self, Codec};

/// How long a server may take to accept the streams.
const TIMEOUT: Duration = Duration::from_secs(30);
const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";

/// The connection that streams belong to; they end with it.
#[derive(Debug)]
pub(super) enum Connection {
    Spdy { _kept: spdy::Connection },
    WebSocket { _kept: websocket::Connection },
}

/// A session's streams as the server has them.
#[derive(Debug)]
pub(super) struct Streams {
    pub(super) stdin: Option<Output>,
    pub(super) stdout: Option<Input>,
    pub(super) stderr: Option<Input>,
    pub(super) resize: Option<Output>,
    pub(super) error: Input,
    pub(super) connection: Connection,
}

pub(super) async fn open(
    (url, trust): (&str, &Trust),
    options: StreamOptions,
    transport: Transport,
) -> Result<Streams, Failure> {
    match transport {
        Transport::WebSocket => by_websocket((url, trust), options).await,
        Transport::Spdy => by_spdy((url, trust), options).await,
    }
}

/// Only version 5 can tell the end of an input; a terminal's has none that would have to be told.
fn protocols(options: StreamOptions) -> &'static [&'static str] {
    if options.stdin && !options.tty {
        &[V5]
    } else {
        &[V5, V4]
    }
}

async fn by_websocket((url, trust): (&str, &Trust), options: StreamOptions) -> Result<Streams, Failure> {
    let (chosen, io) = http::websocket(url, trust, protocols(options)).await?;
    let codec = Codec {
        base64: false,
        half_close: chosen == V5,
    };
    let readable = [false, options.stdout, options.stderr, true, false];
    let mut connection = websocket::Connection::client(io, codec, &readable, Activity::new()).await;
    let output = |wanted: bool, number| wanted.then(|| Output::WebSocket(connection.output(number)));
    let (stdin, resize) = (
        output(options.stdin, channel::STDIN),
        output(options.tty, channel::RESIZE),
    );
    let error = connection.input(channel::ERROR);
    Ok(Streams {
        stdin,
        resize,
        stdout: connection.input(channel::STDOUT),
        stderr: connection.input(channel::STDERR),
        error: error.ok_or_else(|| Failure::Failed("the connection has no error stream".into()))?,
        connection: Connection::WebSocket { _kept: connection },
    })
}

async fn by_spdy((url, trust): (&str, &Trust), options: StreamOptions) -> Result<Streams, Failure> {
    let io = http::spdy(url, trust, V4).await?;
    let connection = spdy::Connection::client(io, Activity::new());
    let streams = async {
        let open = async |wanted: bool, kind: &str| {
            if !wanted {
                return Ok(None);
            }
            let opened = connection.open_stream(Headers::new([("streamtype", kind)])).await;
            opened.map(Some).ok_or_else(|| {
                Failure::Failed(format!("the streaming server does not take the stream {kind}"))
            })
        };
        // In the order in which other clients open them.
        let error = open(true, "error").await?;
        let stdin = open(options.stdin, "stdin").await?;
        let stdout = open(options.stdout, "stdout").await?;
        let stderr = open(options.stderr, "stderr").await?;
        let resize = open(options.tty, "resize").await?;
        Ok((error, stdin, stdout, stderr, resize))
    };
    let (error, stdin, stdout, stderr, resize) = match tokio::time::timeout(TIMEOUT, streams).await {
        Ok(streams) => streams?,
        Err(_) => {
            return Err(Failure::Failed(
                "the streaming server does not take the streams".into(),
            ));
        }
    };
    let (error, _) = error.ok_or_else(|| Failure::Failed("the connection has no error stream".into()))?;
    Ok(Streams {
        stdin: stdin.map(|(_, output)| output),
        stdout: stdout.map(|(input, _)| input),
        stderr: stderr.map(|(input, _)| input),
        resize: resize.map(|(_, output)| output),
        error,
        connection: Connection::Spdy { _kept: connection },
    })
}
