//! Locks between the berth processes of one machine: `flock` on files of the state directory.
//!
//! The kernel gives a lock back when its holder dies, so there is no such thing as a stale lock.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Shared with other shared holders.
    pub(crate) fn shared(path: &Path) -> io::Result<Lock> {
        Lock::take(path, FlockOperation::LockShared)
    }

    /// Held by nobody else.
    pub(crate) fn exclusive(path: &Path) -> io::Result<Lock> {
        Lock::take(path, FlockOperation::LockExclusive)
    }

    /// Whether somebody holds it, or waits for it to be free of an exclusive holder.
    pub(crate) fn is_taken(path: &Path) -> bool {
        // One that is not there is nobody's.
        let file = OpenOptions::new().write(true).open(path);
        file.is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err())
    }

    fn take(path: &Path, operation: FlockOperation) -> io::Result<Lock> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        wait(&file, operation)?;
        Ok(Lock { _file: file })
    }

    /// Locks a directory exclusively, making it if need be. A directory that its last holder removed meanwhile is
    /// made again.
    pub(crate) fn directory(path: &Path) -> io::Result<Lock> {
        use std::os::unix::fs::MetadataExt;
        loop {
            fs::create_dir_all(path)?;
            let file = match File::open(path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e),
            };
            wait(&file, FlockOperation::LockExclusive)?;
            let held = file.metadata()?;
            match fs::metadata(path) {
                Ok(now) if (now.dev(), now.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Lock { _file: file });
                }
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
    }
}

fn wait(file: &File, operation: FlockOperation) -> io::Result<()> {
    loop {
        match flock(file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}
