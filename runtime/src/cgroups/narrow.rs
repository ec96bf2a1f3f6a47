//! Groups that were made below a container's, as a place for processes that are added to it.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::file::Directory;
use super::{Cgroup, CgroupError, Controller, Result};

impl Cgroup {
    /// The same group, except that in some hierarchies it is one below it, which has to exist. Each item names the
    /// hierarchies by their controllers, or by none for every hierarchy that has such a group, and the path below.
    ///
    /// # Errors
    /// When there is no such group, or the path is not usable.
    pub fn narrowed(mut self, wanted: &[(Vec<&str>, &str)]) -> Result<Self> {
        for (controllers, below) in wanted {
            let mut found = false;
            for directory in &mut self.directories {
                if controllers.is_empty() || controllers.iter().any(|name| has(directory, name)) {
                    found |= descend(directory, below)?;
                }
            }
            if !found {
                return Err(CgroupError::Path {
                    path: format!("{}/{}", self.path, below.trim_matches('/')),
                    reason: "there is no such group in the hierarchies that it is for",
                });
            }
        }
        Ok(self)
    }
}

fn has(directory: &Directory, name: &str) -> bool {
    let controller = Controller::ALL
        .into_iter()
        .find(|c| c.v1_name() == name || c.v2_name() == name);
    controller.is_some_and(|controller| directory.hierarchy.controllers.contains(controller))
}

/// Goes down to a group below. Returns whether it is there.
fn descend(directory: &mut Directory, below: &str) -> Result<bool> {
    let below = below.trim_matches('/');
    if below.is_empty() {
        return Ok(true);
    }
    let path = directory.path.join(below)?;
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match openat(&directory.fd, below, flags, Mode::empty()) {
        Ok(fd) => {
            (directory.fd, directory.path) = (fd, path);
            Ok(true)
        }
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(directory.failed("open", below, errno)),
    }
}
