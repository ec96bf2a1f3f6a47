//! The exec probe: a command in the container whose exit code counts.

use std::time::Duration;

use berth_cri::{ContainerId, Engine, EngineError, ExecOutput, RepeatedCommand};

use super::outcome::Outcome;
use crate::defaults::MAX_PROBE_OUTPUT;

/// Runs the command once.
pub(super) async fn attempt(
    engine: &dyn Engine,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
) -> Outcome {
    let output = engine.exec_sync(id, command.to_vec(), timeout, MAX_PROBE_OUTPUT);
    outcome(output.await, command, timeout)
}

/// Runs the command again and again for as long as it succeeds. A success says only that nothing else has come yet.
pub(super) async fn until_news(
    engine: &dyn Engine,
    id: &ContainerId,
    command: &[String],
    timeout: Duration,
    (first_in, period): (Duration, Duration),
) -> Outcome {
    let repeated = RepeatedCommand {
        command: command.to_vec(),
        timeout,
        max_output: MAX_PROBE_OUTPUT,
        first_in,
        period,
    };
    outcome(engine.exec_repeatedly(id, repeated).await, command, timeout)
}

fn outcome(output: Result<ExecOutput, EngineError>, command: &[String], timeout: Duration) -> Outcome {
    match output {
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
