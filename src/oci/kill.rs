//! `kill`: sends a signal to a container's first process, or to all of them.

use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use lexopt::Arg;
use nix::sys::signal::Signal;

use crate::failure::{Attempt, Failure, usage};
use crate::options::{Global, flag, text};

/// Sends a signal, SIGTERM unless another is named.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut id, mut signal, mut all) = (None, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("all") | Arg::Short('a') => all = flag(&mut parser)?,
            Arg::Value(value) if id.is_none() => id = Some(text(value)?),
            Arg::Value(value) if signal.is_none() => signal = Some(parse_signal(&text(value)?)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let id = id.ok_or_else(|| usage("The container's id is missing."))?;
    let signal = signal.unwrap_or(Signal::SIGTERM);
    let state = global.root.open(&id)?;
    let record = state.record()?;
    if all {
        kill_all(&record.cgroup, signal)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (status, process) = state.status();
    let Some(process) = process else {
        return Err(usage(format!(
            "The container {id} can't be killed: it is {status}, it is not running."
        )));
    };
    let number = rustix::process::Signal::from_named_raw(signal as i32)
        .ok_or_else(|| usage(format!("The signal {signal} can't be sent.")))?;
    rustix::process::pidfd_send_signal(&process, number)
        .attempt(|| format!("send {signal} to container {id}"))?;
    Ok(ExitCode::SUCCESS)
}

fn kill_all(path: &str, signal: Signal) -> Result<(), Failure> {
    let Some(cgroup) = Cgroup::open(path)? else {
        return Ok(());
    };
    if signal == Signal::SIGKILL {
        return Ok(cgroup.kill_all()?);
    }
    for pid in cgroup.pids()? {
        match nix::sys::signal::kill(pid, signal) {
            Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
            Err(errno) => return Err(errno).attempt(|| format!("send {signal} to process {pid}")),
        }
    }
    Ok(())
}

/// A signal by number or by name, with or without "SIG".
fn parse_signal(name: &str) -> Result<Signal, Failure> {
    let unknown = || usage(format!("There is no signal {name:?}."));
    if let Ok(number) = name.parse::<i32>() {
        return Signal::try_from(number).map_err(|_| unknown());
    }
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("SIG") {
        upper
    } else {
        format!("SIG{upper}")
    };
    full.parse().map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for name in ["9", "KILL", "SIGKILL", "kill", "sigkill"] {
            assert_eq!(parse_signal(name).unwrap(), Signal::SIGKILL, "{name}");
        }
        for name in ["", "0", "SIGSIG", "KILLED", "-9", "1000"] {
            assert!(parse_signal(name).is_err(), "{name}");
        }
    }
}
