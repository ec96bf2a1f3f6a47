//! Making the process of a container, in one step where the kernel can and in two where it can't.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};

use crate::channel::{Channel, Failure, Message};
use crate::error::Doing;
use crate::namespaces::{ChildrenIn, Namespaces};
use crate::sys::{self, CloneArgs, Spawned, close_range};
use crate::{Error, Result};

/// Runs `child` in a new process in its namespaces, as a child of this one, that begins in the cgroup v2 directory
/// that is given.
pub(crate) fn spawn_in(
    namespaces: &Namespaces,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> Result<Spawned> {
    let doing = || "make the container's process".to_owned();
    let flags = namespaces.clone_flags();
    if !namespaces.needs_middle() {
        let _children = ChildrenIn::namespace(namespaces.joined_pid())?;
        return sys::spawn(CloneArgs { flags, cgroup }, child).doing(doing);
    }
    spawn_through(|| namespaces.enter_middle(), CloneArgs { flags, cgroup }, child)
}

/// Runs `child` in a new process, as a child of this one, that a process between them makes after it did `enter`.
pub(crate) fn spawn_through(
    enter: impl FnOnce() -> Result<()>,
    args: CloneArgs<'_>,
    child: impl FnOnce() -> i32,
) -> Result<Spawned> {
    let doing = || "make the container's process".to_owned();
    let (ours, theirs) = Channel::pair().doing(doing)?;
    let middle = sys::spawn(CloneArgs::default(), move || {
        let outcome = enter().and_then(|()| {
            let flags = args.flags | u64::from(libc::CLONE_PARENT.unsigned_abs());
            sys::spawn(CloneArgs { flags, ..args }, child).doing(doing)
        });
        let message = match &outcome {
            Ok(spawned) => Message::Pid(spawned.pid.as_raw()),
            Err(error) => Message::Failed(Failure::from(error)),
        };
        i32::from(theirs.send(&message).is_err())
    })
    .doing(doing)?;
    waitid(Id::PIDFd(middle.pidfd.as_fd()), WaitPidFlag::WEXITED).doing(doing)?;
    let pid = match ours.receive().doing(doing)? {
        Message::Pid(pid) => pid,
        Message::Failed(failure) => return Err(failure.into()),
        _ => {
            return Err(Error::Vanished(
                "a process between it and the runtime died".to_owned(),
            ));
        }
    };
    // It is a child that nobody reaped: its pid can't have been given to another.
    let known =
        rustix::process::Pid::from_raw(pid).ok_or_else(|| Error::Vanished("it has no pid".to_owned()))?;
    let pidfd = pidfd_open(known, PidfdFlags::empty()).doing(doing)?;
    Ok(Spawned {
        pid: Pid::from_raw(pid),
        pidfd,
    })
}

/// Closes every descriptor but the standard streams, `preserved` ones after them, and those listed: a copy of
/// somebody else's pipe or socket must not stay open in a process that waits.
pub(crate) fn close_others<'a>(preserved: u32, keep: impl Iterator<Item = BorrowedFd<'a>>) -> Result<()> {
    let first = RawFd::try_from(preserved)
        .unwrap_or(RawFd::MAX - 3)
        .saturating_add(3);
    let mut keep: Vec<RawFd> = keep.map(|fd| fd.as_raw_fd()).filter(|fd| *fd >= first).collect();
    keep.sort_unstable();
    let mut next = first;
    for fd in keep.into_iter().chain([RawFd::MAX]) {
        if next < fd {
            close_range(next, fd - 1, false).doing(|| "close inherited descriptors".to_owned())?;
        }
        next = fd.saturating_add(1);
    }
    Ok(())
}

/// Ends a child and waits until it is gone.
pub(crate) fn kill_and_reap(child: &Spawned) {
    // It is our child and not reaped: the only failure there can be is that it has ended already.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, rustix::process::Signal::KILL);
    let _ = waitid(Id::PIDFd(child.pidfd.as_fd()), WaitPidFlag::WEXITED);
}
