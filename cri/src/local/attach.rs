//! The streams of a running container itself.

use std::sync::Arc;

use berth_shim::protocol::Request;
use tokio::sync::{oneshot, watch};

use super::exec::{pipe, resizer};
use super::shim_client::engine_error;
use super::{Container, RunState, Sandbox, lock};
use crate::engine::EngineError;
use crate::session::{Session, StreamOptions, TerminalSize};

/// Attaches to a running container: what it writes from now on, and its input if it was made with one.
pub(super) async fn open(
    sandbox: &Arc<Sandbox>,
    container: &Arc<Container>,
    options: StreamOptions,
) -> Result<Session, EngineError> {
    let (has_stdin, has_terminal) = {
        let record = lock(&container.record);
        (record.config.stdin, record.config.tty)
    };
    // A terminal has one output, whatever the client believes.
    let options = StreamOptions {
        stderr: options.stderr && !has_terminal,
        tty: has_terminal,
        ..options
    };
    options.validate()?;
    if !matches!(
        *container.run.borrow(),
        RunState::Running { .. } | RunState::Created { .. }
    ) {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {} does not run.",
            container.id
        )));
    }
    let no_pipes = |error: std::io::Error| {
        EngineError::Internal(format!("An attachment's pipes can't be made: {error}."))
    };
    let (stdout, their_stdout) = pipe().map_err(no_pipes)?;
    let (stderr, their_stderr) = pipe().map_err(no_pipes)?;
    let mut theirs = vec![their_stdout, their_stderr];
    let mut stdin = None;
    if options.stdin && has_stdin {
        let (their_stdin, ours) = pipe().map_err(no_pipes)?;
        theirs.push(their_stdin);
        stdin = Some(ours);
    }
    let client = sandbox.live_shim()?.client;
    if let Some(TerminalSize { width, height }) = options.size.filter(|_| has_terminal) {
        let id = container.id.0.clone();
        client
            .call(Request::Resize { id, width, height })
            .await
            .map_err(engine_error)?;
    }
    let request = Request::Attach {
        container: container.id.0.clone(),
    };
    client.call_with(request, &theirs).await.map_err(engine_error)?;
    let resize = if has_terminal {
        resizer(client, container.id.0.clone())
    } else {
        watch::Sender::new(None)
    };
    Ok(Session {
        stdin,
        // An output that nobody wants breaks at the first write, and the shim forgets it.
        stdout: options.stdout.then_some(stdout),
        stderr: options.stderr.then_some(stderr),
        resize,
        end: end_of(container),
        drain: None,
    })
}

fn end_of(container: &Arc<Container>) -> oneshot::Receiver<Result<i32, EngineError>> {
    let (tell, told) = oneshot::channel();
    let container = Arc::clone(container);
    tokio::spawn(async move {
        let mut tell = tell;
        tokio::select! {
            code = container.exit_code() => drop(tell.send(Ok(code))),
            () = tell.closed() => {}
        }
    });
    told
}
