//! `local`: a directory or a block device of the host that is a PersistentVolume.

use std::os::fd::AsFd;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::LocalVolumeSource;
use rustix::fs::FileType;

use super::beneath::kind_and_mode;
use super::{VolumeError, block};

/// Where the volume is.
pub(super) fn path(source: &LocalVolumeSource) -> PathBuf {
    PathBuf::from(&source.path)
}

/// Looks whether the directory is there.
pub(super) fn check(source: &LocalVolumeSource) -> Result<(), VolumeError> {
    let path = path(source);
    let found = block::open(&path).map_err(VolumeError::io("look at", &path))?;
    check_kind(source, &found, false)
}

/// Whether what is there is what it has to be: a block device, or a directory. As upstream, no device is made of a file.
pub(super) fn check_kind(
    source: &LocalVolumeSource,
    found: &impl AsFd,
    block: bool,
) -> Result<(), VolumeError> {
    let path = path(source);
    let (kind, _) = kind_and_mode(found.as_fd()).map_err(VolumeError::io("look at", &path))?;
    let why = match (block, kind) {
        (true, FileType::BlockDevice) | (false, FileType::Directory) => return Ok(()),
        (true, FileType::RegularFile) => {
            "is a file, and its volumeMode is Block: make a device of it with `losetup -f --show` and give that"
        }
        (true, _) => "is no block device, and its volumeMode is Block",
        (false, FileType::BlockDevice) => {
            "is a block device: mount it and give the directory, or say volumeMode: Block"
        }
        (false, _) => "is no directory",
    };
    Err(VolumeError::Unsupported(format!(
        "the local volume {} {why}",
        path.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_device_as_the_mode_says() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let source = |path: &std::path::Path| LocalVolumeSource {
            path: path.display().to_string(),
            fs_type: None,
        };
        check(&source(dir.path())).unwrap();
        let error = |path: &std::path::Path| check(&source(path)).unwrap_err().to_string();
        assert!(error(&dir.path().join("absent")).contains("absent"));
        assert!(error(std::path::Path::new("/dev/null")).contains("no directory"));
        let block = |path: &std::path::Path| {
            let found = block::open(path).unwrap();
            check_kind(&source(path), &found, true).unwrap_err().to_string()
        };
        assert!(block(dir.path()).contains("no block device"));
        assert!(block(&file).contains("losetup"));
    }
}
