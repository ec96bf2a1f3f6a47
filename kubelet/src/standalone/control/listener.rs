//! The socket of a process that runs pods.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::task::AbortHandle;

use super::owned::Owned;
use super::server::{make_directory, serve};
use super::wire::Wire;

/// The directory of the sockets in the node's run directory.
const DIRECTORY: &str = "control";

/// Listens until it is dropped.
#[derive(Debug)]
pub(in crate::standalone) struct Listener {
    path: PathBuf,
    task: AbortHandle,
}

impl Listener {
    /// Begins to answer for `owned`.
    pub(in crate::standalone) fn start(run_root: &Path, owned: Arc<Owned>) -> io::Result<Self> {
        let directory = run_root.join(DIRECTORY);
        let (socket, path) = bind(&directory)?;
        let task = tokio::spawn(async move {
            // An error of accept(2) is that of a connection, or a lack of descriptors that passes.
            loop {
                match socket.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(serve(Arc::clone(&owned), Wire::new(stream)));
                    }
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                }
            }
        });
        Ok(Self {
            path,
            task: task.abort_handle(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        // Nothing is lost if it stays: the next process takes it away.
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Sockets appear under their name only when they listen: who finds one that does not may take it away.
fn bind(directory: &Path) -> io::Result<(UnixListener, PathBuf)> {
    let own = name(std::process::id());
    loop {
        make_directory(directory)?;
        let opened = match File::open(directory) {
            // The last process took it along.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened?,
        };
        let held = PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        remove_dead(directory, &held);
        let new = held.join(format!("{}.new", std::process::id()));
        let _ = std::fs::remove_file(&new);
        let socket = match UnixListener::bind(&new) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            socket => socket?,
        };
        // The directory is nobody else's either; both would have to fail.
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600))?;
        std::fs::rename(&new, held.join(&own))?;
        return Ok((socket, directory.join(own)));
    }
}

/// Takes away the sockets of processes that were killed.
fn remove_dead(directory: &Path, held: &Path) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let path = held.join(&file);
        let refuses = |path: &Path| {
            std::os::unix::net::UnixStream::connect(path)
                .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        let half_made = file
            .to_str()
            .and_then(|name| name.strip_suffix(".new"))
            .is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if half_made || (path.extension().is_some_and(|end| end == "sock") && refuses(&path)) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The socket of a process.
fn name(pid: u32) -> String {
    format!("{pid}.sock")
}

/// Connects to the process that has this pid.
pub(super) async fn connect(run_root: &Path, pid: u32) -> io::Result<Wire> {
    Wire::connect(&run_root.join(DIRECTORY), &name(pid)).await
}

/// Whether that process answers.
pub(in crate::standalone) fn answers(run_root: &Path, pid: u32) -> bool {
    let Ok(directory) = File::open(run_root.join(DIRECTORY)) else {
        return false;
    };
    let address = format!("/proc/self/fd/{}/{}", directory.as_raw_fd(), name(pid));
    std::os::unix::net::UnixStream::connect(address).is_ok()
}
