//! One more process in a container, and what it prints.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_shim::protocol::{Exec, Request};
use nix::fcntl::OFlag;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::shim_client::engine_error;
use super::{Container, RunState, Sandbox, lock, new_id, records};
use crate::engine::EngineError;
use crate::types::ExecOutput;

/// How long output may still come after the process has ended: a grandchild may hold the pipe for ever.
const DRAIN: Duration = Duration::from_millis(200);
/// How much later than the shim the engine gives up on a process whose time is over.
const TIMEOUT_SLACK: Duration = Duration::from_secs(2);

/// Who waits for which exec's end.
pub(super) type Pending = Mutex<HashMap<String, oneshot::Sender<End>>>;

/// How an exec ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    exit_code: i32,
    timed_out: bool,
}

/// Hands an exec's end to whoever waits for it.
pub(super) fn ended(pending: &Pending, exec: &str, exit_code: i32, timed_out: bool) {
    if let Some(waiting) = lock(pending).remove(exec) {
        // A caller that gave up does not need to know.
        let _ = waiting.send(End { exit_code, timed_out });
    }
}

/// Runs a command in a running container.
pub(super) async fn run(
    sandbox: &Arc<Sandbox>,
    container: &Container,
    command: Vec<String>,
    timeout: Duration,
    max_output: usize,
) -> Result<ExecOutput, EngineError> {
    if !matches!(*container.run.borrow(), RunState::Running { .. }) {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {} does not run.",
            container.id
        )));
    }
    let exec = Exec {
        container: container.id.0.clone(),
        id: new_id()?,
        process: process(sandbox, container, command)?,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    };
    let waiting = Waiting::new(sandbox, &exec.id);
    let (stdout, stderr) = start(sandbox, exec).await?;
    collect(waiting, stdout, stderr, timeout, max_output).await
}

/// The container's own process, with another command.
fn process(sandbox: &Sandbox, container: &Container, command: Vec<String>) -> Result<Value, EngineError> {
    let path = sandbox.dirs.bundle(&container.id).join("config.json");
    let spec = records::read::<Value>(&path).ok().flatten();
    let mut process = spec
        .and_then(|mut spec| spec.get_mut("process").map(Value::take))
        .ok_or_else(|| {
            EngineError::Internal(format!(
                "The bundle of container {} can't be read: {}.",
                container.id,
                path.display()
            ))
        })?;
    process["args"] = command.into();
    process["terminal"] = false.into();
    Ok(process)
}

async fn start(sandbox: &Sandbox, exec: Exec) -> Result<(pipe::Receiver, pipe::Receiver), EngineError> {
    let failed =
        |error: std::io::Error| EngineError::Internal(format!("An exec's pipes can't be made: {error}."));
    let null = std::fs::File::open("/dev/null").map_err(failed)?;
    let (out, child_out) = output_pipe().map_err(failed)?;
    let (err, child_err) = output_pipe().map_err(failed)?;
    let fds = [OwnedFd::from(null), child_out, child_err];
    let client = sandbox.live_shim()?.client;
    client
        .call_with(Request::Exec(Box::new(exec)), &fds)
        .await
        .map_err(engine_error)?;
    Ok((out, err))
}

fn output_pipe() -> std::io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(read)?, write))
}

async fn collect(
    waiting: Waiting,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    timeout: Duration,
    max_output: usize,
) -> Result<ExecOutput, EngineError> {
    let (over, ended) = tokio::sync::watch::channel(false);
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
        return Err(EngineError::DeadlineExceeded(format!(
            "The command did not end within {} s and was killed with everything it had started.",
            timeout.as_secs_f64()
        )));
    }
    Ok(ExecOutput {
        stdout,
        stderr,
        exit_code: end.exit_code,
    })
}

/// Reads to the end, or until shortly after the process has ended; past `limit`, output is read and dropped, so that
/// the process is not held up.
async fn read_up_to(
    mut from: pipe::Receiver,
    limit: usize,
    mut ended: tokio::sync::watch::Receiver<bool>,
) -> Vec<u8> {
    let mut kept = Vec::new();
    let read = async {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let room = limit.saturating_sub(kept.len()).min(count);
            kept.extend_from_slice(&buffer[..room]);
        }
    };
    let too_late = async {
        // An error means that the waiter is gone, and the process with it.
        let _ = ended.wait_for(|ended| *ended).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = read => {}
        () = too_late => {}
    }
    kept
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
