//! Where hierarchies are mounted: at the usual places, or wherever mountinfo says.
//!
//! The kernel writes a line of mountinfo for every mount of the host, of which a busy node has thousands, and only some
//! ten are looked for. They are where systemd, and everybody since, has mounted them; what is found there is checked by
//! its type.

use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use rustix::fs::{CWD, FileType, OFlags, RawDir, fstatfs, openat};

use super::{CgroupError, Controllers, Result, file};
use crate::mountinfo;

/// The directory of the unified hierarchy, or of those of v1.
const USUAL: &str = "/sys/fs/cgroup";
/// statfs(2)'s types.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A place where a hierarchy is, or seems to be, mounted.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) point: String,
    pub(super) v2: bool,
    /// The mount options that name a v1 hierarchy.
    pub(super) options: String,
}

/// What seems to be mounted at the usual places. `None` where they look otherwise than is usual.
pub(super) fn usual() -> Option<Vec<Mount>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, USUAL, flags, rustix::fs::Mode::empty()).ok()?;
    match u64::try_from(fstatfs(&directory).ok()?.f_type) {
        Ok(CGROUP2_MAGIC) => Some(vec![Mount {
            point: USUAL.to_owned(),
            v2: true,
            options: String::new(),
        }]),
        Ok(TMPFS_MAGIC) => {
            let mut buffer = [MaybeUninit::uninit(); 2048];
            let mut entries = RawDir::new(&directory, &mut buffer);
            let mut names = Vec::new();
            while let Some(entry) = entries.next() {
                let entry = entry.ok()?;
                if entry.file_type() == FileType::Directory {
                    names.push(entry.file_name().to_str().ok()?.to_owned());
                }
            }
            by_name(&names)
        }
        _ => None,
    }
}

/// A directory of v1 hierarchies names each by its controllers.
fn by_name(names: &[String]) -> Option<Vec<Mount>> {
    let mut mounts = Vec::new();
    let mut known: Vec<&str> = Vec::new();
    for name in names.iter().filter(|name| !name.starts_with('.')) {
        let (v2, options) = match name.as_str() {
            "unified" => (true, String::new()),
            "systemd" => (false, "name=systemd".to_owned()),
            controllers => {
                for word in controllers.split(',') {
                    if Controllers::from_v1_options(word).is_empty() || known.contains(&word) {
                        return None;
                    }
                    known.push(word);
                }
                (false, controllers.to_owned())
            }
        };
        mounts.push(Mount {
            point: format!("{USUAL}/{name}"),
            v2,
            options,
        });
    }
    Some(mounts)
}

/// The cgroup mounts of this process's mount namespace.
///
/// # Errors
/// When mountinfo can't be read.
pub(super) fn mounted() -> Result<Vec<Mount>> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mountinfo = open("/proc/self/mountinfo", flags, Mode::empty())
        .and_then(|file| file::read_all(file.as_fd()))
        .map_err(CgroupError::MountInfo)?;
    Ok(listed(&mountinfo))
}

/// The cgroup mounts, each hierarchy once; the first mount of a hierarchy's own root wins over bind mounts of parts.
fn listed(mountinfo: &str) -> Vec<Mount> {
    let mut found: Vec<(String, bool, Mount)> = Vec::new();
    for line in mountinfo::parse(mountinfo) {
        if line.kind != "cgroup" && line.kind != "cgroup2" {
            continue;
        }
        let mount = Mount {
            point: line.point,
            v2: line.kind == "cgroup2",
            options: line.options.to_owned(),
        };
        let whole = line.root == "/";
        match found.iter_mut().find(|(known, _, _)| known == line.device) {
            Some(entry) if whole && !entry.1 => *entry = (line.device.to_owned(), true, mount),
            Some(_) => {}
            None => found.push((line.device.to_owned(), whole, mount)),
        }
    }
    found.into_iter().map(|(_, _, mount)| mount).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_once_and_whole_roots_first() {
        let mountinfo = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw
40 31 0:40 /docker/x /bind rw - cgroup cgroup rw,memory
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
33 31 0:40 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:38 / /sys/fs/cgroup/un\\040ified rw - cgroup2 cgroup2 rw,nsdelegate
35 31 0:38 / /elsewhere rw - cgroup2 cgroup2 rw,nsdelegate
";
        let found: Vec<(String, bool)> = listed(mountinfo).into_iter().map(|m| (m.point, m.v2)).collect();
        let expected = [
            ("/sys/fs/cgroup/memory".to_owned(), false),
            ("/sys/fs/cgroup/cpu,cpuacct".to_owned(), false),
            ("/sys/fs/cgroup/un ified".to_owned(), true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn directories_that_are_not_named_as_usual_are_not_guessed_at() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let usual = by_name(&names(&[
            ".",
            "..",
            "systemd",
            "cpu,cpuacct",
            "memory",
            "unified",
        ]))
        .unwrap();
        let shown: Vec<(&str, bool, &str)> = usual
            .iter()
            .map(|mount| (mount.point.as_str(), mount.v2, mount.options.as_str()))
            .collect();
        let expected = [
            ("/sys/fs/cgroup/systemd", false, "name=systemd"),
            ("/sys/fs/cgroup/cpu,cpuacct", false, "cpu,cpuacct"),
            ("/sys/fs/cgroup/memory", false, "memory"),
            ("/sys/fs/cgroup/unified", true, ""),
        ];
        assert_eq!(shown, expected);
        for strange in [&["all"][..], &["memory", "cpu,memory"], &["memory,other"]] {
            assert_eq!(by_name(&names(strange)), None, "{strange:?}");
        }
    }

    /// The same controllers, whichever way they are found.
    #[test]
    fn both_ways_find_the_same_hierarchies() {
        let sorted = |mounts: Vec<Mount>| {
            let mut points: Vec<String> = mounts.into_iter().map(|mount| mount.point).collect();
            points.sort_unstable();
            points
        };
        let mounted = sorted(mounted().unwrap());
        if let Some(usual) = usual() {
            let usual = sorted(usual);
            // A place may be there with nothing mounted on it.
            assert!(
                mounted.iter().all(|point| usual.contains(point)),
                "{mounted:?} {usual:?}"
            );
        }
    }
}
