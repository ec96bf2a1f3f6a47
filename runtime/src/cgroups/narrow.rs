//! Groups that were made below a container's, as a place for processes that are added to it.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::file::Directory;
use super::hierarchy::Kind;
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

impl Cgroup {
    /// The group that a process can be added to. cgroup v2 lets none into a group that distributes controllers to
    /// groups below it, as a container does that runs a service manager: there it is the group of the container's first
    /// process, `pid`.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn for_added_process(mut self, pid: i32) -> Result<Self> {
        let own = self.path.to_string();
        let unified = self.directories.iter_mut().find(|d| d.hierarchy.kind == Kind::V2);
        let Some(unified) = unified.filter(|d| !d.hierarchy.controllers.is_empty()) else {
            return Ok(self);
        };
        let distributes = unified.read_if_present("cgroup.subtree_control")?;
        if distributes.is_none_or(|controllers| controllers.trim().is_empty()) {
            return Ok(self);
        }
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"));
        if let Some(below) = path.and_then(|path| path.strip_prefix(&own)) {
            descend(unified, below)?;
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
    match openat(directory.fd()?, below, flags, Mode::empty()) {
        Ok(fd) => {
            *directory = Directory::held(directory.hierarchy, path, fd);
            Ok(true)
        }
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(directory.failed("open", below, errno)),
    }
}
