//! Hearing of out-of-memory kills.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::unistd::read;

use super::file::{Directory, keyed_number};
use super::hierarchy::Kind;
use super::{Cgroup, Controller, Result};

/// A descriptor that wakes a poll when the group ran out of memory.
///
/// A wake-up is a hint: v1 sends it shortly before the kill, and also when the group is removed. Whether there was a
/// kill is what [`Cgroup::oom_kill_count`] says, for good once a process of the group has ended.
/// After each wake-up, [`acknowledge`](Self::acknowledge) arms it again.
#[derive(Debug)]
pub enum OomWatch {
    /// v1: an eventfd, registered in `cgroup.event_control`.
    EventFd(EventFd),
    /// v2: `memory.events`, which notifies each change of its counters.
    Events(OwnedFd),
}

impl OomWatch {
    /// What to poll (or epoll, with the same bits) for.
    pub fn interest(&self) -> PollFlags {
        match self {
            Self::EventFd(_) => PollFlags::POLLIN,
            Self::Events(_) => PollFlags::POLLPRI,
        }
    }

    /// Takes note of a wake-up, so that the next one is for something new. Never blocks.
    pub fn acknowledge(&self) {
        match self {
            Self::EventFd(counter) => {
                let _ = counter.read();
            }
            Self::Events(file) => {
                let mut buffer = [0_u8; 256];
                let _ = nix::sys::uio::pread(file, &mut buffer, 0);
            }
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::EventFd(counter) => counter.as_fd(),
            Self::Events(file) => file.as_fd(),
        }
    }
}

impl Cgroup {
    /// Starts watching for out-of-memory kills in the group and below it.
    ///
    /// # Errors
    /// When there is no memory controller, or the kernel refuses the registration.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        let memory = self.need(Controller::Memory, "a watch for out-of-memory kills")?;
        if memory.hierarchy.kind == Kind::V2 {
            let events = memory.open("memory.events", OFlag::O_RDONLY)?;
            // The kernel notifies changes since the last read.
            read(&events, &mut [0_u8; 256]).map_err(|e| memory.failed("read", "memory.events", e))?;
            return Ok(OomWatch::Events(events));
        }
        watch_v1(memory)
    }

    /// How many processes of the group the kernel killed for lack of memory since the group was made.
    ///
    /// # Errors
    /// When there is no memory controller, or its file can't be read.
    pub fn oom_kill_count(&self) -> Result<u64> {
        let memory = self.need(Controller::Memory, "the count of out-of-memory kills")?;
        let file = if memory.hierarchy.kind == Kind::V2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        let content = memory.read(file)?;
        keyed_number(&content, "oom_kill").ok_or_else(|| memory.not_understood(file, &content))
    }
}

impl Cgroup {
    /// How often the group wanted more memory than its limit; `None` without a memory controller.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn memory_limit_hits(&self) -> Result<Option<u64>> {
        let Some(memory) = self.directory(Controller::Memory) else {
            return Ok(None);
        };
        if memory.hierarchy.kind == Kind::V2 {
            let events = memory.read_if_present("memory.events")?;
            return Ok(events.and_then(|events| keyed_number(&events, "max")));
        }
        memory.number_if_present("memory.failcnt")
    }
}

fn watch_v1(memory: &Directory) -> Result<OomWatch> {
    let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
    let counter =
        EventFd::from_value_and_flags(0, flags).map_err(|e| memory.failed("make", "an eventfd", e))?;
    let control = memory.open("memory.oom_control", OFlag::O_RDONLY)?;
    let registration = format!("{} {}", counter.as_fd().as_raw_fd(), control.as_raw_fd());
    memory.write("cgroup.event_control", &registration)?;
    Ok(OomWatch::EventFd(counter))
}

#[cfg(test)]
mod tests {
    use super::super::fixture;

    #[test]
    fn hits_of_the_limit() {
        let v1 = fixture::v1(&[("memory", "memory.failcnt", "7\n")]);
        assert_eq!(v1.memory_limit_hits().unwrap(), Some(7));
        let v2 = fixture::v2(&[("memory.events", "low 0\nhigh 1\nmax 7\noom 2\noom_kill 1\n")]);
        assert_eq!(v2.memory_limit_hits().unwrap(), Some(7));
        assert_eq!(v2.oom_kill_count().unwrap(), 1);
        let none = fixture::v1(&[("cpu", "cpu.shares", "2\n")]);
        assert_eq!(none.memory_limit_hits().unwrap(), None);
    }
}
