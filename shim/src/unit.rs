//! A container's scope, where systemd makes the control groups.

use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::cgroups::{Cgroup, CgroupError};
use berth_runtime::oci::LinuxResources;

/// A scope, and the limits that systemd knows of it.
pub(crate) struct Unit {
    scope: Scope,
    told: LinuxResources,
}

impl Unit {
    pub(crate) fn new(scope: Scope, told: Option<LinuxResources>) -> Self {
        Self {
            scope,
            told: told.unwrap_or_default(),
        }
    }

    /// Sets all of the limits, or none. systemd first: it would set its own idea of them over ours.
    pub(crate) fn update(&mut self, cgroup: &Cgroup, limits: &LinuxResources) -> Result<(), CgroupError> {
        self.scope.update(limits)?;
        if let Err(error) = cgroup.update(&self.scope.rounded(limits)) {
            // The error that led here matters more than one of this.
            let _ = self.scope.update(&self.told);
            return Err(error);
        }
        self.told = limits.clone();
        Ok(())
    }

    /// Makes systemd forget it, once nothing runs in it. That happens by itself, but not if it has failed.
    pub(crate) fn stop(&self) -> Result<(), CgroupError> {
        self.scope.stop()
    }
}
