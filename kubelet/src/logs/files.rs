//! A container's log on disk: the live file and the ones rotated away from under it.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A log file, recognised by its inode whatever it is called now. As long as it is open, its inode number can't be
/// given to another file.
#[derive(Debug)]
pub(crate) struct LogFile {
    pub(crate) file: File,
    inode: u64,
}

impl LogFile {
    /// Opens a log file. A symbolic link in its place is refused: a container that can write to the log directory
    /// must not be able to show us another file of the host.
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other(format!(
                "{} is not a regular file.",
                path.display()
            )));
        }
        Ok(LogFile {
            inode: metadata.ino(),
            file,
        })
    }

    /// Opens the live file, or `None` when there is none yet.
    pub(crate) fn open_live(live: &Path) -> io::Result<Option<Self>> {
        absent_is_none(Self::open(live))
    }

    /// Opens the live file after what is in it already.
    pub(crate) fn open_live_at_end(live: &Path) -> io::Result<Option<Self>> {
        let mut opened = Self::open_live(live)?;
        if let Some(opened) = &mut opened {
            opened.file.seek(SeekFrom::End(0))?;
        }
        Ok(opened)
    }

    /// The file that came right after this one, if this one was rotated away; the oldest one there is if this one has
    /// been deleted meanwhile.
    pub(crate) fn next(&self, live: &Path) -> io::Result<Option<Self>> {
        open_settled(|| {
            let sequence = sequence(live)?;
            let at = sequence.iter().position(|(inode, _)| *inode == self.inode);
            Ok(sequence.into_iter().nth(at.map_or(0, |at| at + 1)))
        })
    }
}

/// The oldest log file of a container that is still there.
pub(crate) fn oldest(live: &Path) -> io::Result<Option<LogFile>> {
    open_settled(|| Ok(sequence(live)?.into_iter().next()))
}

/// Opens what is found twice. While files are renamed, a listing may miss one, or have the live file that came after one that it has
/// not; who is missed the first time is there the second. The file may also be renamed between listing and opening.
fn open_settled(find: impl Fn() -> io::Result<Option<(u64, PathBuf)>>) -> io::Result<Option<LogFile>> {
    loop {
        let Some((inode, path)) = find()? else {
            return Ok(None);
        };
        let opened = absent_is_none(LogFile::open(&path))?;
        if let Some(file) = opened.filter(|file| file.inode == inode)
            && find()?.is_some_and(|(again, _)| again == inode)
        {
            return Ok(Some(file));
        }
    }
}

/// Removes the live file and the ones rotated away.
pub fn remove(live: &Path) -> io::Result<()> {
    for (_, path) in sequence(live)? {
        absent_is_none(std::fs::remove_file(path))?;
    }
    Ok(())
}

/// Inode and path of each of the container's log files, the oldest first, the live one last. Rotated files are called
/// `<live>.<timestamp>`, and timestamps sort as text.
fn sequence(live: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let (Some(directory), Some(name)) = (live.parent(), live.file_name()) else {
        return Ok(Vec::new());
    };
    let mut prefix = name.to_os_string();
    prefix.push(".");
    let Some(entries) = absent_is_none(std::fs::read_dir(directory))? else {
        return Ok(Vec::new());
    };
    let mut rotated = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let is_rotated = path
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(prefix.as_encoded_bytes()));
        if is_rotated {
            rotated.push(path);
        }
    }
    rotated.sort();
    rotated.push(live.to_owned());
    let mut sequence = Vec::new();
    for path in rotated {
        if let Some(metadata) = absent_is_none(path.symlink_metadata())?
            && metadata.is_file()
        {
            sequence.push((metadata.ino(), path));
        }
    }
    Ok(sequence)
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
