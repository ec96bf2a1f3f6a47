//! Waiting until something in a directory changes, by inotify(7). Whoever runs a pod writes its status, its events and its
//! logs to files; so who only looks needs nobody's help, and goes on when the program that runs the pod is killed.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use tokio::net::unix::pipe;

/// Directories that are watched. They may come and go.
#[derive(Debug)]
pub(crate) struct Watch {
    /// An inotify descriptor reads as a pipe does.
    inotify: pipe::Receiver,
    directories: Vec<PathBuf>,
}

impl Watch {
    /// Nothing is seen before the first [`arm`](Self::arm).
    pub(crate) fn new(directories: Vec<PathBuf>) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        Ok(Self {
            inotify: pipe::Receiver::from_owned_fd_unchecked(inotify)?,
            directories,
        })
    }

    /// Watches from now on. To be called before each look at what is watched: a directory that is not there yet is
    /// watched for by way of the nearest one above it, and the watch of one that went has gone with it.
    pub(crate) fn arm(&self) -> io::Result<()> {
        self.directories
            .iter()
            .try_for_each(|directory| self.watch(directory))
    }

    fn watch(&self, directory: &Path) -> io::Result<()> {
        let changes = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF;
        for place in directory.ancestors() {
            match inotify::add_watch(&self.inotify, place, changes) {
                Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
                // It may have come between the failure and the watch of the one above it.
                Ok(_) if place != directory && directory.exists() => return self.watch(directory),
                Ok(_) => return Ok(()),
            }
        }
        Ok(())
    }

    /// Returns when something has changed since [`arm`](Self::arm).
    pub(crate) async fn changed(&self) -> io::Result<()> {
        let mut events = [0; 4096];
        loop {
            self.inotify.readable().await?;
            let mut seen = false;
            loop {
                match self.inotify.try_read(&mut events) {
                    Ok(_) => seen = true,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            if seen {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn changed(watch: &Watch) -> bool {
        timeout(Duration::from_secs(10), watch.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn directories_are_seen_to_come_to_change_and_to_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a/b");
        let watch = Watch::new(vec![place.clone()]).unwrap();
        watch.arm().unwrap();
        std::fs::create_dir_all(&place).unwrap();
        assert!(changed(&watch).await);
        watch.arm().unwrap();
        std::fs::write(place.join("file"), "1").unwrap();
        assert!(changed(&watch).await);
        watch.arm().unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        assert!(changed(&watch).await);
        watch.arm().unwrap();
        std::fs::create_dir(&place).unwrap();
        assert!(changed(&watch).await);
    }

    #[tokio::test]
    async fn what_happened_before_the_wait_ends_it() {
        let dir = tempfile::tempdir().unwrap();
        let watch = Watch::new(vec![dir.path().to_owned()]).unwrap();
        watch.arm().unwrap();
        std::fs::write(dir.path().join("file"), "1").unwrap();
        watch.arm().unwrap();
        assert!(changed(&watch).await);
    }
}
