//! Plugins that the runtime starts itself: the programs of a directory, each with a connected socket as descriptor 3.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as StdStream;
use std::path::Path;
use std::sync::Arc;

use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::SigSet;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::net::UnixStream;

use super::ServeError;
use super::identity::Identity;
use super::registry::Nri;

/// Where a plugin finds its socket.
const SOCKET: i32 = 3;
/// Its configuration can't be longer.
const MAX_CONFIG: u64 = 1 << 20;

/// Starts every plugin of the directory, in the order of their names. One that fails is done without.
pub(super) async fn all(nri: &Arc<Nri>) -> Result<(), ServeError> {
    let Some(directory) = nri.config.plugins.clone() else {
        return Ok(());
    };
    let names = programs(&directory).map_err(|error| ServeError::Plugins {
        path: directory.clone(),
        error,
    })?;
    for name in names {
        if let Err(error) = start(nri, &directory, &name).await {
            tracing::warn!("The NRI plugin {name} could not be started: {error}");
        }
    }
    Ok(())
}

fn programs(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        let metadata = fs::metadata(entry.path())?;
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

async fn start(nri: &Arc<Nri>, directory: &Path, name: &str) -> Result<(), String> {
    let (index, base) = name
        .split_once('-')
        .ok_or("A plugin's file is named by two digits, a hyphen and its name.")?;
    let mut identity = Identity {
        index: index.to_owned(),
        base: base.to_owned(),
        config: String::new(),
    };
    identity.check()?;
    identity.config = configuration(&nri.config.plugin_config, &identity)
        .map_err(|error| format!("Its configuration can't be read: {error}."))?;
    let failed = |error: io::Error| format!("{error}.");
    let (ours, theirs) = StdStream::pair().map_err(failed)?;
    let child = Child::spawn(&directory.join(name), &identity, &theirs).map_err(failed)?;
    drop(theirs);
    ours.set_nonblocking(true).map_err(failed)?;
    let socket = UnixStream::from_std(ours).map_err(failed)?;
    let plugin = nri.admit(socket, Some(identity)).await?;
    tokio::spawn(async move {
        // A process that has ended has closed its socket.
        plugin.gone().await;
        tracing::info!("The NRI plugin {} is gone.", plugin.name());
        drop(child);
    });
    Ok(())
}

/// `IDX-NAME.conf` or `NAME.conf`, or nothing.
fn configuration(directory: &Path, identity: &Identity) -> io::Result<String> {
    let own = format!("{}-{}.conf", identity.index, identity.base);
    for name in [own, format!("{}.conf", identity.base)] {
        let path = directory.join(name);
        match fs::metadata(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > MAX_CONFIG => {
                return Err(io::Error::other(format!("it has more than {MAX_CONFIG} bytes")));
            }
            Ok(_) => return fs::read_to_string(path),
        }
    }
    Ok(String::new())
}

/// A plugin's process. It is killed and reaped when this is dropped.
struct Child {
    pidfd: OwnedFd,
}

impl Child {
    fn spawn(program: &Path, identity: &Identity, socket: &StdStream) -> io::Result<Self> {
        let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        let mut files = PosixSpawnFileActions::init()?;
        for target in [0, 1] {
            files.add_dup2(null.as_raw_fd(), target)?;
        }
        // What it says to standard error goes where the runtime's own words go.
        files.add_dup2(socket.as_raw_fd(), SOCKET)?;
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK,
        )?;
        attributes.set_pgroup(nix::unistd::Pid::from_raw(0))?;
        attributes.set_sigdefault(&SigSet::all())?;
        attributes.set_sigmask(&SigSet::empty())?;
        let path = CString::new(program.as_os_str().as_bytes())?;
        let environment = [
            format!("NRI_PLUGIN_NAME={}", identity.base),
            format!("NRI_PLUGIN_IDX={}", identity.index),
            format!("NRI_PLUGIN_SOCKET={SOCKET}"),
        ];
        let environment = environment.map(CString::new).into_iter();
        let environment = environment.collect::<Result<Vec<_>, _>>()?;
        let pid = posix_spawn(
            path.as_c_str(),
            &files,
            &attributes,
            &[path.as_c_str()],
            &environment,
        )?;
        let pid = Pid::from_raw(pid.as_raw()).ok_or_else(|| io::Error::other("its process has no number"))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pidfd })
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // One that has ended takes no signal, and is reaped all the same.
        let _ = pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}
