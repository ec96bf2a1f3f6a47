//! Making and opening a group's directories.

use nix::errno::Errno;
use nix::fcntl::openat;
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file::{DIRECTORY, Directory};
use super::hierarchy::{Hierarchy, Kind};
use super::{
    Cgroup, CgroupError, CgroupPath, Controller, Controllers, Hierarchies, Result, cpuset, is_machines_root,
};

/// Directories that were made, removed again unless they are kept.
#[derive(Default)]
pub(super) struct Made(Vec<(&'static Hierarchy, String)>);

impl Made {
    /// The directories stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }

    /// Nothing of the group was there before.
    pub(super) fn is_all_of(&self, group: &Cgroup) -> bool {
        let leaves = self.0.iter().filter(|(_, path)| path == group.path.as_str());
        leaves.count() == group.directories.len()
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for (hierarchy, path) in self.0.iter().rev() {
            let _ = unlinkat(&hierarchy.root, path.as_str(), UnlinkatFlags::RemoveDir);
        }
    }
}

/// The group, and what had to be made for it.
pub(super) fn create(path: CgroupPath) -> Result<(Cgroup, Made)> {
    let hierarchies = Hierarchies::get()?;
    let mut made = Made::default();
    let mut directories = Vec::with_capacity(hierarchies.all.len());
    for hierarchy in &hierarchies.all {
        match create_in(hierarchy, &path, &mut made) {
            // Who is not the host's root gets groups where they were delegated, and limits from these controllers only.
            Err(error) if error.is_denied() && !is_machines_root() => {}
            other => directories.push(other?),
        }
    }
    let group = Cgroup { path, directories };
    if hierarchies.is_unified() {
        match enable_all(&group) {
            // A container without limits needs no controllers. One with limits fails when they are set.
            Err(CgroupError::InternalProcesses { .. }) => {}
            Err(error) if error.is_denied() => {}
            other => other?,
        }
    }
    Ok((group, made))
}

pub(super) fn open(path: CgroupPath) -> Result<Option<Cgroup>> {
    let mut directories = Vec::new();
    for hierarchy in &Hierarchies::get()?.all {
        match openat(&hierarchy.root, path.as_str(), DIRECTORY, Mode::empty()) {
            Ok(fd) => directories.push(Directory::held(hierarchy, path.clone(), fd)),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(directory_failed("open", hierarchy, path.as_str(), errno)),
        }
    }
    Ok((!directories.is_empty()).then_some(Cgroup { path, directories }))
}

fn create_in(hierarchy: &'static Hierarchy, path: &CgroupPath, made: &mut Made) -> Result<Directory> {
    let before = made.0.len();
    // Nearly always only the last level is missing, or none.
    match make(hierarchy, path.as_str(), made) {
        Err(Errno::ENOENT) => {
            for level in path.ancestors() {
                make(hierarchy, level, made).map_err(|e| directory_failed("make", hierarchy, level, e))?;
            }
        }
        other => other.map_err(|e| directory_failed("make", hierarchy, path.as_str(), e))?,
    }
    let is_new = made.0.len() > before;
    let directory = Directory::named(hierarchy, path.clone());
    if hierarchy.kind == Kind::V2 || !is_new {
        directory.fd()?;
    }
    if hierarchy.kind == Kind::V1 && hierarchy.controllers.contains(Controller::CpuSet) {
        cpuset::inherit(&directory, is_new)?;
    }
    Ok(directory)
}

fn make(hierarchy: &'static Hierarchy, path: &str, made: &mut Made) -> std::result::Result<(), Errno> {
    match mkdirat(&hierarchy.root, path, Mode::from_bits_truncate(0o755)) {
        Ok(()) => {
            made.0.push((hierarchy, path.to_owned()));
            Ok(())
        }
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// On a pure v2 host a group gets every controller that a container may be limited by.
fn enable_all(group: &Cgroup) -> Result<()> {
    let Some(unified) = group.unified() else {
        return Ok(());
    };
    let wanted = Controllers::DISTRIBUTED
        .into_iter()
        .filter(|c| unified.hierarchy.controllers.contains(*c));
    enable(unified, &wanted.collect::<Vec<_>>())
}

/// Sees to it that the group has these controllers of the unified hierarchy, by passing them on from the root down.
/// Levels that are not ours are left to who owns them: they may pass on all that is wanted already.
pub(super) fn enable(directory: &Directory, wanted: &[Controller]) -> Result<()> {
    let has_all = || -> Result<bool> {
        let has = Controllers::from_v2_names(&directory.read("cgroup.controllers")?);
        Ok(wanted.iter().all(|c| has.contains(*c)))
    };
    if has_all()? {
        return Ok(());
    }
    let root = directory.hierarchy;
    let mut result = pass_on(root, "", wanted);
    let mut above = directory.path.ancestors().collect::<Vec<_>>();
    above.pop();
    for level in above {
        let here = pass_on(root, level, wanted);
        result = result.and(here);
    }
    match result {
        Err(_) if has_all()? => Ok(()),
        other => other,
    }
}

/// The sentence for a limit whose file isn't there: why its controller is not, if that can be said.
pub(super) fn explain(directory: &Directory, file: &str) -> Option<CgroupError> {
    let prefix = file.split('.').next()?;
    let controller = Controller::ALL.into_iter().find(|c| c.v2_name() == prefix)?;
    let hierarchy = directory.hierarchy;
    let here = hierarchy.kind == Kind::V2 && hierarchy.controllers.contains(controller);
    if !here || !directory.has("cgroup.procs") {
        return None;
    }
    if let Err(error) = enable(directory, &[controller]) {
        return Some(error);
    }
    let enabled = Controllers::from_v2_names(&directory.read("cgroup.controllers").ok()?);
    (!enabled.contains(controller)).then(|| CgroupError::NotDelegated {
        file: file.to_owned(),
        controller: controller.v2_name(),
        path: directory.path.to_string(),
    })
}

/// Adds controllers to one group's `cgroup.subtree_control`; `level` is empty for the root.
fn pass_on(hierarchy: &'static Hierarchy, level: &str, wanted: &[Controller]) -> Result<()> {
    let relative = if level.is_empty() { "." } else { level };
    let fd = openat(&hierarchy.root, relative, DIRECTORY, Mode::empty())
        .map_err(|e| directory_failed("open", hierarchy, level, e))?;
    let shown = CgroupPath::new(level).or_else(|_| CgroupPath::new("(root)"))?;
    let directory = Directory::held(hierarchy, shown, fd);
    let enabled = Controllers::from_v2_names(&directory.read("cgroup.subtree_control")?);
    let missing = wanted.iter().filter(|c| !enabled.contains(**c));
    // A controller that is not here can't be passed on; asking for it would refuse the others too.
    let here = Controllers::from_v2_names(&directory.read("cgroup.controllers")?);
    let missing: Vec<String> = missing
        .filter(|c| here.contains(**c))
        .map(|c| format!("+{}", c.v2_name()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let value = missing.join(" ");
    match directory.try_write("cgroup.subtree_control", &value)? {
        Ok(()) => Ok(()),
        Err(Errno::EBUSY) => Err(CgroupError::InternalProcesses {
            path: directory.path.to_string(),
            controllers: value,
        }),
        Err(errno) => Err(directory.refused("cgroup.subtree_control", &value, errno)),
    }
}

fn directory_failed(action: &'static str, hierarchy: &Hierarchy, path: &str, errno: Errno) -> CgroupError {
    CgroupError::File {
        action,
        file: "the directory".to_owned(),
        path: path.to_owned(),
        hierarchy: hierarchy.to_string(),
        errno,
    }
}
