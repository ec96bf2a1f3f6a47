//! A command in a container, run to its end: what it prints, and how it ends in time.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use berth_shim::protocol::{FailureCode, MAX_RUN_OUTPUT, Request, Response, Run};
use tokio::sync::{oneshot, watch};

use super::exec::{self, DRAIN, End, Streams};
use super::shim_client::{ShimClient, engine_error};
use super::{Container, Sandbox, lock, new_id};
use crate::descriptor::Output;
use crate::engine::EngineError;
use crate::types::{ExecOutput, RepeatedCommand};

/// How much later than the shim the engine gives up on a process whose time is over.
const TIMEOUT_SLACK: Duration = Duration::from_secs(2);

/// Runs a command in a running container. One whose output is small is run by the shim: it takes one message each way, where
/// otherwise it takes two pipes and three messages.
pub(super) async fn run(
    sandbox: &Arc<Sandbox>,
    container: &Container,
    command: Vec<String>,
    timeout: Duration,
    max_output: usize,
) -> Result<ExecOutput, EngineError> {
    let client = sandbox.live_shim()?.client;
    match u64::try_from(max_output) {
        Ok(limit @ ..=MAX_RUN_OUTPUT) if client.runs_commands() => {
            exec::check(container, &command)?;
            run_in_shim(client, container, command, timeout, limit).await
        }
        _ => run_on_pipes(sandbox, container, command, timeout, max_output).await,
    }
}

/// Has the shim run a command again and again until one does not end with 0, and say nothing meanwhile. `None` where it can't.
pub(super) async fn repeat(
    sandbox: &Arc<Sandbox>,
    container: &Container,
    repeated: &RepeatedCommand,
) -> Result<Option<ExecOutput>, EngineError> {
    let client = sandbox.live_shim()?.client;
    let max_output = u64::try_from(repeated.max_output).unwrap_or(u64::MAX);
    if max_output > MAX_RUN_OUTPUT || !client.repeats_commands() {
        return Ok(None);
    }
    exec::check(container, &repeated.command)?;
    let once = request(container, repeated.command.clone(), repeated.timeout, max_output)?;
    let run = Run {
        first_in_ms: milliseconds(repeated.first_in),
        period_ms: milliseconds(repeated.period).max(1),
        ..once
    };
    let abandoned = Abandoned::new(&client, &run);
    let reply = client.call_with(Request::Run(Box::new(run)), &[]).await;
    abandoned.forget();
    match reply {
        Err(failure) if failure.code == FailureCode::Unsupported => Ok(None),
        reply => output(reply.map_err(engine_error)?, repeated.timeout).map(Some),
    }
}
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn request(
    container: &Container,
    args: Vec<String>,
    timeout: Duration,
    max_output: u64,
) -> Result<Run, EngineError> {
    Ok(Run {
        container: container.id.0.clone(),
        id: new_id()?,
        args,
        timeout_ms: milliseconds(timeout),
        max_output,
        period_ms: 0,
        first_in_ms: 0,
    })
}

async fn run_in_shim(
    client: ShimClient,
    container: &Container,
    args: Vec<String>,
    timeout: Duration,
    max_output: u64,
) -> Result<ExecOutput, EngineError> {
    let run = request(container, args, timeout, max_output)?;
    let abandoned = Abandoned::new(&client, &run);
    let call = client.call_with(Request::Run(Box::new(run)), &[]);
    let reply = if timeout.is_zero() {
        Ok(call.await)
    } else {
        tokio::time::timeout(timeout + TIMEOUT_SLACK, call).await
    };
    let Ok(reply) = reply else {
        // Either what was killed does not die, or it was not killed, because the shim is stopped or hangs.
        client.call(Request::State).await.map_err(engine_error)?;
        return Err(too_late(timeout));
    };
    abandoned.forget();
    output(reply.map_err(engine_error)?, timeout)
}

/// What the shim says of a command that has ended.
fn output(reply: (Response, Vec<OwnedFd>), timeout: Duration) -> Result<ExecOutput, EngineError> {
    match reply {
        (Response::Ran { timed_out: true, .. }, _) => Err(too_late(timeout)),
        (
            Response::Ran {
                exit_code,
                stdout,
                stderr,
                ..
            },
            fds,
        ) => {
            let file = fds.into_iter().next().map(File::from);
            Ok(ExecOutput {
                stdout: part(file.as_ref(), 0, stdout)?,
                stderr: part(file.as_ref(), stdout, stderr)?,
                exit_code,
            })
        }
        (other, _) => Err(EngineError::Internal(format!(
            "The pod's shim answered a command with {other:?}."
        ))),
    }
}

