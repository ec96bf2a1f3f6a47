//! `probe`: what can only be known by trying. The engine asks, not people.

use std::path::Path;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Failure, usage};
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "probe",
    flags: &[],
    operands: (Operands::One, "DIR"),
};

/// Whether pods whose files are in a directory can have user namespaces.
pub(crate) fn main(_: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    berth_shim::probe_user_namespace(Path::new(arguments.id()?))
        .map_err(|error| usage(format!("Pods can't have user namespaces here: {error}.")))?;
    Ok(ExitCode::SUCCESS)
}
