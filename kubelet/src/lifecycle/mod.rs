//! Lifecycle hooks: what a container asks to be done right after its start and right before its end.

use std::net::IpAddr;
use std::time::Duration;

use berth_cri::{ContainerId, Engine, EngineError};
use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::plan::HookOutcome;
use crate::prober::{Outcome, http_get_attempt, of_http_get};

/// A hook's output is cut here.
const MAX_OUTPUT: usize = 10 << 10;
/// A hook's HTTP request may take so long if the hook has no other deadline.
const HTTP_TIMEOUT: Duration = Duration::from_secs(60);

/// A hook of a running container.
#[derive(Clone, Debug)]
pub(crate) struct Hook {
    pub(crate) id: ContainerId,
    pub(crate) container: Container,
    pub(crate) handler: LifecycleHandler,
    /// The pod's address.
    pub(crate) ip: Option<IpAddr>,
}

/// Runs a hook to its end. `limit` is how long the command may take; `None` is for ever. The caller may give up at any
/// time by dropping the future; a command is then ended by its own limit.
pub(crate) async fn run(hook: &Hook, engine: &dyn Engine, limit: Option<Duration>) -> HookOutcome {
    let handler = &hook.handler;
    if let Some(exec) = &handler.exec {
        run_command(hook, engine, exec.command.clone().unwrap_or_default(), limit).await
    } else if let Some(get) = &handler.http_get {
        match of_http_get(get, &hook.container, hook.ip) {
            // Any answer will do, as upstream has it; only the lack of one is a failure.
            Ok(get) => match http_get_attempt(&get, limit.unwrap_or(HTTP_TIMEOUT)).await {
                Outcome::Failure(message) if !message.starts_with("HTTP probe failed") => {
                    HookOutcome::Failed(message)
                }
                _ => HookOutcome::Succeeded,
            },
            Err(message) => HookOutcome::Failed(message),
        }
    } else if let Some(sleep) = &handler.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        HookOutcome::Succeeded
    } else {
        HookOutcome::Failed(
            "the hook is of a kind that is not supported; exec, httpGet and sleep are".to_owned(),
        )
    }
}

async fn run_command(
    hook: &Hook,
    engine: &dyn Engine,
    command: Vec<String>,
    limit: Option<Duration>,
) -> HookOutcome {
    let shown = command.join(" ");
    match engine
        .exec_sync(&hook.id, command, limit.unwrap_or(Duration::ZERO), MAX_OUTPUT)
        .await
    {
        Ok(output) if output.exit_code == 0 => HookOutcome::Succeeded,
        Ok(output) => {
            let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
            let said = String::from_utf8_lossy(&said);
            HookOutcome::Failed(format!(
                "command '{shown}' exited with {}: {:?}",
                output.exit_code,
                said.trim()
            ))
        }
        Err(EngineError::DeadlineExceeded(_)) => {
            HookOutcome::Failed(format!("command '{shown}' did not end in time and was killed"))
        }
        Err(error) => HookOutcome::Failed(format!("command '{shown}' could not be run: {error}")),
    }
}
