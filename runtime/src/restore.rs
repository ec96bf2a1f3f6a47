//! What a container needs that comes back from a checkpoint: its control group and places for its mounts. Its processes,
//! namespaces and mounts are made by criu.

use std::path::Path;

use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, open};

use crate::cgroups::Cgroup;
use crate::cgroups::systemd::Scope;
use crate::check::{check_id, check_spec};
use crate::error::Doing;
use crate::group::NewCgroup;
use crate::hooks::{self, HookState};
use crate::oci::{Hooks, Mount, Spec};
use crate::{Error, Result, mount};

/// The control group of a container that is being restored. Unless it is kept, it is deleted with it.
pub struct Restoring(NewCgroup);

impl Restoring {
    /// Checks the configuration, makes the places for mounts that are missing in `rootfs`, and makes the group.
    ///
    /// # Errors
    /// When the configuration is invalid, or the kernel refuses; nothing is left behind but empty places.
    pub fn begin(
        id: &str,
        spec: &Spec,
        bundle: &Path,
        rootfs: &Path,
        scope: Option<&Scope>,
    ) -> Result<Restoring> {
        check_id(id)?;
        check_spec(spec)?;
        let linux = spec
            .linux
            .as_ref()
            .ok_or_else(|| Error::invalid("linux", "it is missing"))?;
        make_places(rootfs, bundle, &spec.mounts)?;
        Ok(Restoring(NewCgroup::create(spec, linux, scope)?))
    }

    /// Moves a process into the group, whose children begin there.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn enter(&self, pid: i32) -> Result<()> {
        self.0.enter(Pid::from_raw(pid))
    }

    /// The container came to be.
    ///
    /// # Errors
    /// When the group has vanished.
    pub fn keep(mut self) -> Result<Cgroup> {
        self.0.keep()
    }
}

/// Runs the hooks of the host that follow the making of the namespaces: `prestart`, then `createRuntime`.
///
/// # Errors
/// When one of them fails: the container must not go on.
pub fn run_create_runtime(hooks: &Hooks, state: &HookState<'_>) -> Result<()> {
    hooks::run_create_runtime(hooks, state)
}

/// Whether a mount is one of something that is there already.
pub fn is_bind(mount: &Mount) -> bool {
    mount.typ == "bind"
        || mount
            .options
            .iter()
            .any(|option| option == "bind" || option == "rbind")
}

/// As the creation of a container leaves them in its root file system. What is inside of another mount is there when
/// that is: criu writes temporary file systems back, and directories of the host have had their places from before.
fn make_places(rootfs: &Path, bundle: &Path, mounts: &[Mount]) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(rootfs, flags, Mode::empty()).doing(|| format!("open {}", rootfs.display()))?;
    for mount in mounts {
        let destination = Path::new("/").join(&mount.destination);
        let inside = |other: &Mount| {
            let other = Path::new("/").join(&other.destination);
            other != destination && destination.starts_with(other)
        };
        if mounts.iter().any(inside) {
            continue;
        }
        let file = is_bind(mount) && !bundle.join(&mount.source).is_dir();
        mount::place(&root, &destination, !file)?;
    }
    Ok(())
}
