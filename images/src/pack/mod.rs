//! From an overlay's writable layer to a layer's archive, and other archives of files.

mod layer;
pub(crate) mod tar;

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};

use crate::unpack::{TarEntry, TarKind};
use tar::TarWriter;

pub use layer::layer;

/// An archive of plain files, which only root may read.
pub struct Archive<W>(TarWriter<W>);

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(to: W) -> Self {
        Self(TarWriter::new(to))
    }

    /// Adds a directory.
    ///
    /// # Errors
    /// The archive can't be written.
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.0.add_empty(&TarEntry {
            name: format!("{name}/").into_bytes(),
            mode: 0o700,
            ..TarEntry::of(TarKind::Directory)
        })
    }

    /// Adds a file with these bytes.
    ///
    /// # Errors
    /// As [`Archive::directory`].
    pub fn bytes(&mut self, name: &str, mut bytes: &[u8]) -> io::Result<()> {
        let size = bytes.len() as u64;
        self.0.add(&plain(name), &mut bytes, size)
    }

    /// Adds a copy of a regular file, which is not behind a symbolic link.
    ///
    /// # Errors
    /// As [`Archive::directory`], or when the file can't be read.
    pub fn file(&mut self, name: &str, path: &Path) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = File::from(open(path, flags, Mode::empty())?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            let why = format!("{} is no regular file", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
        }
        self.0.add(&plain(name), &mut file, metadata.len())
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// As [`Archive::directory`].
    pub fn finish(self) -> io::Result<W> {
        self.0.finish()
    }
}

fn plain(name: &str) -> TarEntry {
    TarEntry {
        name: name.as_bytes().to_vec(),
        mode: 0o600,
        ..TarEntry::of(TarKind::Regular)
    }
}
