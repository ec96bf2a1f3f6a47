//! The cgroup hierarchies of the machine: v1, v2 or both.

use std::fs;
use std::path::{Path, PathBuf};

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// v1: the controllers' and the hierarchy's names; v2: nothing.
    pub names: Vec<String>,
}

/// Every hierarchy that is mounted.
pub(crate) fn hierarchies() -> Vec<Hierarchy> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo").expect("a thread has mounts");
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let (kind, options) = (right.next().unwrap_or(""), right.nth(1).unwrap_or(""));
        let mount = PathBuf::from(left.split(' ').nth(4).unwrap_or(""));
        let names = match kind {
            "cgroup" => options
                .split(',')
                .filter(|name| !matches!(*name, "rw" | "ro"))
                .map(str::to_owned)
                .collect(),
            "cgroup2" => Vec::new(),
            _ => continue,
        };
        if !found.iter().any(|one| one.mount == mount) {
            found.push(Hierarchy { mount, names });
        }
    }
    found
}

/// The directories of all hierarchies below (and with) a cgroup, deepest first.
pub fn cgroup_directories(cgroup: &Path) -> Vec<PathBuf> {
    let relative = cgroup.strip_prefix("/").unwrap_or(cgroup);
    let mut found = Vec::new();
    for hierarchy in hierarchies() {
        let top = hierarchy.mount.join(relative);
        if top.is_dir() {
            collect(&top, &mut found);
            found.push(top);
        }
    }
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            collect(&entry.path(), found);
            found.push(entry.path());
        }
    }
}

/// A controller, wherever this machine has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// Memory.
    Memory,
    /// Processes.
    Pids,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The mount point of its hierarchy, and whether that is version 2.
    ///
    /// # Panics
    /// If the machine has it nowhere.
    pub fn mount(self) -> (PathBuf, bool) {
        let all = hierarchies();
        if let Some(v1) = all
            .iter()
            .find(|one| one.names.iter().any(|name| name == self.name()))
        {
            return (v1.mount.clone(), false);
        }
        let v2 = all.into_iter().find(|one| one.names.is_empty());
        (v2.expect("the machine has cgroups").mount, true)
    }

    /// A file of a cgroup, by its v1 or its v2 name, trimmed.
    ///
    /// # Panics
    /// If it can't be read.
    pub fn read(self, cgroup: &Path, v1: &str, v2: &str) -> String {
        let (mount, is_v2) = self.mount();
        let file = mount
            .join(cgroup.strip_prefix("/").unwrap_or(cgroup))
            .join(if is_v2 { v2 } else { v1 });
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        text.trim().to_owned()
    }
}
