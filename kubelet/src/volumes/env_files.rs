//! Reading the files that environment variables come from. A container wrote them: they may be anything.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;
use rustix::fs::{FileType, OFlags};

use super::{PodDir, beneath, empty_dir};
use crate::env_file::{self, EnvFiles, Unread};

/// What is longer is not read.
const MAX_FILE: u64 = 1 << 20;

/// The files that the pod's containers want variables from, as they are now.
pub(crate) fn env_files(pod: &Pod, dir: &PodDir) -> EnvFiles {
    let wanted = env_file::wanted(pod).into_iter();
    wanted
        .map(|selector| {
            let volume = empty_dir::path_in(dir, &selector.volume_name);
            let text = read(&volume, Path::new(&selector.path)).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Unread::Missing,
                _ => Unread::Because(error.to_string()),
            });
            ((selector.volume_name, selector.path), text)
        })
        .collect()
}

/// Links are followed as long as they stay in the volume; a pipe is not waited for.
fn read(volume: &Path, path: &Path) -> io::Result<String> {
    let root = beneath::open_dir(volume)?;
    let file = beneath::open(
        root.as_fd(),
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    )?;
    if beneath::kind_and_mode(file.as_fd())?.0 != FileType::RegularFile {
        return Err(io::Error::other("it is no ordinary file"));
    }
    let mut text = String::new();
    // Not an hour for a file that grows meanwhile.
    File::from(file).take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_files_of_the_volume_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("volume");
        std::fs::create_dir(&volume).unwrap();
        std::fs::write(dir.path().join("secret"), "A='secret'").unwrap();
        std::fs::write(volume.join("file"), "A='x'").unwrap();
        std::fs::write(volume.join("large"), vec![b'#'; 1 + (1 << 20)]).unwrap();
        std::fs::write(volume.join("bytes"), [0xff]).unwrap();
        symlink("file", volume.join("link")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        symlink("/etc/passwd", volume.join("root")).unwrap();
        nix::unistd::mkfifo(&volume.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = |path: &str| read(&volume, Path::new(path));
        assert_eq!(found("file").unwrap(), "A='x'");
        assert_eq!(found("link").unwrap(), "A='x'");
        assert_eq!(found("none").unwrap_err().kind(), io::ErrorKind::NotFound);
        for bad in ["out", "root", "pipe", ".", "large", "bytes", "../secret"] {
            assert_ne!(found(bad).unwrap_err().kind(), io::ErrorKind::NotFound, "{bad}");
        }
    }
}
