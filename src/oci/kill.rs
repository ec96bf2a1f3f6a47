//! `kill`: sends a signal to a container's first process, or to all of them.

use std::os::fd::AsFd;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::{ContainerState, LinuxNamespaceType, Spec};
use berth_runtime::{StateDir, send_signal};
use nix::sys::signal::Signal;

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::living::not_running;
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "kill",
    flags: &["all,a"],
    operands: (Operands::OneOrTwo, "ID [SIGNAL]"),
};

/// The real-time signals that programs can use: the C library keeps the kernel's first two (or three) for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Sends a signal, SIGTERM unless another is named. It needs no lock: the process is held by a descriptor.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let signal = match arguments.rest()?.first().map(String::as_str) {
        None | Some("") => Signal::SIGTERM as i32,
        Some(name) => parse_signal(name)?,
    };
    let state = global.root.look(id)?;
    let record = state.record()?;
    let cgroup = || Cgroup::open(&record.cgroup);
    if arguments.switch("all")? {
        if let Some(cgroup) = cgroup()? {
            kill_all(&cgroup, signal)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if signal == Signal::SIGKILL as i32
        && shares_pids(&state)
        && let Some(cgroup) = cgroup()?.filter(|cgroup| cgroup.pids().is_ok_and(|pids| !pids.is_empty()))
    {
        // The end of the first process takes nobody along, and may have come before that of others.
        return Ok(cgroup.kill_all().map(|()| ExitCode::SUCCESS)?);
    }
    let (status, process) = state.status();
    let process = process.ok_or_else(|| not_running(id, "killed", status))?;
    if let Err(error) = send_signal(process.as_fd(), signal) {
        // It ended just now.
        if error.raw_os_error() == Some(nix::errno::Errno::ESRCH as i32) {
            return Err(not_running(id, "killed", ContainerState::Stopped));
        }
        return Err(error).attempt(|| format!("send signal {signal} to container {id}"));
    }
    if signal == Signal::SIGKILL as i32
        && let Some(cgroup) = cgroup()?
        && cgroup.is_frozen()?
    {
        // What v1 froze dies when it goes on.
        cgroup.thaw()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The container has no PID namespace that is only its own.
fn shares_pids(state: &StateDir) -> bool {
    let own = |spec: Spec| {
        let list = spec.linux.map(|linux| linux.namespaces).unwrap_or_default();
        let mut pid = list
            .iter()
            .filter(|namespace| namespace.typ == LinuxNamespaceType::Pid);
        pid.any(|namespace| namespace.path.as_os_str().is_empty())
    };
    state.config().is_ok_and(|spec| !own(spec))
}

fn kill_all(cgroup: &Cgroup, signal: i32) -> Result<(), Failure> {
    if signal == Signal::SIGKILL as i32 {
        return Ok(cgroup.kill_all()?);
    }
    for pid in cgroup.pids()? {
        let process = rustix::process::Pid::from_raw(pid.as_raw())
            .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok());
        // One that ended meanwhile needs no signal.
        let Some(process) = process else { continue };
        match send_signal(process.as_fd(), signal) {
            Err(error) if error.raw_os_error() != Some(nix::errno::Errno::ESRCH as i32) => {
                return Err(error).attempt(|| format!("send signal {signal} to process {pid}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A signal by number or by name, with or without "SIG"; 0 only asks whether there is a process. The real-time ones are
/// counted from either end: RTMIN+3, RTMAX-2.
fn parse_signal(name: &str) -> Result<i32, Failure> {
    let unknown = || usage(format!("There is no signal {name:?}."));
    if let Ok(number) = name.parse::<i32>() {
        return if (0..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(unknown())
        };
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |name: &str, base: i32| {
        let offset = short.strip_prefix(name)?;
        let offset = if offset.is_empty() {
            0
        } else {
            offset.parse::<i32>().ok()?
        };
        Some(base.saturating_add(offset)).filter(|number| (RTMIN..=RTMAX).contains(number))
    };
    if let Some(number) = real_time("RTMIN", RTMIN).or_else(|| real_time("RTMAX", RTMAX)) {
        return Ok(number);
    }
    let signal: Result<Signal, _> = format!("SIG{short}").parse();
    signal.map(|signal| signal as i32).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_numbers_and_names() {
        for name in ["9", "KILL", "SIGKILL", "kill", "sigkill"] {
            assert_eq!(parse_signal(name).unwrap(), Signal::SIGKILL as i32, "{name}");
        }
        for (name, number) in [
            ("0", 0),
            ("37", 37),
            ("RTMIN+3", 37),
            ("SIGRTMIN", 34),
            ("sigrtmax-1", 63),
            ("64", 64),
        ] {
            assert_eq!(parse_signal(name).unwrap(), number, "{name}");
        }
        for name in [
            "",
            "SIG",
            "SIGSIG",
            "SIGSIGKILL",
            "KILLED",
            "-9",
            "1000",
            "65",
            "RTMIN-1",
            "RTMAX+1",
            "RTMIN+99999999999",
        ] {
            assert!(parse_signal(name).is_err(), "{name}");
        }
    }
}
