//! The cgroups above a sandbox's own. A kubelet makes and removes those of its pods; where a caller names one that is not
//! there, it comes with the first sandbox in it, and goes with the last.

use std::path::{Path, PathBuf};

use berth_runtime::cgroups::Cgroup;
use berth_runtime::cgroups::systemd::stop_slice;

use super::{Inner, Sandbox, cgroups, lock};
use crate::types::CgroupDriver;

/// Those that are not there yet, the deepest first.
pub(super) fn missing(parent: &Path) -> Vec<PathBuf> {
    let named = parent.ancestors().filter(|path| !path.as_os_str().is_empty());
    named
        .take_while(|path| matches!(open(path), Ok(None)))
        .map(Path::to_owned)
        .collect()
}

/// Removes those that came with a sandbox. One that others use by now is theirs to remove.
pub(super) fn remove(inner: &Inner, sandbox: &Sandbox) {
    let (made, driver) = {
        let record = lock(&sandbox.record);
        (record.made_cgroups.clone(), record.cgroup_driver)
    };
    // No sandbox comes to be in a slice that is about to be stopped.
    let _parents = lock(&inner.parents);
    for path in made {
        if matches!(open(&path), Ok(Some(group)) if !group.remove_if_empty()) {
            hand_over(inner, sandbox, &path);
        } else if driver == CgroupDriver::Systemd {
            forget(&path);
        }
    }
}

/// systemd made a slice for the first scope in it, and keeps it when the last is gone.
fn forget(path: &Path) {
    let slice = cgroups::slice_of(path);
    if let Err(error) = stop_slice(&slice) {
        tracing::warn!("The slice {slice} is left behind: {error}");
    }
}

fn hand_over(inner: &Inner, sandbox: &Sandbox, path: &Path) {
    let others = lock(&inner.sandboxes).all();
    let uses = |other: &Sandbox| lock(&other.record).config.cgroup_parent.starts_with(path);
    let heir = others.iter().find(|other| other.id != sandbox.id && uses(other));
    let Some(heir) = heir else { return };
    let taken = heir.update_record(|record| {
        record.made_cgroups.push(path.to_owned());
        record
            .made_cgroups
            .sort_by_key(|path| std::cmp::Reverse(path.components().count()));
        record.made_cgroups.dedup();
    });
    if let Err(error) = taken {
        tracing::warn!(
            "The cgroup {} will be left behind when it is empty: {error}",
            path.display()
        );
    }
}

fn open(path: &Path) -> Result<Option<Cgroup>, berth_runtime::cgroups::CgroupError> {
    Cgroup::open(&path.to_string_lossy())
}
