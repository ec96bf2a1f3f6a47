//! `shim`: the process that serves a pod. It is started by the engine, not by people.

use std::path::PathBuf;
use std::process::ExitCode;

use lexopt::Arg;

use crate::failure::{Failure, usage};

/// Starts the shim of a sandbox directory, and returns when it serves.
pub(crate) fn main(mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    berth_runtime::protect_executable()?;
    let mut directory: Option<PathBuf> = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(value) if directory.is_none() => directory = Some(value.into()),
            other => return Err(other.unexpected().into()),
        }
    }
    let directory = directory.ok_or_else(|| usage("The sandbox's directory is missing."))?;
    berth_shim::start(&directory).map_err(|error| usage(error.to_string()))?;
    Ok(ExitCode::SUCCESS)
}
