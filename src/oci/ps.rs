//! `ps`: a container's processes, as the host numbers them.

use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use lexopt::Arg;

use crate::failure::{Failure, usage};
use crate::list::format;
use crate::options::{Global, text};
use crate::state::print;

/// Lists the processes.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut id, mut json) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("format") | Arg::Short('f') => json = format(&text(parser.value()?)?)?,
            Arg::Value(value) if id.is_none() => id = Some(text(value)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = id.ok_or_else(|| usage("The container's id is missing."))?;
    let record = global.root.look(&id)?.record()?;
    let pids = match Cgroup::open(&record.cgroup)? {
        Some(cgroup) => cgroup.pids()?,
        None => Vec::new(),
    };
    let pids: Vec<i32> = pids.iter().map(|pid| pid.as_raw()).collect();
    if json {
        print(&pids)?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("{:<10} CMD", "PID");
    for pid in pids {
        println!("{pid:<10} {}", command(pid));
    }
    Ok(ExitCode::SUCCESS)
}

/// A process's command line, on one line.
fn command(pid: i32) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&raw).replace('\0', " ");
    text.trim_end().replace(|c: char| c.is_control(), "?")
}
