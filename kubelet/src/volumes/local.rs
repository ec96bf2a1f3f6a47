//! `local`: a directory or a block device of the host that is a PersistentVolume.

use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::LocalVolumeSource;

use super::VolumeError;

/// Where the volume is.
pub(super) fn path(source: &LocalVolumeSource) -> PathBuf {
    PathBuf::from(&source.path)
}

/// Looks whether it is there, and what it has to be.
pub(super) fn check(source: &LocalVolumeSource, block: bool) -> Result<(), VolumeError> {
    let path = path(source);
    let metadata = std::fs::metadata(&path).map_err(VolumeError::io("look at", &path))?;
    let kind = metadata.file_type();
    match (block, kind.is_dir(), kind.is_block_device()) {
        (true, _, true) | (false, true, _) => Ok(()),
        (true, ..) => Err(VolumeError::Unsupported(format!(
            "the local volume {} is no block device, and its volumeMode is Block",
            path.display()
        ))),
        (false, _, true) => Err(VolumeError::Unsupported(format!(
            "the local volume {} is a block device: mount it and give the directory, or say volumeMode: Block",
            path.display()
        ))),
        (false, ..) => Err(VolumeError::Unsupported(format!(
            "the local volume {} is no directory",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_a_device_as_the_mode_says() {
        let dir = tempfile::tempdir().unwrap();
        let source = |path: &std::path::Path| LocalVolumeSource {
            path: path.display().to_string(),
            fs_type: None,
        };
        check(&source(dir.path()), false).unwrap();
        let error = |path: &std::path::Path, block| check(&source(path), block).unwrap_err().to_string();
        assert!(error(dir.path(), true).contains("no block device"));
        assert!(error(&dir.path().join("absent"), false).contains("absent"));
        assert!(error(std::path::Path::new("/dev/null"), false).contains("no directory"));
    }
}
