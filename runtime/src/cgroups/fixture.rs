//! Groups made of ordinary files, for tests of what reads them.

use std::fs::{self, File};
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::Path;

use tempfile::TempDir;

use super::file::Directory;
use super::hierarchy::{Hierarchy, Kind};
use super::{Cgroup, CgroupPath, Controllers};

/// A group whose files are removed with it.
pub(super) struct Fixture {
    group: Cgroup,
    _root: TempDir,
}

impl Deref for Fixture {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.group
    }
}

/// A group in v1 hierarchies, one for each controller: (controller, file, text).
pub(super) fn v1(files: &[(&str, &str, &str)]) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    let mut directories: Vec<Directory> = Vec::new();
    for (controller, file, text) in files {
        let directory = root.path().join(controller);
        if !directory.exists() {
            fs::create_dir(&directory).unwrap();
            directories.push(held(
                &directory,
                Kind::V1,
                Controllers::from_v1_options(controller),
            ));
        }
        fs::write(directory.join(file), text).unwrap();
    }
    fixture(root, directories)
}

/// A group in the unified hierarchy with all controllers: (file, text).
pub(super) fn v2(files: &[(&str, &str)]) -> Fixture {
    let root = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(root.path().join(file), text).unwrap();
    }
    let controllers = Controllers::from_v2_names("cpuset cpu io memory hugetlb pids rdma");
    let directory = held(root.path(), Kind::V2, controllers);
    fixture(root, vec![directory])
}

fn fixture(root: TempDir, directories: Vec<Directory>) -> Fixture {
    Fixture {
        group: Cgroup {
            path: CgroupPath::new("fixture").unwrap(),
            directories,
        },
        _root: root,
    }
}

fn held(directory: &Path, kind: Kind, controllers: Controllers) -> Directory {
    let open = || OwnedFd::from(File::open(directory).unwrap());
    let hierarchy = Box::leak(Box::new(Hierarchy::new(kind, controllers, open())));
    Directory::held(hierarchy, CgroupPath::new("fixture").unwrap(), open())
}
