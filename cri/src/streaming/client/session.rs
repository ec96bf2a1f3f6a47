//! A session's descriptors, between its caller and the server's streams.

use std::io;
use std::os::fd::OwnedFd;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use tokio::sync::{oneshot, watch};

use super::remote_command::{Connection, Streams, open};
use super::{Failure, Transport, Trust};
use crate::cannot_run;
use crate::descriptor::{Reader, Writer};
use crate::engine::EngineError;
use crate::session::{Session, StreamOptions, TerminalSize};
use crate::streaming::remote_command::piece;
use crate::streaming::stream::{Input, Output};

/// What is read at once, in bytes.
const PIECE: usize = 32 << 10;
/// A status is not longer than this, in bytes.
const MAX_STATUS: usize = 1 << 20;

/// Connects to a runtime's URL of exec or attach. `success` says with which code the session has ended if the server says
/// that all went well.
pub(crate) async fn session(
    (url, trust): (&str, &Trust),
    options: StreamOptions,
    transport: Transport,
    success: BoxFuture<'static, Result<i32, EngineError>>,
) -> Result<Session, Failure> {
    let streams = open((url, trust), options, transport).await?;
    start(streams, options, success)
        .map_err(|error| Failure::Failed(format!("a session's pipes can't be made: {error}")))
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC)?)
}

fn start(
    streams: Streams,
    options: StreamOptions,
    success: BoxFuture<'static, Result<i32, EngineError>>,
) -> io::Result<Session> {
    let Streams {
        stdin: to_stdin,
        stdout: from_stdout,
        stderr: from_stderr,
        resize: to_resize,
        error,
        connection,
    } = streams;
    let (stdin, input) = match to_stdin {
        Some(to) => {
            let (theirs, ours) = pipe()?;
            (Some(ours), Some((Reader::new(theirs)?, to)))
        }
        None => (None, None),
    };
    let output = |from: Option<Input>| -> io::Result<_> {
        let Some(from) = from else { return Ok((None, None)) };
        let (ours, theirs) = pipe()?;
        Ok((Some(ours), Some((from, Writer::new(theirs)?))))
    };
    let (stdout, out) = output(from_stdout)?;
    let (stderr, err) = output(from_stderr)?;
    let (resize, mut sizes) = watch::channel(options.size);
    // The first one is sent too.
    sizes.mark_changed();
    let (tell, end) = oneshot::channel();
    let pumps = Pumps {
        input,
        // Nobody's end of typing is the end of a terminal.
        ends_input: !options.tty,
        out,
        err,
        sizes: (sizes, to_resize),
        error,
        connection,
    };
    tokio::spawn(pumps.run(success, tell));
    Ok(Session {
        stdin,
        stdout,
        stderr,
        resize,
        end,
        drain: None,
    })
}

/// What is between the descriptors and the streams.
struct Pumps {
    input: Option<(Reader, Output)>,
    ends_input: bool,
    out: Option<(Input, Writer)>,
    err: Option<(Input, Writer)>,
    sizes: (watch::Receiver<Option<TerminalSize>>, Option<Output>),
    error: Input,
    connection: Connection,
}

impl Pumps {
    /// Passes everything on until the server has said how it ended, or until the caller has let go of all of it.
    async fn run(
        self,
        success: BoxFuture<'static, Result<i32, EngineError>>,
        mut tell: oneshot::Sender<Result<i32, EngineError>>,
    ) {
        let (input_left, left) = watch::channel(self.input.is_none());
        let input = send(self.input, self.ends_input, input_left);
        let (sizes_left, sizes_gone) = watch::channel(false);
        let sizes = resize(self.sizes.0, self.sizes.1, sizes_left);
        let (out_left, out_gone) = watch::channel(self.out.is_none());
        let (err_left, err_gone) = watch::channel(self.err.is_none());
        let outputs = async {
            tokio::join!(
                receive(self.out, out_left),
                receive(self.err, err_left),
                status(self.error)
            )
            .2
        };
        let abandoned = async {
            for mut gone in [left, sizes_gone, out_gone, err_gone] {
                let _ = gone.wait_for(|gone| *gone).await;
            }
            tell.closed().await;
        };
        let inputs = async {
            tokio::join!(input, sizes);
            std::future::pending::<()>().await;
        };
        let said = tokio::select! {
            said = outputs => said,
            () = inputs => return,
            () = abandoned => return,
        };
        let end = match said {
            Ok(Some(code)) => Ok(code),
            Ok(None) => success.await,
            Err(error) => Err(error),
        };
        drop(self.connection);
        // Nobody waits any more once the caller has left.
        let _ = tell.send(end);
    }
}

