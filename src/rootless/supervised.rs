//! Processes that are to run for as long as the node is there, and when to start another in place of one that ended.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

/// Before the second attempt; the first is made at once.
const FIRST: Duration = Duration::from_millis(100);
/// Between two attempts, at most.
const LONGEST: Duration = Duration::from_secs(10);
/// Who ran for this long was well.
const STEADY: Duration = Duration::from_secs(60);

/// A child of this process.
pub(super) struct Process {
    pub(super) pid: Pid,
    ended: OwnedFd,
    /// The child ends when this is closed.
    life: Option<OwnedFd>,
}

impl Process {
    pub(super) fn of(pid: Pid, life: Option<OwnedFd>) -> Result<Self, Errno> {
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, ended, life })
    }

    /// Readable when it has ended.
    pub(super) fn ended(&self) -> &OwnedFd {
        &self.ended
    }

    /// What it holds the other end of.
    pub(super) fn life(&self) -> Option<&OwnedFd> {
        self.life.as_ref()
    }

    pub(super) fn end(&self) {
        // One that has ended needs no signal.
        let _ = pidfd_send_signal(&self.ended, Signal::KILL);
        self.reap();
    }

    fn reap(&self) {
        let id = WaitId::PidFd(self.ended.as_fd());
        let _ = waitid(id, WaitIdOptions::EXITED);
    }
}

/// The children of this process, which has one thread.
pub(super) fn children() -> io::Result<Vec<Pid>> {
    let own = std::process::id();
    let listed = fs::read_to_string(format!("/proc/self/task/{own}/children"))?;
    let pids = listed.split_whitespace().filter_map(|pid| pid.parse().ok());
    Ok(pids.filter_map(Pid::from_raw).collect())
}

/// A process that is there, or another that is not due yet.
pub(super) struct Supervised {
    process: Option<Process>,
    /// When it began, or the next one is due.
    at: Instant,
    back_off: BackOff,
}

impl Supervised {
    pub(super) fn new(process: Process) -> Self {
        Self {
            process: Some(process),
            at: Instant::now(),
            back_off: BackOff::default(),
        }
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// When another process is to be started.
    pub(super) fn due(&self) -> Option<Instant> {
        self.process.is_none().then_some(self.at)
    }

    /// To be called when the process has ended.
    pub(super) fn has_ended(&mut self) {
        if let Some(process) = self.process.take() {
            process.reap();
            self.at = Instant::now() + self.back_off.pause(self.at.elapsed());
        }
    }

    /// To be called after an attempt to start another.
    pub(super) fn tried<E>(&mut self, started: Result<Process, E>) {
        self.process = started.ok();
        self.at = Instant::now();
        if self.process.is_none() {
            self.at += self.back_off.pause(Duration::ZERO);
        }
    }
}

/// How long to wait for the next attempt.
#[derive(Default)]
pub(super) struct BackOff {
    /// One after the other, none of which was well.
    failures: u32,
}

impl BackOff {
    fn pause(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            self.failures = 0;
        }
        let doubled = self
            .failures
            .checked_sub(1)
            .map(|times| 2_u32.saturating_pow(times));
        self.failures = self.failures.saturating_add(1);
        doubled.map_or(Duration::ZERO, |factor| FIRST.saturating_mul(factor).min(LONGEST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ends_again_and_again_is_started_ever_more_rarely() {
        let mut back_off = BackOff::default();
        let briefly = Duration::from_secs(1);
        let pauses: Vec<u128> = (0..10).map(|_| back_off.pause(briefly).as_millis()).collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        back_off.failures = u32::MAX;
        assert_eq!(back_off.pause(briefly), LONGEST);
        assert_eq!(back_off.pause(STEADY), Duration::ZERO);
        assert_eq!(back_off.pause(briefly), FIRST);
    }
}
