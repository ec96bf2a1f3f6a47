//! Commands that are run again and again while they end well, by a process beside the shim, which hears of the last one only.

use std::time::Duration;

use berth_runtime::cgroups::Subgroup;
use berth_runtime::{Ended, Launcher, Repeater, Repetition};

use crate::commands::command;
use crate::container::Container;
use crate::error::RequestError;
use crate::exec::ExecProcess;
use crate::handler::Asked;
use crate::protocol::{MAX_RUN_OUTPUT, Response, Run};
use crate::shim::Shim;

/// As good as for ever, and no more than can be added to the time.
const LONGEST: Duration = Duration::from_secs(1 << 32);

/// A command that is repeated, and who waits for the last time.
pub(crate) struct Repeated {
    repeater: Repeater,
    asked: Asked,
}

impl Repeated {
    pub(crate) fn pid(&self) -> i32 {
        self.repeater.pid()
    }

    /// Ends it, but not a command that runs.
    pub(crate) fn kill(&self) {
        self.repeater.kill();
    }
}

impl Shim {
    /// Starts to repeat a command.
    pub(crate) fn repeat(&mut self, run: &Run, number: u32, asked: Asked) -> Result<(), RequestError> {
        let container = self.container(&run.container)?;
        let tree = container.group_of_command(&run.id)?;
        let repeater = match container.start_repeater(run, tree.as_ref()) {
            Ok(repeater) => repeater,
            Err(error) => {
                if let Some(tree) = tree {
                    // Nothing was started in it.
                    container.commands.keep(tree);
                }
                return Err(error);
            }
        };
        let repeated = Repeated { repeater, asked };
        let exec = ExecProcess::repeated((number, asked.client), tree, repeated);
        self.execs.insert(run.id.clone(), exec);
        Ok(())
    }

    /// What repeated the command has ended.
    pub(crate) fn repeated(&mut self, id: &str, repeated: &Repeated) {
        let outcome = repeated.repeater.outcome();
        if let Some(exec) = self.execs.remove(id) {
            let went_well = outcome.as_ref().is_ok_and(|ended| !ended.timed_out);
            // After a timeout, or when it was killed itself, something may be left that nobody asked to go on.
            if !went_well && let Err(error) = exec.kill() {
                eprintln!("What the repeated command {id} left running can't be killed: {error}");
            }
            self.put_away(id, exec);
        }
        match outcome {
            Ok(Ended {
                exit_code,
                timed_out,
                stdout,
                stderr,
                output,
            }) => {
                let response = Response::Ran {
                    exit_code,
                    timed_out,
                    stdout,
                    stderr,
                };
                self.answer(repeated.asked, Ok(response), output.into_iter().collect());
            }
            Err(error) => self.answer(repeated.asked, Err(error.into()), Vec::new()),
        }
    }

    /// The container has ended.
    pub(crate) fn end_repetitions(&mut self, container: u32) {
        let repeated = |exec: &&ExecProcess| exec.container == container && exec.repeated.is_some();
        for exec in self.execs.values().filter(repeated) {
            if let Err(error) = exec.kill() {
                eprintln!("A command of a container that has ended can't be killed: {error}");
            }
        }
    }
}

impl Container {
    fn start_repeater(&self, run: &Run, tree: Option<&Subgroup>) -> Result<Repeater, RequestError> {
        let spec = self.exec_spec()?;
        let process = command(&spec, &run.args);
        let target = self.exec_target(&spec)?;
        if !Launcher::is_possible(&target, &process) {
            return Err(RequestError::NotRepeated(self.id.clone()));
        }
        Ok(Repeater::start(&target, &process, repetition(run), tree)?)
    }
}

fn repetition(run: &Run) -> Repetition {
    let span = |milliseconds| Duration::from_millis(milliseconds).min(LONGEST);
    Repetition {
        first_in: span(run.first_in_ms),
        period: span(run.period_ms),
        timeout: span(run.timeout_ms),
        max_output: usize::try_from(run.max_output.min(MAX_RUN_OUTPUT)).unwrap_or(0),
    }
}
