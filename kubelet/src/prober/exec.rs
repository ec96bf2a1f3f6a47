//! The exec probe: a command in the container whose exit code counts.

use std::time::Duration;

use berth_cri::{ContainerId, Engine, EngineError, ExecOutput};

use super::outcome::Outcome;
use crate::defaults::MAX_PROBE_OUTPUT;

/// Runs the command once.
pub(super) async fn attempt(
    engine: &dyn Engine,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Outcome {
    match engine
        .exec_sync(id, command.to_vec(), timeout, MAX_PROBE_OUTPUT)
        .await
    {
        Ok(output) if output.exit_code == 0 => Outcome::Success,
        Ok(output) => Outcome::Failure(describe(&output)),
        Err(EngineError::DeadlineExceeded(_)) => {
            Outcome::Failure(format!("command {command:?} timed out after {timeout:?}"))
        }
        // The command is not there or can't be executed: that is the container's doing.
        Err(EngineError::CannotRun { message, .. }) => Outcome::Failure(message),
        Err(error) => Outcome::Error(error.to_string()),
    }
}

fn describe(output: &ExecOutput) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&text);
    let text = text.trim();
    if text.is_empty() {
        format!("command ended with exit code {}", output.exit_code)
    } else {
        text.to_owned()
    }
}
