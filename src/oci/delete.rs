//! `delete`: removes a container and all that it left.

use std::path::PathBuf;
use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::{ContainerState, Spec};
use berth_runtime::{StateDir, hook_state, run_poststop};
use lexopt::Arg;

use crate::failure::{Failure, usage};
use crate::log;
use crate::options::{Global, flag, text};

/// Deletes a container that has stopped or was not started; with `--force` any, and none is fine too.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut id, mut force) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("force") | Arg::Short('f') => force = flag(&mut parser)?,
            Arg::Value(value) if id.is_none() => id = Some(text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = id.ok_or_else(|| usage("The container's id is missing."))?;
    berth_runtime::check_id(&id)?;
    let state = match global.root.open(&id) {
        Err(_) if force => return Ok(ExitCode::SUCCESS),
        other => other?,
    };
    if !force {
        // A damaged record takes --force.
        state.record()?;
        let (status, _) = state.status();
        if status == ContainerState::Running {
            return Err(usage(format!(
                "The container {id} can't be deleted: it is running. Kill it first, or use --force."
            )));
        }
    }
    let spec = state.config().ok();
    destroy(global, state, spec.as_ref())?;
    Ok(ExitCode::SUCCESS)
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
    if let Some(process) = alive {
        // It may have ended just now.
        let _ = rustix::process::pidfd_send_signal(&process, rustix::process::Signal::KILL);
        wait_for(&process);
    }
    if let Some(path) = &cgroup
        && let Some(cgroup) = Cgroup::open(path)?
    {
        cgroup.kill_all()?;
        cgroup.delete()?;
    }
    let id = state.id().to_owned();
    state.remove()?;
    if let Some((spec, hooks)) = spec.and_then(|spec| Some((spec, spec.hooks.as_ref()?))) {
        let bundle = record.map_or_else(PathBuf::new, |record| record.bundle);
        if let Err(error) = run_poststop(
            hooks,
            &hook_state(spec, &id, &bundle, None, ContainerState::Stopped),
        ) {
            log::warning(global, &error.to_string());
        }
    }
    Ok(())
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
fn wait_for(process: &std::os::fd::OwnedFd) {
    use rustix::event::{PollFd, PollFlags, poll};
    while matches!(
        poll(&mut [PollFd::new(process, PollFlags::IN)], None),
        Err(rustix::io::Errno::INTR)
    ) {}
}
