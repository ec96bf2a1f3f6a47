//! Locks that processes share, by flock(2): the kernel drops them with their holder.

use std::fs::{File, OpenOptions};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::ImageError;

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock(#[allow(dead_code, reason = "held for its Drop")] File);

impl Lock {
    /// Waits for the lock. Blocking.
    pub(crate) fn exclusive(path: &Path) -> Result<Self, ImageError> {
        Self::take(path, FlockOperation::LockExclusive)
    }

    /// Waits until nobody has it alone. Blocking.
    pub(crate) fn shared(path: &Path) -> Result<Self, ImageError> {
        Self::take(path, FlockOperation::LockShared)
    }

    /// The lock, if nobody has it.
    pub(crate) fn try_exclusive(path: &Path) -> Result<Option<Self>, ImageError> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(ImageError::io("lock", path, &e.into())),
        }
    }

    fn take(path: &Path, operation: FlockOperation) -> Result<Self, ImageError> {
        let file = open(path)?;
        loop {
            match flock(&file, operation) {
                Ok(()) => return Ok(Self(file)),
                Err(Errno::INTR) => {}
                Err(e) => return Err(ImageError::io("lock", path, &e.into())),
            }
        }
    }
}

fn open(path: &Path) -> Result<File, ImageError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| ImageError::io("open the lock", path, &e))
}