/// Passes input on until the caller has no more, or the server takes no more.
async fn send(pump: Option<(Reader, Output)>, ends: bool, left: watch::Sender<bool>) {
    let Some((mut from, to)) = pump else { return };
    let mut buffer = BytesMut::new();
    loop {
        buffer.resize(PIECE, 0);
        let count = match from.read(&mut buffer).await {
            Ok(count @ 1..) => count,
            Ok(_) => break,
            Err(error) => {
                tracing::warn!("A session's input can't be read: {error}.");
                break;
            }
        };
        if to.write(piece(&mut buffer, count)).await.is_err() {
            break;
        }
    }
    // The caller's next write breaks.
    drop(from);
    if ends {
        let _ = to.finish().await;
    }
    left.send_replace(true);
}

/// Passes output on until the server has no more. What the caller does not take any more is thrown away, since how it ended is
/// told behind it.
async fn receive(pump: Option<(Input, Writer)>, left: watch::Sender<bool>) {
    let Some((mut from, mut to)) = pump else { return };
    loop {
        let piece = tokio::select! {
            piece = from.read() => piece,
            () = to.broken() => break,
        };
        let Some(piece) = piece else { return };
        if to.write_all(&piece).await.is_err() {
            break;
        }
    }
    drop(to);
    left.send_replace(true);
    while from.read().await.is_some() {}
}

/// Passes on each new size of the caller's terminal.
async fn resize(
    mut sizes: watch::Receiver<Option<TerminalSize>>,
    to: Option<Output>,
    left: watch::Sender<bool>,
) {
    while sizes.changed().await.is_ok() {
        let (Some(size), Some(to)) = (*sizes.borrow_and_update(), &to) else {
            continue;
        };
        let text = format!("{{\"Width\":{},\"Height\":{}}}\n", size.width, size.height);
        if to.write(Bytes::from(text)).await.is_err() {
            break;
        }
    }
    left.send_replace(true);
}

/// What the error stream says at the end.
async fn status(mut error: Input) -> Result<Option<i32>, EngineError> {
    let mut text = Vec::new();
    while let Some(piece) = error.read().await {
        text.extend_from_slice(&piece);
        if text.len() > MAX_STATUS {
            return Err(EngineError::Internal(
                "The streaming server's status has no end.".to_owned(),
            ));
        }
    }
    parse(&text)
}

/// `metav1.Status`: `None` is success, else the code of a command, else an error with the server's sentence.
fn parse(text: &[u8]) -> Result<Option<i32>, EngineError> {
    if text.is_empty() {
        return Err(EngineError::Unavailable(
            "The connection to the streaming server broke before it said how the session ended.".to_owned(),
        ));
    }
    let Ok(status) = serde_json::from_slice::<serde_json::Value>(text) else {
        let said = String::from_utf8_lossy(text);
        return Err(EngineError::Internal(format!(
            "The streaming server says: {}",
            said.trim()
        )));
    };
    if status["status"] == "Success" {
        return Ok(None);
    }
    if status["reason"] == "NonZeroExitCode" {
        let causes = status["details"]["causes"].as_array();
        let mut codes = causes
            .into_iter()
            .flatten()
            .filter(|cause| cause["reason"] == "ExitCode")
            .filter_map(|cause| cause["message"].as_str()?.parse().ok());
        if let Some(code) = codes.next() {
            return Ok(Some(code));
        }
    }
    let said = status["message"].as_str().unwrap_or("nothing that makes sense");
    let message = format!("The streaming server says: {said}");
    Err(match cannot_run::exit_code(said) {
        Some(exit_code) => EngineError::CannotRun { exit_code, message },
        None => EngineError::Internal(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::status::Outcome;

    #[test]
    fn what_our_server_says_at_the_end_is_understood() {
        assert_eq!(parse(&Outcome::Success.json()).unwrap(), None);
        let failed = Outcome::ExitCode {
            command: vec!["false".to_owned()],
            code: 137,
        };
        assert_eq!(parse(&failed.json()).unwrap(), Some(137));
        let why = EngineError::Internal("no such program".to_owned());
        let error = parse(&Outcome::Failed("error executing", why).json()).unwrap_err();
        assert!(error.to_string().contains("no such program"), "{error}");
        let why = EngineError::CannotRun {
            exit_code: 126,
            message: "exec \"/x\": permission denied.".to_owned(),
        };
        let error = parse(&Outcome::Failed("error executing", why).json()).unwrap_err();
        assert!(
            matches!(error, EngineError::CannotRun { exit_code: 126, .. }),
            "{error:?}"
        );
    }

    #[test]
    fn what_is_no_status_is_an_error() {
        for text in [
            &b""[..],
            b"plain words",
            b"{}",
            b"{\"status\":\"Failure\",\"reason\":\"NonZeroExitCode\"}",
        ] {
            assert!(parse(text).is_err());
        }
    }
}
