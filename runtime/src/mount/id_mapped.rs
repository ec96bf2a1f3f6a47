//! Mounts whose files have other owners inside than on the disk: idmapped mounts, see mount_setattr(2).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::{getpid, getppid, pause};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use crate::error::Doing;
use crate::idmap::write_maps;
use crate::namespaces::Namespaces;
use crate::oci::{self, LinuxIdMapping};
use crate::process::die_with_creator;
use crate::spawn::kill_and_reap;
use crate::sys::{self, CloneArgs, MountAttr, Spawned, mount_setattr};
use crate::{Error, Result};

use super::options::Options;

/// The user namespaces that lend their maps to mounts.
pub(super) struct IdMaps<'a> {
    container: &'a Namespaces,
    /// Those made for it; mounts with the same maps share one.
    made: Vec<(Vec<LinuxIdMapping>, Vec<LinuxIdMapping>, OwnedFd)>,
}

impl<'a> IdMaps<'a> {
    /// For the mounts of a container with these namespaces.
    pub(super) fn new(container: &'a Namespaces) -> IdMaps<'a> {
        let made = Vec::new();
        IdMaps { container, made }
    }

    /// Maps the ids of a detached mount, if its options or its maps ask for that.
    pub(super) fn apply(&mut self, tree: &OwnedFd, mount: &oci::Mount, options: &Options) -> Result<()> {
        let uids = &mount.uid_mappings[..];
        let gids = &mount.gid_mappings[..];
        if options.idmap.is_none() && uids.is_empty() && gids.is_empty() {
            return Ok(());
        }
        let name = mount.destination.display();
        let userns = self.find(&name.to_string(), uids, gids)?;
        // Maps without an option are for the mount itself only.
        let recursive = options.idmap == Some(true);
        let attr = MountAttr {
            set: libc::MOUNT_ATTR_IDMAP,
            userns: Some(userns),
            ..MountAttr::default()
        };
        mount_setattr(tree, recursive, attr).map_err(|error| {
            let what = format!("Mapping the ids of the mount on {name}");
            match Errno::from_io_error(&error) {
                Some(Errno::INVAL) => Error::unsupported(what, "its file system can't be id-mapped by this kernel"),
                Some(Errno::PERM) => Error::unsupported(
                    what,
                    "its source is id-mapped already, or on a file system that the runtime is not privileged over",
                ),
                _ => Error::System {
                    doing: format!("map the ids of the mount on {name}"),
                    source: error,
                },
            }
        })
    }

    /// A namespace with the maps: the mount's own, or those of the container.
    fn find(
        &mut self,
        name: &str,
        uids: &[LinuxIdMapping],
        gids: &[LinuxIdMapping],
    ) -> Result<BorrowedFd<'_>> {
        let field = || format!("mounts[{name}].uidMappings");
        let (uids, gids) = match (uids, gids, self.container.new_maps()) {
            ([], [], Some(maps)) => maps,
            ([], [], None) => {
                let reason = "an id-mapped mount needs them, as the container has no user namespace";
                return self
                    .container
                    .joined_user()
                    .ok_or_else(|| Error::invalid(field(), reason));
            }
            ([], _, _) | (_, [], _) => {
                return Err(Error::invalid(
                    field(),
                    "uidMappings and gidMappings need each other",
                ));
            }
            own => (own.0, own.1),
        };
        let known = self.made.iter().position(|(u, g, _)| u == uids && g == gids);
        let index = match known {
            Some(index) => index,
            None => {
                let namespace = user_namespace(uids, gids)?;
                self.made.push((uids.to_vec(), gids.to_vec(), namespace));
                self.made.len() - 1
            }
        };
        Ok(self.made[index].2.as_fd())
    }
}

/// Makes a user namespace with these maps and nobody in it. Only a process can begin one.
pub(crate) fn user_namespace(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let doing = || "make a user namespace for an id-mapped mount".to_owned();
    let creator = getpid();
    let args = CloneArgs {
        flags: u64::from(libc::CLONE_NEWUSER.unsigned_abs()),
        cgroup: None,
    };
    let child = sys::spawn(args, || {
        // The creator may have ended before its end was followed.
        if die_with_creator().is_ok() && getppid() == creator {
            pause();
        }
        1
    });
    let child = Reaped(child.doing(doing)?);
    let pid = child.0.pid;
    write_maps(pid, uids, gids)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    open(format!("/proc/{pid}/ns/user"), flags, Mode::empty()).doing(doing)
}

/// A process that ends with its owner.
struct Reaped(Spawned);

impl Drop for Reaped {
    fn drop(&mut self) {
        kill_and_reap(&self.0);
    }
}
