//! Which hierarchies this host has, found per controller: v1, v2, or any mixture of the two.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;

use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, fstatfs};

use super::layout::{self, Mount};
use super::{CgroupError, Controller, Controllers, Result, file};

/// What a hierarchy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A v1 mount with one or more controllers.
    V1,
    /// A v1 mount without a controller, such as `name=systemd`.
    V1Named,
    /// The unified hierarchy. It has every feature of v2, but perhaps no controller (hybrid hosts).
    V2,
}

/// One mounted hierarchy, held by its root directory.
#[derive(Debug)]
pub(super) struct Hierarchy {
    pub(super) kind: Kind,
    pub(super) controllers: Controllers,
    pub(super) root: OwnedFd,
    /// Mount options (v1), for messages.
    label: String,
}

#[cfg(test)]
impl Hierarchy {
    /// Something that is mounted at `root`, as far as a test goes.
    pub(super) fn new(kind: Kind, controllers: Controllers, root: OwnedFd) -> Self {
        Hierarchy {
            kind,
            controllers,
            root,
            label: "fixture".to_owned(),
        }
    }
}

impl fmt::Display for Hierarchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::V2 => f.write_str("cgroup v2"),
            Kind::V1 | Kind::V1Named => write!(f, "cgroup v1 {}", self.label),
        }
    }
}

/// The host's hierarchies. Found once, when first needed, and held by descriptor from then on.
#[derive(Debug)]
pub struct Hierarchies {
    pub(super) all: Vec<Hierarchy>,
}

impl Hierarchies {
    /// The hierarchies as this process's mount namespace showed them at the first call.
    ///
    /// # Errors
    /// When no hierarchy is mounted, or what is mounted can't be read.
    pub fn get() -> Result<&'static Self> {
        static FOUND: OnceLock<Hierarchies> = OnceLock::new();
        if let Some(found) = FOUND.get() {
            return Ok(found);
        }
        let found = Self::detect()?;
        Ok(FOUND.get_or_init(|| found))
    }

    /// Whether v2 is the only hierarchy, which means that all controllers are there.
    pub fn is_unified(&self) -> bool {
        self.all.iter().all(|h| h.kind == Kind::V2)
    }

    /// Whether there is a unified hierarchy that charges nothing: see [`Cgroup::begin_in`](super::Cgroup::begin_in).
    pub(crate) fn has_free_unified(&self) -> bool {
        let free = |h: &Hierarchy| h.kind == Kind::V2 && !h.controllers.contains(Controller::Memory);
        self.all.iter().any(free)
    }

    /// Whether some hierarchy has the controller. Devices and freezing are part of v2 itself.
    pub fn supports(&self, controller: Controller) -> bool {
        self.all.iter().any(|h| h.controllers.contains(controller))
            || (self.is_unified()
                && matches!(
                    controller,
                    Controller::Devices | Controller::Freezer | Controller::CpuAcct
                ))
    }

    /// Where hierarchies without a controller are mounted in which nothing is made here, because there is a unified one.
    ///
    /// # Errors
    /// When what is mounted can't be read.
    pub fn unused(&self) -> Result<Vec<PathBuf>> {
        if !self.all.iter().any(|h| h.kind == Kind::V2) {
            return Ok(Vec::new());
        }
        let without_controller =
            |mount: &Mount| !mount.v2 && Controllers::from_v1_options(&mount.options).is_empty();
        let mounts = layout::mounted()?.into_iter().filter(without_controller);
        Ok(mounts.map(|mount| PathBuf::from(mount.point)).collect())
    }

    fn detect() -> Result<Self> {
        let open_all = |mounts: Vec<Mount>| mounts.iter().filter_map(open_root).collect::<Vec<_>>();
        let mut all = layout::usual().map(open_all).unwrap_or_default();
        if all.is_empty() {
            all = open_all(layout::mounted()?);
        }
        // Where there is no unified hierarchy, systemd tracks its units in its named one: a container that stayed in
        // the service's group there would be killed with the service. Everywhere else that directory is a cost only.
        if all.iter().any(|h| h.kind == Kind::V2) {
            all.retain(|h| h.kind != Kind::V1Named);
        }
        // The unified directory first: it has the kill switch and the events for the others.
        if let Some(unified) = all.iter().position(|h| h.kind == Kind::V2) {
            all[..=unified].rotate_right(1);
        }
        if all.is_empty() {
            Err(CgroupError::NotMounted)
        } else {
            Ok(Self { all })
        }
    }
}

fn open_root(mount: &Mount) -> Option<Hierarchy> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // musl's open(2) makes two calls where close-on-exec is wanted.
    let root = openat(AT_FDCWD, mount.point.as_str(), flags, Mode::empty()).ok()?;
    let magic = if mount.v2 {
        CGROUP2_SUPER_MAGIC
    } else {
        CGROUP_SUPER_MAGIC
    };
    // Another mount may lie on top of this one.
    if fstatfs(&root).ok()?.filesystem_type() != magic {
        return None;
    }
    let controllers = if mount.v2 {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let list = openat(&root, "cgroup.controllers", flags, Mode::empty()).ok()?;
        Controllers::from_v2_names(&file::read_all(list.as_fd()).ok()?)
    } else {
        Controllers::from_v1_options(&mount.options)
    };
    let kind = match (mount.v2, controllers.is_empty()) {
        (true, _) => Kind::V2,
        (false, false) => Kind::V1,
        (false, true) => Kind::V1Named,
    };
    let label = mount.options.trim_start_matches("rw,").to_owned();
    Some(Hierarchy {
        kind,
        controllers,
        root,
        label,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_hierarchies() {
        let found = Hierarchies::get().unwrap();
        assert!(found.supports(Controller::Memory), "{found:?}");
        assert!(found.supports(Controller::Devices));
    }
}
