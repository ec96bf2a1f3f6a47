//! The control group of a container that is being created.

use std::borrow::Cow;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::unistd::Pid;

use crate::cgroups::systemd::{Placeholder, Scope};
use crate::cgroups::{Cgroup, Hierarchies, allow_default_devices, check_device_rules, is_machines_root};
use crate::oci::{self, LinuxNamespaceType};
use crate::{Error, Result};

/// A group that is deleted again unless the container comes to be.
pub(crate) struct NewCgroup {
    group: Option<Cgroup>,
    /// systemd made it, and forgets it.
    scope: Option<Scope>,
    /// What the scope holds until the container is in it.
    placeholder: Option<Placeholder>,
}

impl NewCgroup {
    /// Refuses what means nothing, before there is a process whose own refusals could come first.
    pub(crate) fn check(linux: &oci::Linux) -> Result<()> {
        let rules = linux
            .resources
            .as_ref()
            .map(|resources| resources.devices.as_slice());
        Ok(check_device_rules(rules.unwrap_or_default())?)
    }

    /// Makes the group with its limits. Who is not root of the machine, and may not make the group, does without it,
    /// unless there are limits to be set.
    pub(crate) fn create(spec: &oci::Spec, linux: &oci::Linux, scope: Option<&Scope>) -> Result<NewCgroup> {
        let owner = owner(spec, linux);
        let path = linux.cgroups_path.as_str();
        if path.is_empty() {
            return Err(Error::invalid("linux.cgroupsPath", "it is missing"));
        }
        let used = || {
            let reason = format!("container's cgroup is not empty: {path} has processes in it already");
            Error::invalid("linux.cgroupsPath", reason)
        };
        let resources = linux.resources.as_ref().map(with_default_devices);
        let mut new = NewCgroup {
            group: None,
            scope: None,
            placeholder: None,
        };
        let Some(scope) = scope else {
            let made = match Cgroup::create_unused(path) {
                Err(error) if error.is_denied() && !is_machines_root() => Cgroup::none(path)?,
                other => other?.ok_or_else(used)?,
            };
            let group = new.group.insert(made);
            if let Some(resources) = &resources {
                apply(group, resources)?;
            }
            if let Some(uid) = owner {
                group.give_to(uid)?;
            }
            return Ok(new);
        };
        if let Some(existing) = Cgroup::open(path)?
            && !existing.pids()?.is_empty()
        {
            return Err(used());
        }
        new.placeholder = Some(scope.start(resources.as_deref(), &spec.annotations)?);
        new.scope = Some(scope.clone());
        let group = new.group.insert(Cgroup::create(path)?);
        if let Some(resources) = &resources {
            apply(group, &scope.rounded(resources))?;
        }
        if let Some(uid) = owner {
            group.give_to(uid)?;
        }
        Ok(new)
    }

    /// Whether a process that is to have such a group must begin in it, so that the group has to be there before. If
    /// not, the group can be made while the process makes its mounts.
    ///
    /// # Errors
    /// When no hierarchy can be found.
    pub(crate) fn comes_first(scope: Option<&Scope>) -> Result<bool> {
        Ok(scope.is_some() || Hierarchies::get()?.has_free_unified())
    }

    /// The files by which the container's process enters the group, where it does so itself.
    pub(crate) fn entry_files(&self) -> Result<Vec<OwnedFd>> {
        match &self.group {
            Some(group) if !self.is_users() => Ok(group.remaining_entry_files()?),
            _ => Ok(Vec::new()),
        }
    }

    /// The directory of the unified hierarchy in which the container's process begins.
    pub(crate) fn begin_in(&self) -> Option<BorrowedFd<'_>> {
        self.group.as_ref().filter(|_| !self.is_users())?.begin_in()
    }

    /// Has the container's process moved into a user's scope. The user may not move it there: the group that the
    /// session and the user's services have in common is the system's.
    pub(crate) fn attach(&self, pid: Pid) -> Result<()> {
        match &self.scope {
            Some(scope) if scope.user => Ok(scope.attach(pid)?),
            _ => Ok(()),
        }
    }

    fn is_users(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.user)
    }

    /// Moves a process into the group.
    pub(crate) fn enter(&self, pid: Pid) -> Result<()> {
        match &self.group {
            Some(group) if !self.is_users() => Ok(group.add_process(pid)?),
            _ => self.attach(pid),
        }
    }

    /// Why the container's process vanished, where its limit of memory tells.
    pub(crate) fn explain(&self, error: Error, linux: &oci::Linux) -> Error {
        let kills = self.group.as_ref().and_then(|group| group.oom_kill_count().ok());
        if !matches!(error, Error::Vanished(_)) || kills.is_none_or(|kills| kills == 0) {
            return error;
        }
        let memory = linux
            .resources
            .as_ref()
            .and_then(|resources| resources.memory.as_ref());
        let limit = memory.and_then(|memory| memory.limit).filter(|&limit| limit >= 0);
        Error::OutOfMemory { limit }
    }

    /// The group is the container's from here on.
    pub(crate) fn keep(&mut self) -> Result<Cgroup> {
        self.scope = None;
        self.group
            .take()
            .ok_or_else(|| Error::Vanished("its cgroup is gone".to_owned()))
    }
}

impl Drop for NewCgroup {
    fn drop(&mut self) {
        // The error that led here matters more than what can't be cleaned up after it.
        drop(self.placeholder.take());
        if let Some(scope) = &self.scope {
            let _ = scope.stop();
        }
        if let Some(group) = &self.group {
            let _ = group.delete();
        }
    }
}

/// Sets the limits. Rules for devices take root of the machine; who is not that can't make device nodes either, and may
/// open in a container what they may open outside of it.
fn apply(group: &Cgroup, resources: &oci::LinuxResources) -> Result<()> {
    let without_devices = || oci::LinuxResources {
        devices: Vec::new(),
        ..resources.clone()
    };
    if !rustix::process::geteuid().is_root() {
        return Ok(group.apply(&without_devices())?);
    }
    match group.apply(resources) {
        Err(error) if error.refuses_device_rules() && !is_machines_root() => {
            Ok(group.apply(&without_devices())?)
        }
        other => Ok(other?),
    }
}

/// Who gets the group: root of the container's own user namespace, if the container sees its groups, and no others, in
/// a mount that it may write to. Its numbers are the host's.
fn owner(spec: &oci::Spec, linux: &oci::Linux) -> Option<u32> {
    let new = |kind| {
        linux
            .namespaces
            .iter()
            .any(|n| n.typ == kind && n.path.as_os_str().is_empty())
    };
    if !new(LinuxNamespaceType::User) || !new(LinuxNamespaceType::Cgroup) {
        return None;
    }
    let visible = |m: &oci::Mount| m.typ.starts_with("cgroup") && !m.options.iter().any(|o| o == "ro");
    spec.mounts.iter().find(|m| visible(m))?;
    let root = linux
        .uid_mappings
        .iter()
        .find(|m| m.container_id == 0 && m.size > 0)?;
    Some(root.host_id)
}

/// Whatever the rules deny, the devices that every container has may be used, as in every other runtime.
fn with_default_devices(resources: &oci::LinuxResources) -> Cow<'_, oci::LinuxResources> {
    if resources.devices.is_empty() {
        return Cow::Borrowed(resources);
    }
    let mut resources = resources.clone();
    allow_default_devices(&mut resources.devices);
    Cow::Owned(resources)
}
