//! `run`: create, start, wait, delete.

use std::process::ExitCode;

use berth_runtime::oci::ContainerState;
use berth_runtime::{Created, Error, StateDir, hook_state, run_poststart};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::bundle::Bundle;
use crate::create::{Options, check, create, prepare, undo};
use crate::failure::Failure;
use crate::foreground::Foreground;
use crate::notify::{Listener, Notify};
use crate::options::Global;
use crate::{delete, log};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "run",
    flags: &[
        "bundle,b=DIR",
        "detach,d",
        "keep",
        "console-socket=PATH",
        "pidfd-socket=PATH",
        "pid-file=FILE",
        "no-subreaper",
        "no-pivot",
        "no-new-keyring",
        "preserve-fds=N",
    ],
    operands: (Operands::One, "ID"),
};

/// Runs a container, and exits as its program does.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let options = Options::new(arguments, arguments.switch("detach")?)?;
    let mut bundle = Bundle::load(&options.bundle, &options.id)?;
    let state = check(global, &options, &bundle)?;
    // Signals that come from now on wait until there is a process to pass them on to.
    let foreground = if options.detach {
        None
    } else {
        Some(Foreground::new()?.adopt_orphans(!arguments.switch("no-subreaper")?)?)
    };
    let created = prepare(&options, &mut bundle, &state).and_then(|notify| {
        let listener = notify.map(Notify::listen).transpose()?.flatten();
        Ok((create(global, &options, &bundle, &state, false)?, listener))
    });
    let (created, listener) = match created {
        Ok(created) => created,
        Err(failure) => {
            undo(global, state, &bundle);
            return Err(failure);
        }
    };
    let ours = state.process();
    let outcome = follow(
        global,
        &options,
        &bundle,
        (created, listener),
        (state, foreground),
    );
    if outcome.is_err() || !(options.detach || arguments.switch("keep")?) {
        match global.root.open(&options.id) {
            Ok(state) if state.process() == ours => delete::destroy(global, state, Some(&bundle.spec))?,
            // Somebody else has deleted it meanwhile, and perhaps made another one.
            Ok(_) | Err(Error::NoContainer(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    outcome
}

/// Starts the container, and waits for its end unless it is detached.
fn follow(
    global: &Global,
    options: &Options,
    bundle: &Bundle,
    (mut created, listener): (Created, Option<Listener>),
    (state, foreground): (StateDir, Option<Foreground>),
) -> Result<ExitCode, Failure> {
    if let Err(error) = created.start() {
        drop(created.terminal.take());
        let _ = nix::sys::wait::waitpid(created.pid, None);
        return Err(error.into());
    }
    // Others may work on the container while it runs, above all its hooks.
    drop(state);
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
    match (foreground, listener) {
        (Some(foreground), listener) => foreground.with_notifications(listener).wait(
            created.pid,
            &created.pidfd,
            created.terminal.as_ref(),
        ),
        (None, Some(listener)) => {
            listener.wait(&created.pidfd, created.pid.as_raw())?;
            Ok(ExitCode::SUCCESS)
        }
        (None, None) => Ok(ExitCode::SUCCESS),
    }
}
