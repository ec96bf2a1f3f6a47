//! A connection to a port of a pod, by way of a runtime.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::{Failure, Transport, Trust, http};
use crate::streaming::activity::Activity;
use crate::streaming::remote_command::piece;
use crate::streaming::spdy::{self, Headers};
use crate::streaming::stream::{Input, Output};
use crate::streaming::websocket;

const PROTOCOL: &str = "portforward.k8s.io";
/// The only way over a WebSocket in which a direction can end by itself.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// What is read at once, in bytes.
const PIECE: usize = 32 << 10;
/// How long a server may take to accept the streams.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Connects to a runtime's URL of port-forward. What goes wrong in the pod later resets the connection.
pub(crate) async fn forward(
    (url, trust): (&str, &Trust),
    port: u16,
    transport: Transport,
) -> Result<TcpStream, Failure> {
    let pair = pair().await.map_err(|error| {
        Failure::Failed(format!(
            "a connection of this machine with itself can't be made: {error}"
        ))
    })?;
    let (near, far) = pair;
    match transport {
        Transport::WebSocket => {
            let (_, io) = http::websocket(url, trust, &[TUNNEL]).await?;
            let (inside, pump) = websocket::tunnel(io, websocket::Role::Client).await;
            let pump = tokio::spawn(pump);
            let forwarded = run(inside, port, far).await;
            match forwarded {
                Ok(work) => drop(tokio::spawn(async move {
                    work.await;
                    // What is in the tunnel still goes through it: the connection inside has ended.
                    let _ = tokio::time::timeout(TIMEOUT, pump).await;
                })),
                Err(failure) => {
                    pump.abort();
                    return Err(failure);
                }
            }
        }
        Transport::Spdy => {
            let io = http::spdy(url, trust, PROTOCOL).await?;
            let work = run(io, port, far).await?;
            tokio::spawn(work);
        }
    }
    Ok(near)
}

/// A connection of this process with itself.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    loop {
        let (far, peer) = listener.accept().await?;
        // Anybody on this machine may have been faster.
        if peer == near.local_addr()? {
            near.set_nodelay(true)?;
            far.set_nodelay(true)?;
            return Ok((near, far));
        }
    }
}

/// Opens the two streams of a forwarded connection; the future passes everything on.
async fn run<T>(
    io: T,
    port: u16,
    far: TcpStream,
) -> Result<impl Future<Output = ()> + Send + 'static, Failure>
where
    T: AsyncRead + AsyncWrite + Send + 'static,
{
    let connection = spdy::Connection::client(io, Activity::new());
    let streams = async {
        let mut open = Vec::new();
        for kind in ["error", "data"] {
            let headers = [
                ("streamtype", kind),
                ("port", &port.to_string()),
                ("requestid", "0"),
            ];
            let headers = Headers::new(headers.map(|(name, value)| (name, value.to_owned())));
            let stream = connection.open_stream(headers).await;
            open.push(stream.ok_or_else(|| {
                Failure::Failed(format!(
                    "the streaming server does not take the stream {kind} of port {port}"
                ))
            })?);
        }
        Ok(open)
    };
    let streams = match tokio::time::timeout(TIMEOUT, streams).await {
        Ok(streams) => <[_; 2]>::try_from(streams?).ok(),
        Err(_) => None,
    };
    let Some([(error, nothing), (input, output)]) = streams else {
        return Err(Failure::Failed(format!(
            "the streaming server does not take the streams of port {port}"
        )));
    };
    Ok(async move {
        // We have nothing to say there.
        let _ = nothing.finish().await;
        pass(far, error, input, output, port).await;
        drop(connection);
    })
}

async fn pass(far: TcpStream, error: Input, input: Input, output: Output, port: u16) {
    let (reading, mut writing) = far.into_split();
    let refused = refusal(error, port);
    let data = async {
        let (whole, ()) = tokio::join!(download(input, &mut writing), upload(reading, output));
        whole
    };
    let whole = tokio::select! {
        whole = data => whole,
        // It comes only when something is wrong.
        () = refused => false,
    };
    if !whole {
        // What came so far must not be taken for all.
        let _ = writing.as_ref().set_zero_linger();
        writing.forget();
    }
}

/// Resolves when the server says why it can't go on.
async fn refusal(mut error: Input, port: u16) {
    let mut text = Vec::new();
    while let Some(piece) = error.read().await {
        text.extend_from_slice(&piece);
        if text.len() > PIECE {
            break;
        }
    }
    if text.is_empty() {
        return std::future::pending().await;
    }
    let said = String::from_utf8_lossy(&text);
    tracing::warn!(
        "A connection to port {port} of a pod was broken off: {}",
        said.trim()
    );
}

/// From the pod; `false` if the server broke off.
async fn download(mut from: Input, to: &mut OwnedWriteHalf) -> bool {
    while let Some(piece) = from.read().await {
        if to.write_all(&piece).await.is_err() {
            // The caller wants no more, but may still have something to say.
            while from.read().await.is_some() {}
            return true;
        }
    }
    if from.is_broken() {
        return false;
    }
    let _ = to.shutdown().await;
    true
}

/// To the pod.
async fn upload(mut from: OwnedReadHalf, to: Output) {
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(PIECE, 0);
        match from.read(&mut buffer).await {
            Ok(count @ 1..) => {
                if to.write(piece(&mut buffer, count)).await.is_err() {
                    return;
                }
            }
            Ok(_) => {
                let _ = to.finish().await;
                return;
            }
            // The caller broke off.
            Err(_) => {
                let _ = to.reset().await;
                return;
            }
        }
    }
}
