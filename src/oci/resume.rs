//! `resume`: lets a paused container go on.

use berth_runtime::oci::ContainerState;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::living::{Living, not_running};
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "resume",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// Thaws the container's cgroup.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let container = Living::look(global, id, "resumed")?;
    let cgroup = container.needed_cgroup()?;
    if !cgroup.is_frozen()? {
        if container.has_ended() {
            return Err(not_running(id, "resumed", ContainerState::Stopped));
        }
        return Err(usage(format!(
            "The container {id} can't be resumed: it is not paused."
        )));
    }
    cgroup.thaw()?;
    Ok(ExitCode::SUCCESS)
}
