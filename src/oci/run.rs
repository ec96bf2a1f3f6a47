//! `run`: create, start, wait, delete.

use berth_runtime::{Created, StateDir};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::bundle::Bundle;
use crate::create::{Options, check, create, prepare, undo};
use crate::delete;
use crate::exit_code::ExitCode;
use crate::failure::Failure;
use crate::foreground::Foreground;
use crate::notify::{Listener, Notify};
use crate::options::Global;
use crate::start::poststart;

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
    let mut bundle = Bundle::load(global, &options.bundle, &options.id)?;
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
    let (mut created, listener) = match created {
        Ok(created) => created,
        Err(failure) => {
            undo(global, state, &bundle, &failure);
            return Err(failure);
        }
    };
    let outcome = follow(
        global,
        &options,
        &bundle,
        &mut created,
        &state,
        (foreground, listener),
    );
    if outcome.is_ok() && (options.detach || arguments.switch("keep")?) {
        return outcome;
    }
    // Somebody else may have deleted it meanwhile, and perhaps made another one.
    if let Some(state) = state.lock_again()? {
        if outcome.is_ok() && bundle.scope.is_none() {
            // Its process was reaped, and of the rest everything is known.
            created.cgroup.destroy()?;
            delete::forget(global, state, Some(&bundle.spec), &bundle.path)?;
            // All that is left is memory and descriptors, which the kernel takes back faster.
            std::mem::forget((bundle, created));
        } else {
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
    created: &mut Created,
    state: &StateDir,
    (foreground, listener): (Option<Foreground>, Option<Listener>),
) -> Result<ExitCode, Failure> {
    if let Err(error) = created.start() {
        drop(created.terminal.take());
        let _ = nix::sys::wait::waitpid(created.pid, None);
        return Err(error.into());
    }
    // Others may work on the container while it runs, above all its hooks.
    state.unlock()?;
    let (pid, told) = (
        created.pid.as_raw(),
        (&bundle.spec, options.id.as_str(), bundle.path.as_path()),
    );
    poststart(global, told, pid, &created.pidfd)?;
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
