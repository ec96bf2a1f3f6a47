//! Waiting for a process in the foreground: its signals, its terminal, its end.

use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::failure::{Attempt, Failure};
use crate::terminal::Relay;

/// Signals that are about this process, not about the one that it waits for.
const OWN: [Signal; 6] = [
    Signal::SIGCHLD,
    Signal::SIGURG,
    Signal::SIGPIPE,
    Signal::SIGTSTP,
    Signal::SIGTTIN,
    Signal::SIGTTOU,
];

/// Signals to this process, held back so that they can be passed on.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: SignalFd,
}

impl Foreground {
    /// Holds back signals from now on.
    pub(crate) fn new() -> Result<Foreground, Failure> {
        let doing = || "hold signals back".to_owned();
        let set: SigSet = Signal::iterator()
            .filter(|signal| !OWN.contains(signal))
            .collect();
        set.thread_block().attempt(doing)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).attempt(doing)?;
        Ok(Foreground { signals })
    }

    /// Passes signals on, and with a terminal input and output, until the process has ended.
    pub(crate) fn wait(
        self,
        pid: Pid,
        pidfd: &OwnedFd,
        master: Option<&OwnedFd>,
    ) -> Result<ExitCode, Failure> {
        let mut relay = master.map(Relay::new).transpose()?;
        loop {
            let mut fds = vec![
                PollFd::new(pidfd, PollFlags::IN),
                PollFd::new(&self.signals, PollFlags::IN),
            ];
            if let Some(relay) = &relay {
                fds.extend(relay.interest());
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.attempt(|| "wait for the process".to_owned())?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[1] {
                self.pass_on(pidfd, relay.as_ref())?;
            }
            if let Some(relay) = &mut relay {
                relay.copy(&ready[2..])?;
            }
            if ready[0] {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                return end(pid);
            }
        }
    }

    fn pass_on(&self, pidfd: &OwnedFd, relay: Option<&Relay<'_>>) -> Result<(), Failure> {
        while let Some(info) = self.signals.read_signal().attempt(|| "read signals".to_owned())? {
            let signal = i32::try_from(info.ssi_signo).ok();
            match (signal, relay) {
                (Some(libc_winch), Some(relay)) if libc_winch == Signal::SIGWINCH as i32 => relay.resize(),
                (Some(signal), _) => {
                    if let Some(signal) = rustix::process::Signal::from_named_raw(signal) {
                        // It may have ended just now.
                        let _ = rustix::process::pidfd_send_signal(pidfd.as_fd(), signal);
                    }
                }
                (None, _) => {}
            }
        }
        Ok(())
    }
}

/// Reaps the process; its exit code as a shell gives it.
fn end(pid: Pid) -> Result<ExitCode, Failure> {
    const SIGNALLED: i32 = 128;
    let code = match waitpid(pid, None).attempt(|| "reap the process".to_owned())? {
        WaitStatus::Exited(_, code) => code,
        WaitStatus::Signaled(_, signal, _) => SIGNALLED + signal as i32,
        _ => 0,
    };
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}
