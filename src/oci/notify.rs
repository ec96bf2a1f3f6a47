//! systemd's notification protocol: the word of a program in the container that it is ready, passed on to the host's
//! service manager. The program finds a socket of the container's own in its `NOTIFY_SOCKET`.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use berth_runtime::StateDir;
use berth_runtime::oci::{Mount, Spec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, chmodat, mkdirat, open};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, recv, send,
    socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::failure::{Attempt, Failure};
use crate::handover;

const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
/// Where the container sees the directory.
const INSIDE: &str = "/run/notify";
/// How long the service manager may take to read what it was told.
const BARRIER: Timespec = Timespec {
    tv_sec: 30,
    tv_nsec: 0,
};

/// The service manager's socket, and the container's in its state directory.
#[derive(Debug)]
pub(crate) struct Notify {
    host: OsString,
    directory: PathBuf,
}

/// A socket that the program's word is awaited at.
#[derive(Debug)]
pub(crate) struct Listener {
    host: OsString,
    socket: OwnedFd,
}

impl Notify {
    /// `None` when nobody wants to be notified.
    pub(crate) fn from_environment(state: &StateDir) -> Option<Notify> {
        let host = std::env::var_os("NOTIFY_SOCKET").filter(|host| !host.is_empty())?;
        Some(Notify {
            host,
            directory: state.path().join(DIRECTORY),
        })
    }

    /// Makes the directory for the socket, and lets the container see it.
    pub(crate) fn prepare(&self, spec: &mut Spec) -> Result<(), Failure> {
        mkdirat(CWD, &self.directory, Mode::from_raw_mode(0o755))
            .attempt(|| format!("make {}", self.directory.display()))?;
        spec.mounts.push(Mount {
            destination: INSIDE.into(),
            source: self.directory.clone(),
            options: ["bind", "nosuid", "noexec", "nodev", "ro"]
                .map(str::to_owned)
                .to_vec(),
            ..Mount::default()
        });
        if let Some(process) = &mut spec.process {
            process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
        }
        Ok(())
    }

    /// Makes the socket; `None` when the container was created without a directory for it.
    pub(crate) fn listen(self) -> Result<Option<Listener>, Failure> {
        let doing = || format!("make the socket {SOCKET} in {}", self.directory.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = match open(&self.directory, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => other.attempt(doing)?,
        };
        let socket = datagram_socket().attempt(doing)?;
        // Through the descriptor, since a socket's path has a hundred bytes only.
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory.as_raw_fd());
        bind(&socket, &SocketAddrUnix::new(&path).attempt(doing)?).attempt(doing)?;
        chmodat(
            &directory,
            SOCKET,
            Mode::from_raw_mode(0o777),
            rustix::fs::AtFlags::empty(),
        )
        .attempt(doing)?;
        Ok(Some(Listener {
            host: self.host,
            socket,
        }))
    }
}

impl Listener {
    /// Waits until the program is ready, or has ended, and passes that on with the pid to watch.
    pub(crate) fn wait(self, process: &OwnedFd, pid: i32) -> Result<(), Failure> {
        loop {
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(process, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.attempt(|| "wait for the program to be ready".to_owned())?,
            };
            let (said, ended) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
            if said && self.hear(pid)? {
                return self.wait_for_host();
            }
            if ended {
                return Ok(());
            }
        }
    }

    /// Takes one message. Returns whether the program is ready, which the host was told then.
    pub(crate) fn hear(&self, pid: i32) -> Result<bool, Failure> {
        let mut buffer = [0; 4096];
        let doing = || "hear from the program".to_owned();
        let length = match recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(false),
            other => other.attempt(doing)?.0,
        };
        let ready = buffer[..length]
            .split(|byte| *byte == b'\n')
            .find(|line| line.starts_with(b"READY="));
        let Some(ready) = ready else {
            return Ok(false);
        };
        self.tell(ready, pid)
            .attempt(|| format!("notify {}", self.host.display()))?;
        Ok(true)
    }

    fn tell(&self, ready: &[u8], pid: i32) -> rustix::io::Result<()> {
        let host = self.connect()?;
        send(&host, &[ready, b"\n"].concat(), SendFlags::NOSIGNAL)?;
        send(&host, format!("MAINPID={pid}\n").as_bytes(), SendFlags::NOSIGNAL).map(drop)
    }

    /// Waits until the host has read what it was told: it looks at the sender, who must not have ended by then.
    fn wait_for_host(&self) -> Result<(), Failure> {
        let barrier = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            handover::send(&self.connect()?, b"BARRIER=1", write.as_fd())?;
            drop(write);
            // Whoever does not know barriers closes the pipe with the message, or keeps it for a while.
            poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&BARRIER))
        };
        barrier()
            .map(drop)
            .attempt(|| format!("notify {}", self.host.display()))
    }

    fn connect(&self) -> rustix::io::Result<OwnedFd> {
        let host = datagram_socket()?;
        let address = match self.host.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name)?,
            path => SocketAddrUnix::new(path)?,
        };
        connect(&host, &address)?;
        Ok(host)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn datagram_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
}
