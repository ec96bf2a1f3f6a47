//! Collecting dead children: containers, execs, the pause, and orphans that ended up here.

use rustix::process::{WaitOptions, WaitStatus, wait};

/// The exit code of who was killed with SIGKILL.
pub(crate) const KILLED: i32 = 128 + 9;

/// A child that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reaped {
    pub(crate) pid: i32,
    pub(crate) exit_code: i32,
}

/// The next dead child, if there is one.
pub(crate) fn next() -> Option<Reaped> {
    let (pid, status) = wait(WaitOptions::NOHANG).ok()??;
    Some(Reaped {
        pid: pid.as_raw_nonzero().get(),
        exit_code: exit_code(status),
    })
}

/// 0-255 as the process said, 128 + signal if a signal ended it, as shells count.
pub(crate) fn exit_code(status: WaitStatus) -> i32 {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    }
}
