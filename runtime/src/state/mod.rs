//! What the command line remembers of its containers: one directory each, made before anything else is.
//!
//! ```text
//! <root>/<id>/             locked with flock(2) while a command works on the container
//!             state.json   a Record and the configuration, written before anything else is made
//!             process      a symbolic link to "<pid>:<start time>:<host|own user namespace>", once there is a process
//!             start.sock   where the container waits for its start; gone once it was started
//! ```
//!
//! The process is in a link because a link is made in one step, and costs neither a block nor a flush of one.

mod first_process;
mod root;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, openat};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::cgroups::systemd::Scope;
use crate::error::Doing;
use crate::oci::{ContainerState, Spec};
use crate::{Error, Result};

use first_process::open_process;
pub use first_process::{FirstProcess, process_stat};
pub use root::StateRoot;

const STATE: &str = "state.json";
const PROCESS: &str = "process";
const SOCKET: &str = "start.sock";

/// What is remembered of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// The bundle directory.
    pub bundle: PathBuf,
    /// The root file system's directory.
    pub rootfs: PathBuf,
    /// The control group, relative to the root of each hierarchy.
    pub cgroup: String,
    /// The scope that systemd made for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
    /// When the container was created: RFC 3339, UTC.
    pub created: String,
    /// The process that creates the container. It means nothing once the container has a process of its own.
    #[serde(default)]
    pub creator: u32,
    /// Its first process. Not there while the container is being created.
    #[serde(skip)]
    pub process: Option<FirstProcess>,
}

/// What `state.json` holds besides the record.
#[derive(Deserialize)]
struct Configured {
    config: Spec,
}

/// What `state.json` holds besides the configuration.
#[derive(Deserialize)]
struct Recorded {
    record: Record,
}

/// A container's directory, locked.
#[derive(Debug)]
pub struct StateDir {
    id: String,
    path: PathBuf,
    directory: File,
}

/// Reads what a state file could be.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn decode(text: &[u8]) -> Option<(Record, Spec)> {
    let record = serde_json::from_slice::<Recorded>(text).ok()?.record;
    Some((record, serde_json::from_slice::<Configured>(text).ok()?.config))
}

impl StateDir {
    /// The container's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The user who owns the directory, and so the container.
    pub fn owner(&self) -> u32 {
        self.directory.metadata().map_or(0, |m| m.uid())
    }

    /// Whether there is a record, readable or not.
    pub fn has_record(&self) -> bool {
        self.has(STATE)
    }

    fn has(&self, name: &str) -> bool {
        rustix::fs::accessat(
            &self.directory,
            name,
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
    }

    /// The configuration that the container was created from.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn config(&self) -> Result<Spec> {
        Ok(self.read::<Configured>()?.config)
    }