/// So many bytes of what the shim sent along.
fn part(file: Option<&File>, from: u64, length: u64) -> Result<Vec<u8>, EngineError> {
    let mut bytes = vec![0; usize::try_from(length.min(MAX_RUN_OUTPUT)).unwrap_or(0)];
    match file {
        Some(file) => file.read_exact_at(&mut bytes, from).map_err(exec::no_pipes)?,
        None if bytes.is_empty() => {}
        None => {
            return Err(EngineError::Internal(
                "A command's output did not come along.".into(),
            ));
        }
    }
    Ok(bytes)
}

/// A caller that gives up takes the process along.
struct Abandoned {
    client: Option<ShimClient>,
    exec: String,
}

impl Abandoned {
    fn new(client: &ShimClient, run: &Run) -> Self {
        Self {
            client: Some(client.clone()),
            exec: run.id.clone(),
        }
    }

    /// The process has ended by itself.
    fn forget(mut self) {
        self.client = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let exec = std::mem::take(&mut self.exec);
        tokio::spawn(async move { client.call(Request::KillExec { exec }).await });
    }
}

fn too_late(timeout: Duration) -> EngineError {
    EngineError::DeadlineExceeded(format!(
        "The command did not end within {} s and was killed with everything it had started.",
        timeout.as_secs_f64()
    ))
}

async fn run_on_pipes(
    sandbox: &Arc<Sandbox>,
    container: &Container,
    command: Vec<String>,
    timeout: Duration,
    max_output: usize,
) -> Result<ExecOutput, EngineError> {
    let exec = exec::request(sandbox, container, command, false, timeout)?;
    let waiting = Waiting::new(sandbox, &exec.id);
    let (ours, theirs) = Streams::pipes(false, true, true).map_err(exec::no_pipes)?;
    exec::start(sandbox, exec, &theirs).await?;
    drop(theirs);
    let (Some(stdout), Some(stderr)) = (ours.stdout, ours.stderr) else {
        return Err(EngineError::Internal("An exec's pipes were not made.".into()));
    };
    collect(waiting, stdout, stderr, timeout, max_output).await
}

async fn collect(
    waiting: Waiting,
    stdout: OwnedFd,
    stderr: OwnedFd,
    timeout: Duration,
    max_output: usize,
) -> Result<ExecOutput, EngineError> {
    let (over, ended) = watch::channel(false);
    let end = async {
        let end = waiting.end(timeout).await;
        over.send_replace(true);
        end
    };
    let readers = (
        read_up_to(stdout, max_output, ended.clone()),
        read_up_to(stderr, max_output, ended),
    );
    let (stdout, stderr, end) = tokio::join!(readers.0, readers.1, end);
    let end = end?;
    if end.timed_out {
        return Err(too_late(timeout));
    }
    Ok(ExecOutput {
        stdout: stdout.map_err(exec::no_pipes)?,
        stderr: stderr.map_err(exec::no_pipes)?,
        exit_code: end.exit_code,
    })
}

/// Reads to the end; past `limit`, output is read and dropped, so that the process is not held up.
async fn read_up_to(from: OwnedFd, limit: usize, ended: watch::Receiver<bool>) -> std::io::Result<Vec<u8>> {
    let mut from = Output::new(from, ended, Some(DRAIN))?;
    let mut kept = Vec::new();
    let mut buffer = vec![0; 16 << 10];
    while let count @ 1.. = from.read(&mut buffer).await? {
        let room = limit.saturating_sub(kept.len()).min(count);
        kept.extend_from_slice(&buffer[..room]);
    }
    Ok(kept)
}

/// A place among those that wait for an exec's end. A caller that gives up takes the process along.
struct Waiting {
    sandbox: Arc<Sandbox>,
    exec: String,
    end: oneshot::Receiver<End>,
}

impl Waiting {
    fn new(sandbox: &Arc<Sandbox>, exec: &str) -> Self {
        let (sender, end) = oneshot::channel();
        lock(&sandbox.execs).insert(exec.to_owned(), sender);
        Self {
            sandbox: Arc::clone(sandbox),
            exec: exec.to_owned(),
            end,
        }
    }

    async fn end(mut self, timeout: Duration) -> Result<End, EngineError> {
        let lost = |_| EngineError::Internal("The pod's shim ended while a command ran in it.".to_owned());
        if timeout.is_zero() {
            return (&mut self.end).await.map_err(lost);
        }
        match tokio::time::timeout(timeout + TIMEOUT_SLACK, &mut self.end).await {
            Ok(end) => end.map_err(lost),
            Err(_) => Ok(End {
                exit_code: 0,
                timed_out: true,
            }),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if lock(&self.sandbox.execs).remove(&self.exec).is_none() {
            return;
        }
        let Ok(shim) = self.sandbox.live_shim() else {
            return;
        };
        let exec = std::mem::take(&mut self.exec);
        tokio::spawn(async move { shim.client.call(Request::KillExec { exec }).await });
    }
}
