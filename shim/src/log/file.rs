//! The live log file: it only ever holds whole lines, also after a write that a full disk cut short.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use memchr::memrchr;
use rustix::fs::{fstat, ftruncate};
use rustix::io::Errno;

use super::place::Place;
use super::rotate::{self, Rotator};

/// An open log file and its directory.
pub(super) struct LogFile {
    place: Place,
    file: OwnedFd,
    size: u64,
    rotator: Rotator,
}

/// A write that the file system cut short.
pub(super) struct ShortWrite {
    /// How many bytes, in whole lines, are in the file nevertheless.
    pub(super) kept: usize,
    /// Why not the rest.
    pub(super) error: io::Error,
}

impl LogFile {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let place = Place::open(path)?;
        let file = place.file()?;
        let size = size_of(&file)?;
        Ok(Self {
            place,
            file,
            size,
            rotator: Rotator::default(),
        })
    }

    /// How long the file is.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Appends whole lines. After an error the file ends with a whole line.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), ShortWrite> {
        let mut written = 0;
        while written < lines.len() {
            match rustix::io::write(&self.file, &lines[written..]) {
                Ok(0) => return Err(self.cut_back(lines, written, io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.cut_back(lines, written, error.into())),
            }
        }
        self.size += written as u64;
        Ok(())
    }

    fn cut_back(&mut self, lines: &[u8], written: usize, error: io::Error) -> ShortWrite {
        let kept = memrchr(b'\n', &lines[..written]).map_or(0, |at| at + 1);
        self.size += kept as u64;
        if kept < written && ftruncate(&self.file, self.size).is_err() {
            // Then there is half a line in it, and its size is what it is.
            self.size += (written - kept) as u64;
        }
        ShortWrite { kept, error }
    }

    /// Starts a new file and keeps `keep` old ones.
    pub(super) fn rotate(&mut self, now: u64, keep: usize) -> io::Result<()> {
        let dir = self.place.dir.as_fd();
        match self.rotator.set_aside(dir, &self.place.name, now) {
            // Somebody deleted or moved it: there is nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            done => done?,
        }
        self.file = self.place.file()?;
        self.size = size_of(&self.file)?;
        rotate::prune(self.place.dir.as_fd(), &self.place.name, keep)
    }
}

fn size_of(file: &OwnedFd) -> io::Result<u64> {
    Ok(u64::try_from(fstat(file)?.st_size).unwrap_or(0))
}
