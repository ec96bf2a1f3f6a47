//! `cpuset`: which processors and memory nodes a group may use.

use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::file::{DIRECTORY, Directory, read_line};
use super::{Cgroup, Controller, Result};

/// On v1 a new cpuset is empty and lets no process in. Gives the group, and empty groups above it, the parent's values.
///
/// Groups in between are told to hand their values to children themselves (`cgroup.clone_children`), so that for
/// every later pod a single look at `cpuset.cpus` is all that this takes. Nobody tells the root of the hierarchy, and a
/// new group right below it needs no look.
pub(super) fn inherit(group: &Directory, is_new: bool) -> Result<()> {
    let leaf = group.path.as_str();
    let is_empty = is_new && !leaf.contains('/');
    if !is_empty {
        let own = group.open("cpuset.cpus", OFlag::O_RDONLY)?;
        if !read(group, "cpuset.cpus", own)?.is_empty() {
            return Ok(());
        }
    }
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut parent = values(group, |file| {
        openat(&group.hierarchy.root, file, flags, Mode::empty()).map_err(|e| group.failed("open", file, e))
    })?;
    for level in group.path.ancestors().filter(|level| *level != leaf) {
        let directory = open(group, level)?;
        let own = values(&directory, |file| directory.open(file, OFlag::O_RDONLY))?;
        parent = fill(&directory, own, parent)?;
        directory.write("cgroup.clone_children", "1")?;
    }
    fill(group, (String::new(), String::new()), parent)?;
    Ok(())
}

/// Gives a group the values that it lacks; returns what it has then.
fn fill(directory: &Directory, own: (String, String), parent: (String, String)) -> Result<(String, String)> {
    let give = |file, own: String, parent: String| {
        if !own.is_empty() {
            return Ok(own);
        }
        directory.write(file, &parent).map(|()| parent)
    };
    Ok((
        give("cpuset.cpus", own.0, parent.0)?,
        give("cpuset.mems", own.1, parent.1)?,
    ))
}

/// Writes `cpu.cpus` and `cpu.mems` of `linux.resources`. On v1 the kernel refuses what the parent group lacks.
pub(super) fn apply(group: &Cgroup, cpus: &str, mems: &str) -> Result<()> {
    for (value, file, field) in [
        (cpus, "cpuset.cpus", "linux.resources.cpu.cpus"),
        (mems, "cpuset.mems", "linux.resources.cpu.mems"),
    ] {
        if !value.is_empty() {
            group.need(Controller::CpuSet, field)?.write(file, value)?;
        }
    }
    Ok(())
}

fn values(shown: &Directory, open: impl Fn(&'static str) -> Result<OwnedFd>) -> Result<(String, String)> {
    let read = |file| read(shown, file, open(file)?);
    Ok((read("cpuset.cpus")?, read("cpuset.mems")?))
}

fn read(shown: &Directory, file: &'static str, fd: OwnedFd) -> Result<String> {
    let text = read_line(fd.as_fd()).map_err(|e| shown.failed("read", file, e))?;
    Ok(text.trim().to_owned())
}

/// A group of the same hierarchy by its path below the root.
fn open(group: &Directory, path: &str) -> Result<Directory> {
    let fd = openat(&group.hierarchy.root, path, DIRECTORY, Mode::empty())
        .map_err(|e| group.failed("open", &format!("group {path}"), e))?;
    Ok(Directory::held(group.hierarchy, group.path.clone(), fd))
}
