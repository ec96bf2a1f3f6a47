//! `start`: lets the program of a created container run.

use std::process::ExitCode;

use berth_runtime::oci::ContainerState;
use berth_runtime::{hook_state, run_poststart};

use crate::failure::{Failure, usage};
use crate::options::Global;
use crate::{log, only_id};

/// Starts a container. Of several starts at once one succeeds.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let id = only_id(&mut parser)?;
    let state = global.root.open(&id)?;
    let record = state.record()?;
    match state.status().0 {
        ContainerState::Created => {}
        status => {
            return Err(usage(format!(
                "The container {id} can't be started: it is {status}, not created."
            )));
        }
    }
    let socket = state.connect()?;
    state.set_started()?;
    berth_runtime::start_at(socket)?;
    let spec = state.config()?;
    if let Some(hooks) = &spec.hooks {
        let pid = record.process.map(|process| process.pid);
        let told = hook_state(&spec, &id, &record.bundle, pid, ContainerState::Running);
        if let Err(error) = run_poststart(hooks, &told) {
            log::warning(global, &error.to_string());
        }
    }
    Ok(ExitCode::SUCCESS)
}
