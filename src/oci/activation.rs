//! Descriptors that come from the caller and go on to the program: systemd's sockets, and those of `--preserve-fds`.

use crate::failure::{Failure, usage};

/// How many descriptors from 3 on are meant for this process, by `LISTEN_PID` and `LISTEN_FDS`.
pub(crate) fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok()?.parse::<u32>().ok();
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        _ => 0,
    }
}

/// Checks that all descriptors that the program is to get are there.
pub(crate) fn check(preserved: u32) -> Result<(), Failure> {
    let open = |fd: u32| std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_ok();
    match (3..3_u32.saturating_add(preserved)).find(|fd| !open(*fd)) {
        None => Ok(()),
        Some(fd) => Err(usage(format!(
            "The descriptor {fd} can't be passed on, because it is not open: --preserve-fds counts from 3."
        ))),
    }
}
