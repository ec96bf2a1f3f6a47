//! A control group of the daemon's own, so that neither the end of the session that it was started from nor that session's
//! limits are its own.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use berth_cri::cgroups::Cgroup;

use crate::plan::PodCgroup;
use crate::worker::{HostCgroups, PodCgroupError, PodCgroups, hierarchy_roots};

/// The group, below the one that pods' groups are below.
const NAME: &str = "berth-daemon";

/// Left and removed when this is dropped.
#[derive(Debug)]
pub struct OwnGroup {
    cgroups: HostCgroups,
    path: PathBuf,
}

impl OwnGroup {
    /// Makes the group and moves this process there, which may have only one thread yet.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(kubelet_root: &Path, cgroup_root: &Path) -> Result<Self, PodCgroupError> {
        let path = cgroup_root.strip_prefix("/").unwrap_or(cgroup_root).join(NAME);
        let own = Self {
            cgroups: HostCgroups::new(kubelet_root),
            path,
        };
        own.cgroups.ensure(&PodCgroup {
            path: own.path.clone(),
            ..PodCgroup::default()
        })?;
        let text = own
            .path
            .to_str()
            .ok_or_else(|| PodCgroupError::Path(own.path.clone()))?;
        if let Some(group) = Cgroup::open(text)? {
            for file in group.entry_files()? {
                std::fs::File::from(file).write_all(b"0")?;
            }
        }
        Ok(own)
    }

    /// Removes the group that a killed daemon left, if nobody is in it.
    pub fn remove_left(kubelet_root: &Path, cgroup_root: &Path) {
        let path = cgroup_root.strip_prefix("/").unwrap_or(cgroup_root).join(NAME);
        // What can't be removed is the next daemon's.
        let _ = HostCgroups::new(kubelet_root).remove_unused(&path);
    }

    /// A group is removed by who is not in it.
    fn leave(&self) -> io::Result<()> {
        let own = std::process::id().to_string();
        for root in hierarchy_roots()? {
            // A hierarchy that has no controller of ours may be somebody else's.
            if root.join(&self.path).exists() {
                std::fs::write(root.join("cgroup.procs"), &own)?;
            }
        }
        Ok(())
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        // The next daemon may be in it already, and may not be killed.
        if self.leave().is_ok() {
            let _ = self.cgroups.remove_unused(&self.path);
        }
    }
}
