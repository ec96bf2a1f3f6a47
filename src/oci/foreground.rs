//! Waiting for a process in the foreground: its signals, its terminal, its end.

use std::os::fd::{AsFd, OwnedFd};

use berth_runtime::send_signal;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure};
use crate::notify::Listener;
use crate::terminal::Relay;

/// Signals that are about this process, not about the one that it waits for.
const OWN: [Signal; 5] = [
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
    notifications: Option<Listener>,
}

impl Foreground {
    /// Holds back signals from now on.
    pub(crate) fn new() -> Result<Foreground, Failure> {
        let doing = || "hold signals back".to_owned();
        let mut set = SigSet::all();
        OWN.into_iter().for_each(|signal| set.remove(signal));
        set.thread_block().attempt(doing)?;
        let signals =
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).attempt(doing)?;
        Ok(Foreground {
            signals,
            notifications: None,
        })
    }

    /// Becomes, if it is wanted, the parent of processes that outlive their own, which are reaped from then on.
    pub(crate) fn adopt_orphans(self, wanted: bool) -> Result<Foreground, Failure> {
        if wanted {
            let own = rustix::process::getpid();
            rustix::process::set_child_subreaper(Some(own)).attempt(|| "become a subreaper".to_owned())?;
        }
        Ok(self)
    }

    /// Passes on the program's word that it is ready, too.
    pub(crate) fn with_notifications(self, notifications: Option<Listener>) -> Foreground {
        Foreground {
            notifications,
            ..self
        }
    }

    /// Passes signals on, and with a terminal input and output, until the process has ended.
    pub(crate) fn wait(
        mut self,
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
            let relayed = fds.len();
            if let Some(notifications) = &self.notifications {
                fds.push(PollFd::new(notifications, PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Err(Errno::INTR) => continue,
                other => other.attempt(|| "wait for the process".to_owned())?,
            };
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[1] {
                self.pass_on(pid, pidfd, relay.as_ref())?;
            }
            if let Some(relay) = &mut relay {
                relay.copy(&ready[2..relayed])?;
            }
            if ready.get(relayed) == Some(&true) {
                self.hear()?;
            }
            if ready[0] {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                return end(pid);
            }
        }
    }

    fn pass_on(&self, pid: Pid, pidfd: &OwnedFd, relay: Option<&Relay<'_>>) -> Result<(), Failure> {
        while let Some(info) = self.signals.read_signal().attempt(|| "read signals".to_owned())? {
            let Ok(signal) = i32::try_from(info.ssi_signo) else {
                continue;
            };
            match relay {
                _ if signal == Signal::SIGCHLD as i32 => reap_others(pid),
                Some(relay) if signal == Signal::SIGWINCH as i32 => relay.resize(),
                // It may have ended just now.
                _ => drop(send_signal(pidfd.as_fd(), signal)),
            }
        }
        Ok(())
    }

    /// One word is all that is awaited. The process to watch is this one: it ends as the program does.
    fn hear(&mut self) -> Result<(), Failure> {
        let own = rustix::process::getpid().as_raw_nonzero().get();
        if let Some(listener) = &self.notifications
            && listener.hear(own)?
        {
            self.notifications = None;
        }
        Ok(())
    }
}

/// Reaps processes that this one was given, but not the one that it waits for.
fn reap_others(pid: Pid) {
    let any = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    while let Ok(status) = waitid(Id::All, any) {
        match status.pid() {
            Some(other) if other != pid => drop(waitpid(other, None)),
            _ => return,
        }
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
