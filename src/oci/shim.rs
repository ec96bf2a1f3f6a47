//! `shim`: the process that serves a pod. It is started by the engine, not by people.

use std::path::Path;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "shim",
    flags: &[],
    operands: (Operands::One, "DIR"),
};

/// Starts the shim of a sandbox directory, and returns when it serves.
pub(crate) fn main(_: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    berth_shim::start(Path::new(arguments.id()?)).map_err(|error| usage(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
