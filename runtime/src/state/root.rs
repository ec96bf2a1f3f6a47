//! Where the states of all containers are kept: making and finding that of one, and who works on it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

use super::StateDir;
use crate::check::check_id;
use crate::error::Doing;
use crate::{Error, Result};

/// Where the states of containers are kept.
#[derive(Clone, Debug)]
pub struct StateRoot(PathBuf);

impl StateRoot {
    /// A directory that keeps states; it is made when first needed.
    pub fn new(path: impl Into<PathBuf>) -> StateRoot {
        StateRoot(path.into())
    }

    /// Makes the directory of a new container.
    ///
    /// # Errors
    /// When the id is not usable or taken, or the kernel refuses.
    pub fn create(&self, id: &str) -> Result<StateDir> {
        check_id(id)?;
        let path = self.0.join(id);
        let doing = || format!("make the state directory {}", path.display());
        loop {
            let made = match make_private(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir_all(&self.0).doing(doing)?;
                    make_private(&path)
                }
                other => other,
            };
            match made {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(Error::invalid(
                        format!("the container's id {id:?}"),
                        "container with given ID already exists",
                    ));
                }
                other => other.doing(doing)?,
            }
            // Before it was locked, somebody may have deleted what had no owner yet.
            if let Some(state) = self.lock(id, &path, FlockOperation::LockExclusive)? {
                return Ok(state);
            }
        }
    }

    /// Opens and locks the directory of a container; waits while another command works on it.
    ///
    /// # Errors
    /// [`Error::NoContainer`], or when the kernel refuses.
    pub fn open(&self, id: &str) -> Result<StateDir> {
        self.open_with(id, FlockOperation::LockExclusive)
    }

    /// As [`StateRoot::open`], but `None` when it would have to wait.
    ///
    /// # Errors
    /// [`Error::NoContainer`], or when the kernel refuses.
    pub fn try_open(&self, id: &str) -> Result<Option<StateDir>> {
        match self.open_with(id, FlockOperation::NonBlockingLockExclusive) {
            Err(Error::System { source, .. }) if source.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    /// Opens the directory of a container for looking only, without waiting for commands that work on it.
    ///
    /// # Errors
    /// [`Error::NoContainer`], or when the kernel refuses.
    pub fn look(&self, id: &str) -> Result<StateDir> {
        self.open_with(id, FlockOperation::Unlock)
    }

    fn open_with(&self, id: &str, lock: FlockOperation) -> Result<StateDir> {
        check_id(id)?;
        let path = self.0.join(id);
        loop {
            if let Some(state) = self.lock(id, &path, lock)? {
                return Ok(state);
            }
            if !path.exists() {
                return Err(Error::NoContainer(id.to_owned()));
            }
        }
    }

    /// Opens and locks what is at `path` now; `None` when by then something else is, or nothing.
    fn lock(&self, id: &str, path: &Path, lock: FlockOperation) -> Result<Option<StateDir>> {
        let directory = match openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            other => File::from(other.doing(|| format!("open {}", path.display()))?),
        };
        flock(&directory, lock).doing(|| format!("lock {}", path.display()))?;
        // Whoever held the lock may have deleted the container; another one may have its id by now.
        let inode = |m: fs::Metadata| (m.dev(), m.ino());
        let (ours, now) = (
            directory.metadata().map(inode).ok(),
            fs::metadata(path).map(inode).ok(),
        );
        Ok((ours.is_some() && ours == now).then(|| StateDir {
            id: id.to_owned(),
            path: path.to_owned(),
            directory,
        }))
    }

    /// The ids of all containers, sorted.
    ///
    /// # Errors
    /// When the directory can't be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.doing(|| format!("read {}", self.0.display()))?,
        };
        let mut ids: Vec<String> = entries
            .flatten()
            .filter_map(|e| e.file_name().into_string().ok())
            .filter(|id| check_id(id).is_ok())
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }
}

/// Others have no business with sockets and states of containers.
fn make_private(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().mode(0o700).create(path)
}
