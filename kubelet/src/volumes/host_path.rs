//! `hostPath`: a file or directory of the host. It is the host's: only what is missing is made, nothing is removed.

use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::HostPathVolumeSource;

use super::VolumeError;

/// Where the volume is.
pub(super) fn path(source: &HostPathVolumeSource) -> PathBuf {
    PathBuf::from(&source.path)
}

/// Checks the path against its type, and makes what the type says is to be made.
pub(super) fn set_up(source: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = path(source);
    match source.type_.as_deref().unwrap_or_default() {
        // Unchecked; a missing path becomes a directory, as container runtimes do for a missing source of a bind mount.
        "" => match kind(&path)? {
            Some(_) => Ok(()),
            None => make_directory(&path),
        },
        "DirectoryOrCreate" => match kind(&path)? {
            Some(kind) => expect(kind.is_dir(), &path, "a directory"),
            None => make_directory(&path),
        },
        "Directory" => check(&path, "a directory", |kind| kind.is_dir()),
        "FileOrCreate" => match kind(&path)? {
            Some(kind) => expect(kind.is_file(), &path, "a file"),
            None => make_file(&path),
        },
        "File" => check(&path, "a file", |kind| kind.is_file()),
        "Socket" => check(&path, "a socket", |kind| kind.is_socket()),
        "CharDevice" => check(&path, "a character device", |kind| kind.is_char_device()),
        "BlockDevice" => check(&path, "a block device", |kind| kind.is_block_device()),
        other => Err(VolumeError::Unsupported(format!(
            "hostPath type \"{other}\" is not one"
        ))),
    }
}

fn kind(path: &Path) -> Result<Option<std::fs::FileType>, VolumeError> {
    match std::fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.file_type())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VolumeError::io("look at", path)(error)),
    }
}

fn check(
    path: &Path,
    expected: &'static str,
    is: impl FnOnce(std::fs::FileType) -> bool,
) -> Result<(), VolumeError> {
    expect(kind(path)?.is_some_and(is), path, expected)
}

fn expect(holds: bool, path: &Path, expected: &'static str) -> Result<(), VolumeError> {
    if holds {
        Ok(())
    } else {
        Err(VolumeError::HostPathType {
            path: path.to_owned(),
            expected,
        })
    }
}

fn make_directory(path: &Path) -> Result<(), VolumeError> {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)))
        .map_err(VolumeError::io("make the directory", path))
}

fn make_file(path: &Path) -> Result<(), VolumeError> {
    match std::fs::File::options()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(path)
    {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(VolumeError::io("make the file", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path, kind: &str) -> HostPathVolumeSource {
        HostPathVolumeSource {
            path: path.display().to_string(),
            type_: Some(kind.to_owned()),
        }
    }

    #[test]
    fn every_type_takes_its_own_and_refuses_others() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "").unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let null = PathBuf::from("/dev/null");
        let absent = dir.path().join("absent");
        let table: &[(&str, &Path, &[&Path])] = &[
            ("Directory", dir.path(), &[&file, &socket, &null, &absent]),
            ("DirectoryOrCreate", dir.path(), &[&file, &socket, &null]),
            ("File", &file, &[dir.path(), &socket, &null, &absent]),
            ("FileOrCreate", &file, &[dir.path(), &socket, &null]),
            ("Socket", &socket, &[dir.path(), &file, &null, &absent]),
            ("CharDevice", &null, &[dir.path(), &file, &socket, &absent]),
            ("BlockDevice", &absent, &[]),
        ];
        for (kind, good, bad) in table {
            if *kind != "BlockDevice" {
                set_up(&source(good, kind)).unwrap();
            }
            for path in *bad {
                assert!(
                    set_up(&source(path, kind)).is_err(),
                    "{kind} took {}",
                    path.display()
                );
            }
        }
        assert!(set_up(&source(&absent, "BlockDevice")).is_err());
        assert!(set_up(&source(&absent, "Unheard")).is_err());
    }

    #[test]
    fn what_is_missing_is_made_where_the_type_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        let made = dir.path().join("a/b");
        set_up(&source(&made, "DirectoryOrCreate")).unwrap();
        assert_eq!(mode(&made), 0o755);
        let file = dir.path().join("f");
        set_up(&source(&file, "FileOrCreate")).unwrap();
        assert_eq!(mode(&file), 0o644);
        assert!(set_up(&source(&dir.path().join("no/f"), "FileOrCreate")).is_err());
    }
}
