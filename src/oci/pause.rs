//! `pause`: stops all processes of a container where they are.

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::living::Living;
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "pause",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// Freezes the container's cgroup. It needs no lock: should the container be deleted meanwhile, the kill works on frozen
/// processes too.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let container = Living::look(global, id, "paused")?;
    let cgroup = container.needed_cgroup()?;
    if cgroup.is_frozen()? {
        return Err(usage(format!(
            "The container {id} can't be paused: it is paused already."
        )));
    }
    container.unless_ended(cgroup.freeze())?;
    Ok(ExitCode::SUCCESS)
}
