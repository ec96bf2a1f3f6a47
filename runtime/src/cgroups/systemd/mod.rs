//! The systemd driver: a container's group is that of a transient scope, which systemd makes and knows about.
//!
//! systemd puts the scope's processes only into hierarchies that it manages, and knows only some of the limits. What it
//! knows is told to it, so that it doesn't undo it at its next reload; then all limits are written to the group's files
//! as without systemd, and hierarchies that it doesn't manage get a group of the same path.
//!
//! A scope can't begin empty. It begins with a process that does nothing and ends as soon as the container's own is in.

mod annotations;
mod devices;
mod manager;
mod name;
mod properties;
mod text;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{CgroupError, Result};
use crate::oci::LinuxResources;
use crate::spawn::kill_and_reap;
use crate::sys::{self, CloneArgs, Spawned};

use manager::Manager;

/// A transient scope of systemd's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Its name: `docker-1234.scope`.
    pub unit: String,
    /// The slice that it is in: `machine.slice`.
    pub slice: String,
    /// It is the user's own systemd, not the system's.
    pub user: bool,
}

/// The first process of a scope; it ends when this is dropped.
#[derive(Debug)]
pub struct Placeholder(Spawned);

impl AsFd for Placeholder {
    /// The process, for a copy of this one that is to close what it has inherited.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.pidfd.as_fd()
    }
}

impl Drop for Placeholder {
    fn drop(&mut self) {
        kill_and_reap(&self.0);
    }
}

impl Scope {
    /// Reads a `linux.cgroupsPath` as this driver has them, `slice:prefix:name`. An empty one is a scope of the
    /// container's own name in `system.slice`, or for a user `user.slice`.
    ///
    /// # Errors
    /// When the path has another form, or a part of it is no name of a unit.
    pub fn parse(cgroups_path: &str, id: &str, user: bool) -> Result<Scope> {
        name::parse(cgroups_path, id, user)
    }

    /// The path of the scope's group below each hierarchy's root. For a user's scope, systemd is asked where its own
    /// group is.
    ///
    /// # Errors
    /// When the slice's name is not valid, or the user's systemd can't be asked.
    pub fn cgroup_path(&self) -> Result<String> {
        let below = format!("{}/{}", name::expand(&self.slice)?, self.unit);
        if !self.user {
            return Ok(below);
        }
        let own = Manager::connect(self)?.property("ControlGroup")?;
        Ok(format!("{own}{below}"))
    }

    /// Makes the scope, with a process that only waits: something else has to be in it before that ends. Limits and the
    /// annotations `org.systemd.property.*` become properties of the scope. The calling process must be single-threaded.
    ///
    /// # Errors
    /// When systemd can't be reached or refuses, above all because the unit exists.
    pub fn start(
        &self,
        resources: Option<&LinuxResources>,
        annotations: &BTreeMap<String, String>,
    ) -> Result<Placeholder> {
        let wanted = annotations::properties(annotations)?;
        let mut manager = Manager::connect(self)?;
        let placeholder = placeholder(self)?;
        let mut properties = properties::of_scope(self, placeholder.0.pid);
        if let Some(resources) = resources {
            properties.extend(properties::of_creation(resources, &mut manager)?);
            properties.extend(properties::of_resources(resources, &mut manager)?);
        }
        properties.extend(wanted);
        manager.start_scope(&properties)?;
        Ok(placeholder)
    }

    /// Tells systemd of new limits. The group's files are for [`super::Cgroup::apply`], afterwards.
    ///
    /// # Errors
    /// When systemd can't be reached or refuses.
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        let mut manager = Manager::connect(self)?;
        let properties = properties::of_resources(resources, &mut manager)?;
        if properties.is_empty() {
            return Ok(());
        }
        manager.set_properties(&properties)
    }

    /// The limits as systemd sets them, which is how they have to be written to the group's files too.
    pub fn rounded<'a>(&self, resources: &'a LinuxResources) -> Cow<'a, LinuxResources> {
        properties::rounded(resources)
    }

    /// Makes the scope around a process that runs already.
    ///
    /// # Errors
    /// When systemd can't be reached or refuses.
    pub fn start_with(&self, pid: Pid, description: &str) -> Result<()> {
        let mut manager = Manager::connect(self)?;
        let mut properties = properties::of_scope(self, pid);
        properties.retain(|(name, _)| name != "Description");
        properties.push((
            "Description".to_owned(),
            crate::dbus::Value::Text(description.to_owned()),
        ));
        manager.start_scope(&properties)
    }

    /// Moves a process into the scope, where this one may not do it itself: between groups that belong to different
    /// managers.
    ///
    /// # Errors
    /// When systemd can't be reached or refuses.
    pub fn attach(&self, pid: Pid) -> Result<()> {
        self.attach_below("/", pid)
    }

    /// The same, into a group below the scope's: `/name`.
    ///
    /// # Errors
    /// When systemd can't be reached or refuses.
    pub fn attach_below(&self, group: &str, pid: Pid) -> Result<()> {
        Manager::connect(self)?.attach(group, pid)
    }

    /// Makes systemd forget the scope, whose processes have ended or end now. One that is gone is no error.
    ///
    /// # Errors
    /// When systemd can't be reached, or doesn't get rid of it.
    pub fn stop(&self) -> Result<()> {
        Manager::connect(self)?.stop_scope()
    }
}

/// The path of a slice's group below each hierarchy's root, without a slash before it, as systemd.slice(5) has it:
/// `a-b.slice` is in `a.slice`, so that it is `a.slice/a-b.slice`. The root, `-.slice`, is empty.
///
/// # Errors
/// When it is no name of a slice.
pub fn slice_path(slice: &str) -> Result<String> {
    Ok(name::expand(slice)?.trim_start_matches('/').to_owned())
}

/// Makes systemd forget a slice that it made for a scope, with all that is in it. It keeps such slices for ever. One that is
/// gone is no error.
///
/// # Errors
/// When systemd can't be reached, or doesn't get rid of it.
pub fn stop_slice(slice: &str) -> Result<()> {
    let unit = Scope {
        unit: slice.to_owned(),
        slice: slice.to_owned(),
        user: false,
    };
    unit.stop()
}

/// A process that waits to be killed, and dies with this one.
fn placeholder(scope: &Scope) -> Result<Placeholder> {
    let wait = || {
        use rustix::process::{Signal, set_parent_process_death_signal};
        if set_parent_process_death_signal(Some(Signal::KILL)).is_ok() {
            loop {
                std::thread::sleep(std::time::Duration::from_secs(3600));
            }
        }
        1
    };
    match sys::spawn(CloneArgs::default(), wait) {
        Ok(spawned) => Ok(Placeholder(spawned)),
        Err(error) => Err(CgroupError::Placeholder {
            unit: scope.unit.clone(),
            error,
        }),
    }
}
