//! A command in a container, run to its end: what it prints, and how it ends in time.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use berth_shim::protocol::Request;
use tokio::sync::{oneshot, watch};

use super::exec::{self, DRAIN, End, Streams};
use super::{Container, Sandbox, lock};
use crate::descriptor::Output;
use crate::engine::EngineError;
use crate::types::ExecOutput;

/// How much later than the shim the engine gives up on a process whose time is over.
const TIMEOUT_SLACK: Duration = Duration::from_secs(2);

/// Runs a command in a running container.
pub(super) async fn run(
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
        return Err(EngineError::DeadlineExceeded(format!(
            "The command did not end within {} s and was killed with everything it had started.",
            timeout.as_secs_f64()
        )));
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
