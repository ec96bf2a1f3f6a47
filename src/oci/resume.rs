//! `resume`: lets a paused container go on.

use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;

use crate::failure::{Failure, usage};
use crate::only_id;
use crate::options::Global;

/// Thaws the container's cgroup.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let id = only_id(&mut parser)?;
    let state = global.root.open(&id)?;
    let record = state.record()?;
    let (status, process) = state.status();
    match (process, Cgroup::open(&record.cgroup)?) {
        (Some(_), Some(cgroup)) => cgroup.thaw()?,
        _ => {
            return Err(usage(format!(
                "The container {id} is {status}, it is not running."
            )));
        }
    }
    Ok(ExitCode::SUCCESS)
}
