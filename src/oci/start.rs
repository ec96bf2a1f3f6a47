//! `start`: lets the program of a created container run.

use std::os::fd::OwnedFd;
use std::path::Path;

use berth_runtime::oci::{ContainerState, Spec};
use berth_runtime::{Error, StateDir, hook_state, run_poststart};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::delete::{kill, wait_for};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::log;
use crate::notify::Notify;
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "start",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// Starts a container. Of several starts at once one succeeds.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let state = open(global, id)?;
    let record = state.record()?;
    let process = match (state.status(), record.process) {
        ((ContainerState::Created, Some(pidfd)), Some(process)) => (process.pid, pidfd),
        ((status, _), _) => {
            return Err(usage(format!(
                "The container {id} can't be started: it is {status}, not created."
            )));
        }
    };
    let listener = Notify::from_environment(&state)
        .map(Notify::listen)
        .transpose()?
        .flatten();
    let socket = state.connect()?;
    state.set_started()?;
    berth_runtime::start_at(socket)?;
    let spec = state.config()?;
    // Others may work on the container from now on, above all its hooks.
    drop(state);
    let (pid, pidfd) = process;
    poststart(global, (&spec, id, &record.bundle), pid, &pidfd)?;
    if let Some(listener) = listener {
        listener.wait(&pidfd, pid)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the hooks that follow the start of a container's program, the process `pid`. A failure that the specification does not let pass ends `process`;
/// the container is left stopped, to be deleted as any other.
pub(crate) fn poststart(
    global: &Global,
    (spec, id, bundle): (&Spec, &str, &Path),
    pid: i32,
    process: &OwnedFd,
) -> Result<(), Failure> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let told = hook_state(spec, id, bundle, Some(pid), ContainerState::Running);
    match run_poststart(hooks, &told) {
        Ok(warnings) => {
            for warning in warnings {
                log::warning(global, &warning.to_string());
            }
            Ok(())
        }
        Err(error) => {
            kill(process);
            wait_for(process);
            Err(error.into())
        }
    }
}

/// Locks a container. One that is still being created is not waited for.
///
/// # Errors
/// [`Error::NoContainer`], one that says that the container is being created, or when the kernel refuses.
pub(crate) fn open(global: &Global, id: &str) -> Result<StateDir, Error> {
    if let Some(state) = global.root.try_open(id)? {
        return Ok(state);
    }
    if global.root.look(id)?.status().0 == ContainerState::Creating {
        return Err(Error::Setup(format!(
            "The container {id} is still being created; wait, or use delete --force."
        )));
    }
    global.root.open(id)
}
