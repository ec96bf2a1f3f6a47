//! A container's first process, and recognising it again.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstProcess {
    /// As the host numbers it.
    pub pid: i32,
    /// When it began, in clock ticks since boot: this tells a reused pid apart.
    pub start_time: u64,
    /// It is in another user namespace than its creator.
    pub in_user_namespace: bool,
}

impl FirstProcess {
    pub(super) fn encode(self) -> String {
        format!(
            "{}:{}:{}",
            self.pid,
            self.start_time,
            if self.in_user_namespace { "own" } else { "host" }
        )
    }

    pub(super) fn decode(text: &str) -> Option<FirstProcess> {
        let mut fields = text.split(':');
        let (pid, start_time) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(FirstProcess {
            pid,
            start_time,
            in_user_namespace: fields.next()? == "own",
        })
    }
}

/// A process that lives and began at that time.
pub(super) fn open_process(pid: i32, start_time: u64) -> Option<OwnedFd> {
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at after it was opened: should the pid have been given to another process, the time differs.
    let (state, began) = process_stat(pid)?;
    (began == start_time && !matches!(state, 'Z' | 'X')).then_some(pidfd)
}

/// State and start time of a process, from `/proc/<pid>/stat`.
pub fn process_stat(pid: i32) -> Option<(char, u64)> {
    /// Some fifty numbers and a name of at most 64 bytes, which the kernel gives in one piece.
    const LONGEST: usize = 2048;
    let mut stat = [0; LONGEST];
    let file = rustix::fs::open(
        format!("/proc/{pid}/stat"),
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    );
    let length = rustix::io::read(file.ok()?, &mut stat).ok()?;
    let stat = String::from_utf8_lossy(&stat[..length]);
    // The name, in parentheses, may hold anything.
    let mut fields = stat.get(stat.rfind(')')? + 2..)?.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}
