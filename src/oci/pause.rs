//! `pause`: stops all processes of a container where they are.

use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::ContainerState;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::failure::{Failure, usage};
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "pause",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// Freezes the container's cgroup.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let cgroup = cgroup_of_living(global, id, "paused")?;
    if cgroup.is_frozen()? {
        return Err(usage(format!(
            "The container {id} can't be paused: it is paused already."
        )));
    }
    cgroup.freeze()?;
    Ok(ExitCode::SUCCESS)
}

/// The cgroup of a container whose process lives. No lock is needed to freeze or thaw it: should the container be
/// deleted meanwhile, the kill works on frozen processes too.
pub(crate) fn cgroup_of_living(global: &Global, id: &str, what: &str) -> Result<Cgroup, Failure> {
    let state = global.root.look(id)?;
    let record = state.record()?;
    let (status, process) = state.status();
    let refused =
        |reason: &dyn std::fmt::Display| usage(format!("The container {id} can't be {what}: {reason}."));
    if process.is_none() || !matches!(status, ContainerState::Created | ContainerState::Running) {
        return Err(refused(&format_args!("container not running, it is {status}")));
    }
    let cgroup = Cgroup::open(&record.cgroup)?;
    cgroup.ok_or_else(|| refused(&"its cgroup is gone"))
}
