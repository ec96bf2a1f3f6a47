//! What the command in the node's namespaces tells a service manager. The manager knows the process that it started, which is
//! the half outside, and listens to that one only; so it is passed on.

use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::service_manager;

/// Messages are lines of a few words, see sd_notify(3).
const MAX_MESSAGE: usize = 4096;

pub(super) struct Notifications {
    manager: UnixDatagram,
    /// Where the other half tells it, and the place in the file system.
    own: UnixDatagram,
    path: PathBuf,
}

impl Notifications {
    /// `None` if there is no manager that wants to hear.
    ///
    /// # Errors
    /// The manager can't be reached, or there is no socket in the node's directory.
    pub(super) fn take(run: &Path) -> io::Result<Option<Self>> {
        let Some(manager) = service_manager::connect()? else {
            return Ok(None);
        };
        let path = run.join(format!("notify-{}.sock", std::process::id()));
        // Left by a process that was killed, which had the same number.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let own = UnixDatagram::bind(&path)?;
        own.set_nonblocking(true)?;
        Ok(Some(Self { manager, own, path }))
    }

    /// What stands in for the manager's socket.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Passes on what there is.
    pub(super) fn pass_on(&self) {
        let mut message = [0; MAX_MESSAGE];
        while let Ok(length) = self.own.recv(&mut message) {
            // A manager that does not listen any more has given up on this service.
            let _ = self.manager.send(message.get(..length).unwrap_or_default());
        }
    }
}

impl std::os::fd::AsFd for Notifications {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.own.as_fd()
    }
}

impl Drop for Notifications {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
