//! Exec and attach: between a client's streams and a session's descriptors.

use std::future::pending;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::sizes::Sizes;
use super::status::Outcome;
use super::stream::{Input, Output};
use crate::descriptor::{self, Writer};
use crate::engine::EngineError;
use crate::session::{Session, TerminalSize};

/// Output is read in pieces of this size, in bytes.
const PIECE: usize = 32 << 10;
/// How long a client has to read the rest and leave, once the command is over. It is the one that ends the
/// connection: if we did while it still sends, TCP would throw away what it has not read.
pub(super) const FINISH: Duration = Duration::from_secs(15 * 60);

/// A client's streams; those that it did not ask for are `None`.
pub(super) struct Channels {
    pub(super) stdin: Option<Input>,
    pub(super) stdout: Option<Output>,
    pub(super) stderr: Option<Output>,
    pub(super) resize: Option<Input>,
    pub(super) error: Output,
    /// The error stream carries `metav1.Status`, not a sentence.
    pub(super) json_status: bool,
    /// Streams on which the client is to send nothing more at the end.
    pub(super) refusals: Vec<Output>,
}

/// A session that begins.
type Started = BoxFuture<'static, Result<Session, EngineError>>;

/// What a client wants to talk to.
pub(super) enum Target {
    Command(Vec<String>),
    Container,
}

impl Target {
    fn failure(&self) -> &'static str {
        match self {
            Self::Command(_) => "error executing command in container",
            Self::Container => "error attaching to container",
        }
    }
}

/// Starts the session and passes everything on; at its end the client knows how it ended. The caller drops this when
/// the client leaves.
pub(super) async fn serve(
    start: impl FnOnce(Option<TerminalSize>) -> Started,
    target: Target,
    mut channels: Channels,
) {
    let outcome = match run(start, &mut channels).await {
        Err(error) => Outcome::Failed(target.failure(), error),
        Ok(code) => match target {
            Target::Command(command) if code != 0 => Outcome::ExitCode { command, code },
            Target::Command(_) | Target::Container => Outcome::Success,
        },
    };
    let status = if channels.json_status {
        outcome.json()
    } else {
        outcome.message().into_bytes()
    };
    // Whoever has left misses nothing.
    if !status.is_empty() {
        let _ = channels.error.write(status.into()).await;
    }
    for refused in &channels.refusals {
        let _ = refused.reset().await;
    }
    for output in [channels.stdout, channels.stderr, Some(channels.error)]
        .into_iter()
        .flatten()
    {
        let _ = output.finish().await;
    }
}

async fn run(
    start: impl FnOnce(Option<TerminalSize>) -> Started,
    channels: &mut Channels,
) -> Result<i32, EngineError> {
    let mut sizes = channels.resize.take().map(Sizes::new);
    let size = match &mut sizes {
        Some(sizes) => sizes.first().await,
        None => None,
    };
    let Session {
        stdin,
        stdout,
        stderr,
        resize,
        end,
        drain,
    } = start(size).await?;
    let (over, ended) = watch::channel(false);
    let end = async {
        let end = end.await;
        over.send_replace(true);
        end.unwrap_or_else(|_| {
            Err(EngineError::Internal(
                "The engine lost sight of the session.".into(),
            ))
        })
    };
    let stdout = output(stdout, channels.stdout.as_ref(), ended.clone(), drain);
    let stderr = output(stderr, channels.stderr.as_ref(), ended, drain);
    let input = (input(channels.stdin.take(), stdin), async {
        if let Some(sizes) = sizes {
            sizes.follow(resize).await;
        }
    });
    let input = async {
        tokio::join!(input.0, input.1);
        pending::<()>().await
    };
    let session = async { tokio::join!(end, stdout, stderr) };
    tokio::select! {
        (end, stdout, stderr) = session => {
            stdout.and(stderr).map_err(|error| {
                EngineError::Internal(format!("The output can't be read: {error}."))
            })?;
            end
        }
        () = input => unreachable_end(),
    }
}

/// The input's future never ends.
fn unreachable_end() -> Result<i32, EngineError> {
    Err(EngineError::Internal("The input outlived its session.".into()))
}

/// Passes output on until it ends. What the client does not take any more breaks the pipe.
async fn output(
    from: Option<OwnedFd>,
    to: Option<&Output>,
    ended: watch::Receiver<bool>,
    drain: Option<Duration>,
) -> std::io::Result<()> {
    let Some(from) = from else { return Ok(()) };
    let mut from = descriptor::Output::new(from, ended, drain)?;
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(PIECE, 0);
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        // A terminal's output has to be read even if nobody wants it.
        if let Some(to) = to
            && to.write(piece(&mut buffer, count)).await.is_err()
        {
            return Ok(());
        }
    }
}

/// Takes the first bytes off; few of them do not keep the whole buffer alive while they wait.
pub(super) fn piece(buffer: &mut BytesMut, count: usize) -> Bytes {
    if count < PIECE / 4 {
        Bytes::copy_from_slice(&buffer[..count])
    } else {
        buffer.split_to(count).freeze()
    }
}

/// Passes input on until the client has no more, or the command takes no more.
async fn input(from: Option<Input>, to: Option<OwnedFd>) {
    let (Some(mut from), Some(to)) = (from, to) else {
        return;
    };
    let mut to = match Writer::new(to) {
        Ok(to) => to,
        Err(error) => {
            tracing::warn!("A session's input can't be written: {error}.");
            return;
        }
    };
    while let Some(piece) = from.read().await {
        if let Err(error) = to.write_all(&piece).await {
            tracing::debug!("A session takes no more input: {error}.");
            return;
        }
    }
}
