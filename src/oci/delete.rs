//! `delete`: removes a container and all that it left.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use berth_runtime::cgroups::Cgroup;
use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::oci::{ContainerState, Spec};
use berth_runtime::{Error, Record, StateDir, hook_state, remove_resctrl_groups, run_poststop};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::options::Global;
use crate::{log, start};

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "delete",
    flags: &["force,f"],
    operands: (Operands::One, "ID"),
};

/// Deletes a container that has stopped; with `--force` any, and none is fine too.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let (id, force) = (arguments.id()?, arguments.switch("force")?);
    let state = if force {
        force_open(global, id)
    } else {
        start::open(global, id)
    };
    let state = match state {
        Err(Error::NoContainer(_)) if force => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    if !force {
        // A damaged record takes --force; one that was never written does not.
        if state.has_record() {
            state.record()?;
        }
        let status = state.status().0;
        if matches!(status, ContainerState::Created | ContainerState::Running) {
            return Err(usage(format!(
                "The container {id} can't be deleted: it is {status}, not stopped. Kill it first, or use --force."
            )));
        }
    }
    let spec = state.config().ok();
    destroy(global, state, spec.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

/// Locks the container, whatever its state. A command that works on it may be waiting for the container's process, or
/// for a hook: the process is killed at once, and so is a creator that did not get that far.
fn force_open(global: &Global, id: &str) -> Result<StateDir, Error> {
    if let Some(state) = global.root.try_open(id)? {
        return Ok(state);
    }
    let state = global.root.look(id)?;
    match state.status() {
        (_, Some(process)) => kill(&process),
        (ContainerState::Creating, None) => {
            if let Some(creator) = state.creator() {
                kill(&creator);
            }
        }
        _ => {}
    }
    global.root.open(id)
}

pub(crate) fn kill(process: &std::os::fd::OwnedFd) {
    // It may have ended just now.
    let _ = rustix::process::pidfd_send_signal(process, rustix::process::Signal::KILL);
}

/// Kills what still runs, removes the cgroup, runs the poststop hooks, forgets the container. Works from whatever is
/// left of the state: a runtime that was killed while it created the container left less than others.
pub(crate) fn destroy(global: &Global, state: StateDir, spec: Option<&Spec>) -> Result<(), Failure> {
    let record = state.record().ok();
    let (_, alive) = state.status();
    // Before there was a record there was no cgroup. A record that is damaged is made up for by the process.
    let cgroup = match (&record, &alive, state.process()) {
        (Some(record), ..) => Some(record.cgroup.clone()),
        // Not one that the process shares with this one.
        (None, Some(_), Some(process)) => {
            cgroup_of(&process.pid.to_string()).filter(|path| Some(path) != cgroup_of("self").as_ref())
        }
        (None, ..) => None,
    };
    let cgroup = cgroup.map(|path| Cgroup::open(&path)).transpose()?.flatten();
    if let Some(process) = &alive {
        kill(process);
    }
    if let Some(cgroup) = &cgroup {
        remove_cgroup(global, cgroup, record.as_ref(), state.process().is_some())?;
    } else if let Some(scope) = record.as_ref().and_then(|record| record.scope.as_ref()) {
        // It stays without a group if it failed.
        stop(global, scope);
    }
    if let Some(process) = &alive {
        wait_for(process);
    }
    let bundle = record.map_or_else(PathBuf::new, |record| record.bundle);
    forget(global, state, spec, &bundle)
}

/// Forgets a container of which nothing else is left, and runs the poststop hooks.
pub(crate) fn forget(
    global: &Global,
    state: StateDir,
    spec: Option<&Spec>,
    bundle: &Path,
) -> Result<(), Failure> {
    let id = state.id().to_owned();
    if let Some(spec) = spec {
        remove_resctrl_groups(spec, &id)?;
    }
    state.remove()?;
    if let Some(spec) = spec {
        poststop(global, spec, &id, bundle);
    }
    Ok(())
}

/// Runs the hooks that follow a container's removal.
pub(crate) fn poststop(global: &Global, spec: &Spec, id: &str, bundle: &Path) {
    if let Some(hooks) = &spec.hooks {
        let told = hook_state(spec, id, bundle, None, ContainerState::Stopped);
        for error in run_poststop(hooks, &told) {
            log::warning(global, &error.to_string());
        }
    }
}

/// A container that never had a process has none in its cgroup either, or one that dies with its creator: what stays
/// there is somebody else's, whose cgroup the configuration named and the creator did not live to refuse.
fn remove_cgroup(
    global: &Global,
    cgroup: &Cgroup,
    record: Option<&Record>,
    ours: bool,
) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_millis(5);
    let scope = record.and_then(|record| record.scope.as_ref());
    if ours {
        let Some(scope) = scope else {
            return Ok(cgroup.destroy()?);
        };
        cgroup.kill_all()?;
        stop(global, scope);
        return Ok(cgroup.delete()?);
    }
    let deadline = Instant::now() + PATIENCE;
    while !cgroup.pids()?.is_empty() {
        if Instant::now() >= deadline {
            let path = cgroup.path();
            log::warning(
                global,
                &format!("The cgroup {path} stays: there are other processes in it."),
            );
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    if let Some(scope) = scope {
        stop(global, scope);
    }
    Ok(cgroup.delete()?)
}

/// Makes systemd forget the container's scope. Where it can't be reached, the scope ends with its last process.
fn stop(global: &Global, scope: &Scope) {
    if let Err(error) = scope.stop() {
        log::warning(global, &error.to_string());
    }
}

/// The cgroup that a process is in: the path that most hierarchies agree on, since in some it stays where it began.
fn cgroup_of(pid: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let paths: Vec<&str> = text
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .collect();
    let most = paths
        .iter()
        .max_by_key(|path| paths.iter().filter(|other| other == path).count())?;
    (*most != "/").then(|| (*most).to_owned())
}

/// Waits for the end of a process that was killed.
pub(crate) fn wait_for(process: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    while matches!(
        poll(&mut [PollFd::new(process, PollFlags::IN)], None),
        Err(rustix::io::Errno::INTR)
    ) {}
}
