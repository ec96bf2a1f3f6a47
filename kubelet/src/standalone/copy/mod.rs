//! `berth cp`: files into a container and out of it, by descriptors.
//!
//! What a container holds, or does while it is copied, must not make anything be read or written elsewhere. So nothing is
//! looked up twice: the container's root is one descriptor, paths in it are resolved beneath that (openat2(2),
//! `RESOLVE_IN_ROOT`), and below the first place every entry is opened by its one name in a directory that is held, never
//! through a link. No program of the container takes part, and none need be there.

mod side;
#[cfg(test)]
mod tests;
mod tree;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

pub use self::side::Side;
use self::tree::{Copier, Target, reopen};

/// Why something can't be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A file or directory stands in the way.
    #[error("{}: {source}.", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It makes no sense.
    #[error("{0}")]
    Refused(String),
}

/// Copies a file, or a directory with all that is in it, as `cp -r` does: into a directory that is there, or under the
/// name that is given. `warn` is told of what is left out.
///
/// # Errors
/// The first thing that can't be copied.
pub fn copy(from: Side<'_>, to: Side<'_>, warn: &mut dyn FnMut(&str)) -> Result<(), CopyError> {
    let source = from
        .place(from.path())?
        .ok_or_else(|| failed(from.path(), Errno::NOENT))?;
    let stat = fstat(&source).map_err(|error| failed(from.path(), error))?;
    let mut copier = Copier {
        owner: to.owner(),
        warn,
    };
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let contents_only = from.path().as_os_str().as_bytes().ends_with(b"/.") || from.path() == Path::new(".");
    let shown = from.path().to_owned();
    if let Some(there) = to.place(to.path())? {
        let kind = fstat(&there).map_err(|error| failed(to.path(), error))?.st_mode;
        if FileType::from_raw_mode(kind) == FileType::Directory {
            if is_directory && contents_only {
                return copier.contents(&source, &there, &shown, 1);
            }
            let name = from.path().file_name().ok_or_else(|| unnamed(from.path()))?;
            return copier.entry(
                source,
                &stat,
                Target {
                    directory: &there,
                    name,
                    shown: &shown,
                    depth: 0,
                },
            );
        }
        if is_directory {
            return Err(CopyError::Refused(format!(
                "{} is a directory, and {} is none.",
                from.path().display(),
                to.path().display()
            )));
        }
        // Written where it is, as a file that others have open or that is a mount of its own.
        let file = reopen(&there, true).map_err(|error| failed(to.path(), error))?;
        return copier.file(&source, &stat, file, &shown);
    }
    let name = to.path().file_name().ok_or_else(|| unnamed(to.path()))?;
    let parent = match to.path().parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let there = to.place(parent)?.ok_or_else(|| failed(parent, Errno::NOENT))?;
    let target = Target {
        directory: &there,
        name,
        shown: &shown,
        depth: 0,
    };
    copier.entry(source, &stat, target)
}

fn unnamed(path: &Path) -> CopyError {
    CopyError::Refused(format!("{} has no name of its own.", path.display()))
}

fn failed(path: &Path, error: impl Into<io::Error>) -> CopyError {
    CopyError::File {
        path: path.to_owned(),
        source: error.into(),
    }
}
