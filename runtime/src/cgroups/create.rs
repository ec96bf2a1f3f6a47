//! Making and opening a group's directories.

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file::Directory;
use super::hierarchy::{Hierarchy, Kind};
use super::{Cgroup, CgroupError, CgroupPath, Controller, Controllers, Hierarchies, Result, cpuset};

const DIRECTORY: OFlag = OFlag::O_PATH.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

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
        directories.push(create_in(hierarchy, &path, &mut made)?);
    }
    let group = Cgroup { path, directories };
    if hierarchies.is_unified() {
        enable_all(&group)?;
    }
    Ok((group, made))
}

pub(super) fn open(path: CgroupPath) -> Result<Option<Cgroup>> {
    let mut directories = Vec::new();
    for hierarchy in &Hierarchies::get()?.all {
        match openat(&hierarchy.root, path.as_str(), DIRECTORY, Mode::empty()) {
            Ok(fd) => directories.push(Directory {
                hierarchy,
                fd,
                path: path.clone(),
            }),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(directory_failed("open", hierarchy, path.as_str(), errno)),
        }
    }
    Ok((!directories.is_empty()).then_some(Cgroup { path, directories }))
}

fn create_in(hierarchy: &'static Hierarchy, path: &CgroupPath, made: &mut Made) -> Result<Directory> {
    // Nearly always only the last level is missing, or none.
    match make(hierarchy, path.as_str(), made) {
        Err(Errno::ENOENT) => {
            for level in path.ancestors() {
                make(hierarchy, level, made).map_err(|e| directory_failed("make", hierarchy, level, e))?;
            }
        }
        other => other.map_err(|e| directory_failed("make", hierarchy, path.as_str(), e))?,
    }
    let fd = openat(&hierarchy.root, path.as_str(), DIRECTORY, Mode::empty())
        .map_err(|e| directory_failed("open", hierarchy, path.as_str(), e))?;
    let directory = Directory {
        hierarchy,
        fd,
        path: path.clone(),
    };
    if hierarchy.kind == Kind::V1 && hierarchy.controllers.contains(Controller::CpuSet) {
        cpuset::inherit(&directory)?;
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
pub(super) fn enable(directory: &Directory, wanted: &[Controller]) -> Result<()> {
    let has = Controllers::from_v2_names(&directory.read("cgroup.controllers")?);
    if wanted.iter().all(|c| has.contains(*c)) {
        return Ok(());
    }
    let root = directory.hierarchy;
    pass_on(root, "", wanted)?;
    let mut above = directory.path.ancestors().collect::<Vec<_>>();
    above.pop();
    above
        .into_iter()
        .try_for_each(|level| pass_on(root, level, wanted))
}

/// Adds controllers to one group's `cgroup.subtree_control`; `level` is empty for the root.
fn pass_on(hierarchy: &'static Hierarchy, level: &str, wanted: &[Controller]) -> Result<()> {
    let relative = if level.is_empty() { "." } else { level };
    let fd = openat(&hierarchy.root, relative, DIRECTORY, Mode::empty())
        .map_err(|e| directory_failed("open", hierarchy, level, e))?;
    let shown = CgroupPath::new(level).or_else(|_| CgroupPath::new("(root)"))?;
    let directory = Directory {
        hierarchy,
        fd,
        path: shown,
    };
    let enabled = Controllers::from_v2_names(&directory.read("cgroup.subtree_control")?);
    let missing: Vec<String> = wanted
        .iter()
        .filter(|c| !enabled.contains(**c))
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
