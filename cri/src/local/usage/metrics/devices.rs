//! Names of block devices and the file system that writable layers are on.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor, statvfs};

/// The names of block devices, as they were asked for.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<(u64, u64), String>);

impl Devices {
    /// `/dev/vda`, or an empty name for what is no block device of this kernel.
    pub(super) fn name(&mut self, major: u64, minor: u64) -> &str {
        self.0.entry((major, minor)).or_insert_with(|| {
            let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}"));
            let name = link.ok().and_then(|link| Some(link.file_name()?.to_owned()));
            name.map(|name| format!("/dev/{}", name.to_string_lossy()))
                .unwrap_or_default()
        })
    }
}

/// A file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FileSystem {
    /// Where it is, or what it is called if it is on no device.
    pub(super) device: String,
    pub(super) bytes: u64,
    pub(super) inodes: u64,
    pub(super) inodes_free: u64,
}

impl FileSystem {
    /// The file system that a directory is on.
    pub(super) fn of(directory: &Path, devices: &mut Devices) -> Option<Self> {
        let number = fs::metadata(directory).ok()?.dev();
        let (major, minor) = (u64::from(major(number)), u64::from(minor(number)));
        let mut device = devices.name(major, minor).to_owned();
        if device.is_empty() {
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            device = source(&mounts, major, minor).unwrap_or_default().to_owned();
        }
        let about = statvfs(directory).ok()?;
        Some(Self {
            device,
            bytes: about.f_blocks.saturating_mul(about.f_frsize),
            inodes: about.f_files,
            inodes_free: about.f_ffree,
        })
    }
}

/// What mountinfo (proc(5)) says that a file system was mounted from.
fn source(mounts: &str, major: u64, minor: u64) -> Option<&str> {
    let number = format!("{major}:{minor}");
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(2) == Some(number.as_str()))?;
    let (_, after) = line.split_once(" - ")?;
    after.split(' ').nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_of_a_mount() {
        let mounts = "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      23 22 0:5 / /dev rw - devtmpfs none rw\n\
                      24 22 0:50 / /a rw master:1 shared:2 - overlay store rw,lowerdir=/x - y\n";
        assert_eq!(source(mounts, 254, 0), Some("/dev/vda"));
        assert_eq!(source(mounts, 0, 50), Some("store"));
        assert_eq!(source(mounts, 0, 51), None);
    }

    #[test]
    fn a_directorys_file_system() {
        let mut devices = Devices::default();
        let found = FileSystem::of(Path::new("/"), &mut devices).unwrap();
        assert!(found.bytes > 0 && !found.device.is_empty(), "{found:?}");
        assert!(found.inodes_free <= found.inodes);
        assert_eq!(FileSystem::of(Path::new("/no/such"), &mut devices), None);
        assert_eq!(devices.name(0, 9999), "");
    }
}
