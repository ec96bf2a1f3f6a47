//! `run`: create, start, wait, delete.

use std::process::ExitCode;

use berth_runtime::oci::ContainerState;
use berth_runtime::{Created, StateDir, hook_state, run_poststart};

use crate::bundle::Bundle;
use crate::create::{Options, create};
use crate::failure::Failure;
use crate::foreground::Foreground;
use crate::options::Global;
use crate::{delete, log, terminal};

/// Runs a container, and exits as its program does.
pub(crate) fn main(global: &Global, parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let options = Options::parse(parser, true)?;
    let bundle = Bundle::load(&options.bundle, &options.id)?;
    terminal::check_socket(
        bundle.terminal(),
        options.console_socket.as_deref(),
        options.detach,
    )?;
    let state = global.root.create(&options.id)?;
    // Signals that come from now on wait until there is a process to pass them on to.
    let foreground = if options.detach {
        None
    } else {
        Some(Foreground::new()?)
    };
    let created = match create(global, &options, &bundle, &state, false) {
        Ok(created) => created,
        Err(failure) => {
            let _ = state.remove();
            return Err(failure);
        }
    };
    let outcome = follow(global, &options, &bundle, created, (state, foreground));
    if outcome.is_err() || !(options.detach || options.keep) {
        // Somebody else may have deleted it meanwhile.
        if let Ok(state) = global.root.open(&options.id) {
            delete::destroy(global, state, Some(&bundle.spec))?;
        }
    }
    outcome
}

/// Starts the container, and waits for its end unless it is detached.
fn follow(
    global: &Global,
    options: &Options,
    bundle: &Bundle,
    mut created: Created,
    (state, foreground): (StateDir, Option<Foreground>),
) -> Result<ExitCode, Failure> {
    if options.console_socket.is_some() {
        terminal::hand_over(created.terminal.as_ref(), options.console_socket.as_deref())?;
        created.terminal = None;
    }
    if let Err(error) = created.start() {
        drop(created.terminal.take());
        let _ = nix::sys::wait::waitpid(created.pid, None);
        return Err(error.into());
    }
    if let Some(hooks) = &bundle.spec.hooks {
        let pid = Some(created.pid.as_raw());
        let told = hook_state(
            &bundle.spec,
            &options.id,
            &bundle.path,
            pid,
            ContainerState::Running,
        );
        if let Err(error) = run_poststart(hooks, &told) {
            log::warning(global, &error.to_string());
        }
    }
    // Other commands may work on the container while it runs.
    drop(state);
    match foreground {
        Some(foreground) => foreground.wait(created.pid, &created.pidfd, created.terminal.as_ref()),
        None => Ok(ExitCode::SUCCESS),
    }
}
