//! `resume`: lets a paused container go on.

use std::process::ExitCode;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::failure::{Failure, usage};
use crate::options::Global;
use crate::pause::cgroup_of_living;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "resume",
    flags: &[],
    operands: (Operands::One, "ID"),
};

/// Thaws the container's cgroup.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let cgroup = cgroup_of_living(global, id, "resumed")?;
    if !cgroup.is_frozen()? {
        return Err(usage(format!(
            "The container {id} can't be resumed: it is not paused."
        )));
    }
    cgroup.thaw()?;
    Ok(ExitCode::SUCCESS)
}
