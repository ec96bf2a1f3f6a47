//! One more process in a container: what the shim is asked for, and a session with it.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use berth_shim::protocol::{Exec, Request};
use nix::fcntl::OFlag;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::shim_client::{ShimClient, engine_error};
use super::{Container, RunState, Sandbox, lock, new_id, records};
use crate::engine::EngineError;
use crate::session::{Session, StreamOptions, TerminalSize};

/// How long output may still come after the process has ended: a grandchild may hold the pipe for ever.
pub(super) const DRAIN: Duration = Duration::from_millis(200);

/// Who waits for which exec's end.
pub(super) type Pending = Mutex<HashMap<String, oneshot::Sender<End>>>;

/// How an exec ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) exit_code: i32,
    pub(super) timed_out: bool,
}

/// Hands an exec's end to whoever waits for it.
pub(super) fn ended(pending: &Pending, exec: &str, exit_code: i32, timed_out: bool) {
    if let Some(waiting) = lock(pending).remove(exec) {
        // A caller that gave up does not need to know.
        let _ = waiting.send(End { exit_code, timed_out });
    }
}

/// Starts a command in a running container, to be talked to.
pub(super) async fn open(
    sandbox: &Arc<Sandbox>,
    container: &Container,
    command: Vec<String>,
    options: StreamOptions,
) -> Result<Session, EngineError> {
    options.validate()?;
    let mut exec = request(sandbox, container, command, options.tty, Duration::ZERO)?;
    if let Some(TerminalSize { width, height }) = options.size.filter(|_| options.tty) {
        exec.process["consoleSize"] = json!({ "width": width, "height": height });
    }
    let id = exec.id.clone();
    let (sender, end) = oneshot::channel();
    lock(&sandbox.execs).insert(id.clone(), sender);
    let started = start_with_streams(sandbox, exec, options).await;
    if started.is_err() {
        lock(&sandbox.execs).remove(&id);
    }
    let streams = started?;
    let resize = if options.tty {
        resizer(sandbox.live_shim()?.client, id)
    } else {
        watch::Sender::new(None)
    };
    let (tell, told) = oneshot::channel();
    tokio::spawn(async move {
        let end = end.await.map(|end| end.exit_code);
        let lost = |_| EngineError::Internal("The pod's shim ended while a command ran in it.".to_owned());
        // Nobody waits any more once the client has left.
        let _ = tell.send(end.map_err(lost));
    });
    Ok(Session {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        resize,
        end: told,
        drain: Some(DRAIN),
    })
}

async fn start_with_streams(
    sandbox: &Sandbox,
    exec: Exec,
    options: StreamOptions,
) -> Result<Streams, EngineError> {
    if !options.tty {
        let pipes = Streams::pipes(options.stdin, options.stdout, options.stderr);
        let (ours, theirs) = pipes.map_err(no_pipes)?;
        start(sandbox, exec, &theirs).await?;
        return Ok(ours);
    }
    let mut received = start(sandbox, exec, &[]).await?;
    let master = received.pop().ok_or_else(|| {
        EngineError::Internal(format!(
            "The shim of sandbox {} sent no terminal along.",
            sandbox.id
        ))
    })?;
    Streams::terminal(master, options).map_err(no_pipes)
}

/// Sets a terminal's size whenever a new one is told, until nobody can tell one any more.
pub(super) fn resizer(client: ShimClient, id: String) -> watch::Sender<Option<TerminalSize>> {
    let (sender, mut sizes) = watch::channel(None::<TerminalSize>);
    tokio::spawn(async move {
        while sizes.changed().await.is_ok() {
            let Some(TerminalSize { width, height }) = *sizes.borrow_and_update() else {
                continue;
            };
            let id = id.clone();
            if let Err(failure) = client.call(Request::Resize { id, width, height }).await {
                tracing::debug!("A terminal's size could not be set: {}", failure.message);
            }
        }
    });
    sender
}

/// What to ask a shim for: the container's own process, with another command.
pub(super) fn request(
    sandbox: &Sandbox,
    container: &Container,
    command: Vec<String>,
    terminal: bool,
    timeout: Duration,
) -> Result<Exec, EngineError> {
    check(container, &command)?;
    Ok(Exec {
        container: container.id.0.clone(),
        id: new_id()?,
        process: process(sandbox, container, command, terminal)?,
        timeout_ms: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX),
    })
}

