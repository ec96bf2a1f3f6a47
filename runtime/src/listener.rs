//! The listener of a seccomp filter on its way to the agent at `linux.seccomp.listenerPath`.
//!
//! ```text
//! container's process ──seccomp(2)──▶ listener ──channel──▶ creator ──listenerPath──▶ agent
//! ```
//!
//! The filter is at work from its installation on, so that the process does nothing but this one hand-over before the
//! agent can answer; see [`Handover`](crate::seccomp::Handover).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use serde::Serialize;

use crate::error::Doing;
use crate::hooks::HookState;
use crate::oci::LinuxSeccomp;
use crate::seccomp::Program;
use crate::{Error, Result};

/// For an agent that neither accepts nor reads: the kernel's queues take this message at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who answers the calls that a filter asks about.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    path: PathBuf,
    metadata: Option<&'a str>,
}

/// The runtime specification's "container process state".
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a HookState<'a>,
}

impl<'a> Agent<'a> {
    /// The agent of a profile, if the compiled filter asks one. A relative path begins at the bundle.
    ///
    /// # Errors
    /// When the filter asks and there is no path, or metadata for nobody.
    pub(crate) fn of(
        profile: &'a LinuxSeccomp,
        filter: &Program,
        bundle: &Path,
    ) -> Result<Option<Agent<'a>>> {
        let path = Some(profile.listener_path.as_path()).filter(|path| !path.as_os_str().is_empty());
        let metadata = Some(profile.listener_metadata.as_str()).filter(|text| !text.is_empty());
        match path {
            None if metadata.is_some() => Err(Error::invalid(
                "linux.seccomp.listenerMetadata",
                "it is for the agent at listenerPath, which is missing",
            )),
            None if filter.needs_listener() => Err(Error::invalid(
                "linux.seccomp.listenerPath",
                "it is missing, and a rule has the action SCMP_ACT_NOTIFY",
            )),
            // The specification has it ignored where no rule asks.
            Some(path) if filter.needs_listener() => Ok(Some(Agent {
                path: bundle.join(path),
                metadata,
            })),
            _ => Ok(None),
        }
    }

    /// Sends the listener of the process `pid`, on a connection of its own.
    ///
    /// # Errors
    /// When nobody listens there, or does not take it.
    pub(crate) fn hand_over(&self, listener: &OwnedFd, pid: i32, state: &HookState<'_>) -> Result<()> {
        let message = ContainerProcessState {
            oci_version: state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: self.metadata,
            state,
        };
        let message = serde_json::to_vec(&message)
            .map_err(std::io::Error::from)
            .doing(|| "write the container process state".to_owned())?;
        let doing = || {
            format!(
                "hand the seccomp listener to the agent at {} (linux.seccomp.listenerPath)",
                self.path.display()
            )
        };
        let socket = dial(&self.path).doing(doing)?;
        send_all(&socket, &message, listener.as_fd()).doing(doing)
    }
}

fn dial(path: &Path) -> rustix::io::Result<OwnedFd> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
    match SocketAddrUnix::new(path) {
        Ok(address) => connect(&socket, &address)?,
        // An address has room for 107 bytes; a path of any length can be opened.
        Err(_) => {
            let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
            let short = format!("/proc/self/fd/{}", file.as_raw_fd());
            connect(&socket, &SocketAddrUnix::new(short)?)?;
        }
    }
    Ok(socket)
}

/// Sends everything; the descriptor goes with the first part.
fn send_all(socket: &OwnedFd, mut message: &[u8], listener: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let fds = [listener];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    while !message.is_empty() {
        match sendmsg(
            socket,
            &[IoSlice::new(message)],
            &mut control,
            SendFlags::NOSIGNAL,
        ) {
            Ok(sent) => {
                message = message.get(sent..).unwrap_or_default();
                control.clear();
            }
            Err(Errno::INTR) => {}
            Err(other) => return Err(other),
        }
    }
    Ok(())
}

/// The process of a pidfd, as this process numbers it.
pub(crate) fn pid_of(pidfd: BorrowedFd<'_>) -> std::io::Result<i32> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()))?;
    text.lines()
        .find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
        .ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))
}
