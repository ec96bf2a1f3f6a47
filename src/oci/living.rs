//! A container whose process has to live for what a command does to it.

use std::os::fd::OwnedFd;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::ContainerState;
use berth_runtime::{Record, StateDir};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::failure::{Failure, usage};
use crate::options::Global;

/// It is held by descriptors and needs no lock: nobody can put another container in its place. It may end at any moment.
#[derive(Debug)]
pub(crate) struct Living {
    /// What can't be done to it when it does not live, as a participle.
    what: &'static str,
    pub(crate) state: StateDir,
    pub(crate) record: Record,
    pub(crate) process: OwnedFd,
}

impl Living {
    /// Finds it, whoever works on it.
    pub(crate) fn look(global: &Global, id: &str, what: &'static str) -> Result<Living, Failure> {
        let state = global.root.look(id)?;
        let record = state.record()?;
        match state.status() {
            (ContainerState::Created | ContainerState::Running, Some(process)) => Ok(Living {
                what,
                state,
                record,
                process,
            }),
            (status, _) => Err(not_running(id, what, status)),
        }
    }

    /// Its control group, if it has one.
    pub(crate) fn cgroup(&self) -> Result<Option<Cgroup>, Failure> {
        self.unless_ended(Cgroup::open(&self.record.cgroup))
    }

    /// Its control group, which it has to have.
    pub(crate) fn needed_cgroup(&self) -> Result<Cgroup, Failure> {
        self.cgroup()?.ok_or_else(|| self.without_cgroup())
    }

    /// Why it has no control group.
    pub(crate) fn without_cgroup(&self) -> Failure {
        let (id, what) = (self.state.id(), self.what);
        if self.has_ended() {
            return not_running(id, what, ContainerState::Stopped);
        }
        usage(format!("The container {id} can't be {what}: it has no cgroup."))
    }

    /// The outcome of something that fails on a container that has ended; that is what is said then.
    pub(crate) fn unless_ended<T>(&self, outcome: Result<T, impl Into<Failure>>) -> Result<T, Failure> {
        outcome.map_err(|error| {
            if self.has_ended() {
                not_running(self.state.id(), self.what, ContainerState::Stopped)
            } else {
                error.into()
            }
        })
    }

    /// The process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        let mut fds = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }
}

/// Callers look for "container not running".
pub(crate) fn not_running(id: &str, what: &str, status: ContainerState) -> Failure {
    usage(format!(
        "The container {id} can't be {what}: container not running, it is {status}."
    ))
}