    /// Remembers a container that is about to be made. `config` is its configuration, as JSON.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, record: &Record, config: &[u8]) -> Result<()> {
        let record = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .doing(|| "encode the state".to_owned())?;
        let text = [b"{\"record\":", &record[..], b",\"config\":", config, b"}"].concat();
        let doing = || format!("write {STATE} of container {}", self.id);
        let new = "state.json.new";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC;
        let file = openat(&self.directory, new, flags, Mode::from_raw_mode(0o600)).doing(doing)?;
        File::from(file).write_all(&text).doing(doing)?;
        // In one step, so that nobody ever reads half of it.
        rustix::fs::renameat(&self.directory, new, &self.directory, STATE).doing(doing)
    }

    /// Changes the remembered configuration, which is JSON; others that want to wait meanwhile. What a command does to
    /// the container is done in `change`, so that the two agree.
    ///
    /// # Errors
    /// Those of `change`, in which case nothing is remembered, and when the state can't be read or written.
    pub fn change_config<E: From<Error>>(
        &self,
        change: impl FnOnce(&mut serde_json::Value) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let doing = || format!("lock {STATE} of container {}", self.id);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let (text, _lock) = loop {
            let mut file = self.open_state(flags)?;
            flock(&file, FlockOperation::LockExclusive).doing(doing)?;
            // Whoever held the lock may have put another file in its place.
            let now = self.open_state(OFlags::PATH | OFlags::CLOEXEC)?;
            let inode = |file: &File| file.metadata().map(|m| m.ino()).ok();
            if inode(&file) == inode(&now) {
                let mut text = Vec::new();
                file.read_to_end(&mut text).doing(doing)?;
                break (text, file);
            }
        };
        let doing = || format!("read {STATE} of container {}", self.id);
        let parse = |error: serde_json::Error| io::Error::from(error);
        let record = serde_json::from_slice::<Recorded>(&text)
            .map_err(parse)
            .doing(doing)?
            .record;
        let mut state: serde_json::Value = serde_json::from_slice(&text).map_err(parse).doing(doing)?;
        let config = &mut state["config"];
        change(config)?;
        Ok(self.write(&record, config.to_string().as_bytes())?)
    }

    /// Remembers the container's first process.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn set_process(&self, process: FirstProcess) -> Result<()> {
        rustix::fs::symlinkat(process.encode(), &self.directory, PROCESS)
            .doing(|| format!("remember the process of container {}", self.id))
    }

    /// The container's record.
    ///
    /// # Errors
    /// When it can't be read or understood.
    pub fn record(&self) -> Result<Record> {
        Ok(Record {
            process: self.process(),
            ..self.read::<Recorded>()?.record
        })
    }

    /// The container's first process, if there was one, whether or not the record can be read.
    pub fn process(&self) -> Option<FirstProcess> {
        let link = rustix::fs::readlinkat(&self.directory, PROCESS, Vec::new()).ok()?;
        FirstProcess::decode(link.to_str().ok()?)
    }

    /// The process that creates the container, if it is still at it.
    pub fn creator(&self) -> Option<OwnedFd> {
        let pid = i32::try_from(self.read::<Recorded>().ok()?.record.creator).ok()?;
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // It holds this directory open; a process that was given its pid later does not.
        let inode = |m: fs::Metadata| (m.dev(), m.ino());
        let ours = self.directory.metadata().map(inode).ok()?;
        fs::read_dir(format!("/proc/{pid}/fd"))
            .ok()?
            .flatten()
            .any(|fd| {
                fs::metadata(fd.path())
                    .map(inode)
                    .is_ok_and(|theirs| theirs == ours)
            })
            .then_some(pidfd)
    }

    fn open_state(&self, flags: OFlags) -> Result<File> {
        match openat(&self.directory, STATE, flags, Mode::empty()) {
            // Deleted since it was found.
            Err(rustix::io::Errno::NOENT) if self.is_removed() => Err(Error::NoContainer(self.id.clone())),
            other => other
                .map(File::from)
                .doing(|| format!("read {STATE} of container {}", self.id)),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        let doing = || format!("read {STATE} of container {}", self.id);
        let mut text = Vec::new();
        self.open_state(OFlags::RDONLY | OFlags::CLOEXEC)?
            .read_to_end(&mut text)
            .doing(doing)?;
        serde_json::from_slice(&text)
            .map_err(io::Error::from)
            .doing(doing)
    }

    fn is_removed(&self) -> bool {
        self.directory
            .metadata()
            .is_ok_and(|directory| directory.nlink() == 0)
    }

    /// Makes the socket at which the container waits for its start.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn listen(&self) -> Result<OwnedFd> {
        let doing = || "make the socket for the start".to_owned();
        let socket = self.socket().doing(doing)?;
        bind(&socket, &self.address().doing(doing)?).doing(doing)?;
        listen(&socket, 1).doing(doing)?;
        Ok(socket)
    }

    /// Connects to a container that waits for its start.
    ///
    /// # Errors
    /// When it was started already, or is gone.
    pub fn connect(&self) -> Result<OwnedFd> {
        let doing = || format!("start container {}: it is not waiting for a start", self.id);
        let socket = self.socket().doing(doing)?;
        connect(&socket, &self.address().doing(doing)?).doing(doing)?;
        Ok(socket)
    }

    /// Remembers that the container was started.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_started(&self) -> Result<()> {
        rustix::fs::unlinkat(&self.directory, SOCKET, rustix::fs::AtFlags::empty())
            .doing(|| format!("remember that container {} was started", self.id))
    }

    fn socket(&self) -> rustix::io::Result<OwnedFd> {
        socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
    }

    /// Through the descriptor, since a socket's path has a hundred bytes only.
    fn address(&self) -> rustix::io::Result<SocketAddrUnix> {
        SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", self.directory.as_raw_fd()))
    }

    /// Where the container is in its life, and its first process while that lives.
    pub fn status(&self) -> (ContainerState, Option<OwnedFd>) {
        let Some(process) = self.process() else {
            return (ContainerState::Creating, None);
        };
        match open_process(process.pid, process.start_time) {
            None => (ContainerState::Stopped, None),
            Some(pidfd) if self.has(SOCKET) => (ContainerState::Created, Some(pidfd)),
            Some(pidfd) => (ContainerState::Running, Some(pidfd)),
        }
    }

    /// Lets other commands work on the container; [`StateDir::lock_again`] when this one goes on.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn unlock(&self) -> Result<()> {
        flock(&self.directory, FlockOperation::Unlock).doing(|| format!("unlock container {}", self.id))
    }

    /// Locks the container again; waits while another command works on it. `None` when that deleted it, whether or
    /// not there is another container of that id by now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn lock_again(self) -> Result<Option<StateDir>> {
        let doing = || format!("lock container {}", self.id);
        flock(&self.directory, FlockOperation::LockExclusive).doing(doing)?;
        let links = self.directory.metadata().doing(doing)?.nlink();
        Ok((links != 0).then_some(self))
    }

    /// Forgets the container.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(self) -> Result<()> {
        // What else there is, such as the socket of a container that was not started, goes with the directory.
        for name in [PROCESS, STATE] {
            let _ = rustix::fs::unlinkat(&self.directory, name, rustix::fs::AtFlags::empty());
        }
        match fs::remove_dir(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => fs::remove_dir_all(&self.path),
            other => other,
        }
        .doing(|| format!("remove {}", self.path.display()))
    }
}