/// Refuses what can't be run now.
pub(super) fn check(container: &Container, command: &[String]) -> Result<(), EngineError> {
    if command.is_empty() {
        return Err(EngineError::InvalidArgument(format!(
            "There is no command to run in container {}.",
            container.id
        )));
    }
    if !matches!(*container.run.borrow(), RunState::Running { .. }) {
        return Err(EngineError::FailedPrecondition(format!(
            "Container {} does not run.",
            container.id
        )));
    }
    Ok(())
}

fn process(
    sandbox: &Sandbox,
    container: &Container,
    command: Vec<String>,
    terminal: bool,
) -> Result<Value, EngineError> {
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
    process["terminal"] = terminal.into();
    if terminal {
        name_terminal(&mut process["env"]);
    }
    Ok(process)
}

/// A program on a terminal wants to know which kind; other engines say the same where the container does not.
fn name_terminal(env: &mut Value) {
    let is_term = |entry: &Value| entry.as_str().is_some_and(|entry| entry.starts_with("TERM="));
    match env.as_array_mut() {
        Some(entries) if !entries.iter().any(is_term) => entries.push("TERM=xterm".into()),
        Some(_) => {}
        None => *env = json!(["TERM=xterm"]),
    }
}

/// Starts it; with a terminal its master comes back. The caller's copies of the process's own descriptors are to be
/// closed then, or there is no end of its output.
pub(super) async fn start(
    sandbox: &Sandbox,
    exec: Exec,
    theirs: &[OwnedFd],
) -> Result<Vec<OwnedFd>, EngineError> {
    let client = sandbox.live_shim()?.client;
    let reply = client.call_with(Request::Exec(Box::new(exec)), theirs).await;
    reply.map(|(_, fds)| fds).map_err(engine_error)
}

pub(super) fn no_pipes(error: std::io::Error) -> EngineError {
    EngineError::Internal(format!("An exec's streams can't be made: {error}."))
}

/// Our ends of a process's streams.
pub(super) struct Streams {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl Streams {
    /// Pipes for what is wanted, `/dev/null` for what is not; and the process's ends.
    pub(super) fn pipes(stdin: bool, stdout: bool, stderr: bool) -> std::io::Result<(Self, [OwnedFd; 3])> {
        let (input, their_stdin) = match stdin.then(pipe).transpose()? {
            Some((theirs, ours)) => (Some(ours), theirs),
            None => (None, null()?),
        };
        let output = |wanted: bool| -> std::io::Result<(Option<OwnedFd>, OwnedFd)> {
            match wanted.then(pipe).transpose()? {
                Some((ours, theirs)) => Ok((Some(ours), theirs)),
                None => Ok((None, null()?)),
            }
        };
        let (out, their_stdout) = output(stdout)?;
        let (err, their_stderr) = output(stderr)?;
        let ours = Self {
            stdin: input,
            stdout: out,
            stderr: err,
        };
        Ok((ours, [their_stdin, their_stdout, their_stderr]))
    }

    /// A terminal's master in both directions. It is kept where only input is wanted: without it the terminal would
    /// hang up.
    fn terminal(master: OwnedFd, options: StreamOptions) -> std::io::Result<Self> {
        Ok(Self {
            stdin: options.stdin.then(|| master.try_clone()).transpose()?,
            stdout: Some(master),
            stderr: None,
        })
    }
}

/// The reading end, and the writing one.
pub(super) fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

fn null() -> std::io::Result<OwnedFd> {
    let null = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    Ok(null.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_a_name_unless_the_container_says_another() {
        for (env, named) in [
            (
                serde_json::json!(["A=b"]),
                serde_json::json!(["A=b", "TERM=xterm"]),
            ),
            (
                serde_json::json!(["TERM=vt100"]),
                serde_json::json!(["TERM=vt100"]),
            ),
            (Value::Null, serde_json::json!(["TERM=xterm"])),
        ] {
            let mut env = env;
            name_terminal(&mut env);
            assert_eq!(env, named);
        }
    }
}
