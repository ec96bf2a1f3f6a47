//! One owner per pod: a lock that a pod's name is held by while a program runs it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::sync::oneshot;

use crate::volumes::make_private_dirs;

/// Why a pod can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another program has it.
    #[error(
        "Pod {namespace}/{name} is already run by process {owner}: `berth stop {namespace}/{name}` ends it, `berth apply` changes it."
    )]
    Taken {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
        /// The other program's process id, as far as it is known.
        owner: String,
    },
    /// The lock file can't be had.
    #[error("The lock file {} can't be had: {source}.", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of the locks.
const DIRECTORY: &str = "pod-locks";
/// The daemon's; no pod's has this name.
const DAEMON: &str = "daemon.lock";

fn file_of(namespace: &str, name: &str) -> String {
    format!("{namespace}_{name}.lock")
}

fn read_owner(kubelet_root: &Path, file: &str) -> Option<u32> {
    let path = kubelet_root.join(DIRECTORY).join(file);
    std::fs::read_to_string(path).ok()?.parse().ok()
}

/// Why a lock can't be had.
enum Refused {
    /// That process has it.
    Taken(String),
    Io(LockError),
}

/// A pod's name, held until this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct PodLock {
    path: PathBuf,
    _held: Flock<File>,
}

impl PodLock {
    /// The process that says it has the pod. Nothing is locked to find out, so that nobody who wants the pod is kept from
    /// it; whether the process lives is another question.
    pub(super) fn owner(kubelet_root: &Path, namespace: &str, name: &str) -> Option<u32> {
        read_owner(kubelet_root, &file_of(namespace, name))
    }

    /// The process that says it is the node's daemon.
    pub(super) fn daemon(kubelet_root: &Path) -> Option<u32> {
        read_owner(kubelet_root, DAEMON)
    }

    /// Becomes the daemon of the node; `None` if there is one.
    pub(super) fn take_daemon(kubelet_root: &Path) -> Result<Option<Self>, LockError> {
        match Self::take_file(kubelet_root, DAEMON, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(lock)),
            Err(Refused::Taken(_)) => Ok(None),
            Err(Refused::Io(error)) => Err(error),
        }
    }

    /// Becomes the daemon as soon as there is no other.
    pub(super) async fn wait_to_be_daemon(kubelet_root: &Path) -> Result<Self, LockError> {
        Self::wait_for(kubelet_root, DAEMON.to_owned()).await
    }

    /// Takes the pod `namespace/name` as soon as nobody else has it.
    pub(super) async fn wait(kubelet_root: &Path, namespace: &str, name: &str) -> Result<Self, LockError> {
        Self::wait_for(kubelet_root, file_of(namespace, name)).await
    }

    /// The kernel tells only who waits in flock(2) that a lock is free, so a thread does. If nobody waits for that any more,
    /// it lets go of what it gets; it ends with the process at the latest.
    async fn wait_for(kubelet_root: &Path, file: String) -> Result<Self, LockError> {
        let (path, root) = (kubelet_root.join(DIRECTORY).join(&file), kubelet_root.to_owned());
        let failed = |source| LockError::Io { path, source };
        let (sender, receiver) = oneshot::channel();
        let wait = move || {
            let _ = sender.send(Self::take_file(&root, &file, FlockArg::LockExclusive));
        };
        let thread = std::thread::Builder::new().name("lock".to_owned());
        match thread.spawn(wait) {
            Ok(_) => match receiver.await {
                Ok(Ok(lock)) => Ok(lock),
                Ok(Err(Refused::Io(error))) => Err(error),
                // Neither can be of who waits.
                Ok(Err(Refused::Taken(_))) | Err(_) => Err(failed(io::ErrorKind::WouldBlock.into())),
            },
            Err(error) => Err(failed(error)),
        }
    }

    /// Takes the pod `namespace/name` of the node whose kubelet directory is `kubelet_root`.
    pub(super) fn take(kubelet_root: &Path, namespace: &str, name: &str) -> Result<Self, LockError> {
        let file = file_of(namespace, name);
        let taken = Self::take_file(kubelet_root, &file, FlockArg::LockExclusiveNonblock);
        taken.map_err(|refused| match refused {
            Refused::Taken(owner) => LockError::Taken {
                namespace: namespace.into(),
                name: name.into(),
                owner,
            },
            Refused::Io(error) => error,
        })
    }

    fn take_file(kubelet_root: &Path, file: &str, how: FlockArg) -> Result<Self, Refused> {
        let directory = kubelet_root.join(DIRECTORY);
        let path = directory.join(file);
        let failed = |source| {
            Refused::Io(LockError::Io {
                path: path.clone(),
                source,
            })
        };
        loop {
            make_private_dirs(&directory).map_err(failed)?;
            let file = match File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)
            {
                // The last holder took the directory with it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                result => result.map_err(failed)?,
            };
            let held = match Flock::lock(file, how) {
                Ok(held) => held,
                Err((_, Errno::EINTR)) => continue,
                Err((mut file, Errno::EWOULDBLOCK)) => {
                    let mut owner = String::new();
                    let known = file.read_to_string(&mut owner).is_ok() && !owner.is_empty();
                    let owner = if known { owner } else { "?".to_owned() };
                    return Err(Refused::Taken(owner));
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            };
            // The last holder may have removed the file between our open and our lock.
            if is_at(&held, &path) {
                held.set_len(0)
                    .and_then(|()| write!(&*held, "{}", std::process::id()))
                    .map_err(failed)?;
                return Ok(PodLock { path, _held: held });
            }
        }
    }
}

impl Drop for PodLock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody removes the lock of the next holder.
        let _ = std::fs::remove_file(&self.path);
        if let Some(directory) = self.path.parent() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let first = PodLock::take(dir.path(), "default", "x").unwrap();
        let error = PodLock::take(dir.path(), "default", "x").unwrap_err();
        let expected = format!(
            "Pod default/x is already run by process {}: `berth stop default/x` ends it, `berth apply` changes it.",
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        let _other = PodLock::take(dir.path(), "default", "y").unwrap();
        drop(first);
        drop(PodLock::take(dir.path(), "default", "x").unwrap());
        drop(_other);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn who_waits_has_it_when_it_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let first = PodLock::take(dir.path(), "default", "x").unwrap();
        let (one, other) = (
            PodLock::wait(dir.path(), "default", "x"),
            PodLock::wait(dir.path(), "default", "x"),
        );
        tokio::pin!(one, other);
        for waiting in [&mut one, &mut other] {
            let soon = tokio::time::timeout(std::time::Duration::from_millis(50), waiting).await;
            assert!(soon.is_err(), "two have the same lock");
        }
        // Whose file goes with it.
        drop(first);
        let (second, third) = tokio::select! {
            second = &mut one => (second, other),
            second = &mut other => (second, one),
        };
        let second = second.unwrap();
        assert!(PodLock::take(dir.path(), "default", "x").is_err());
        drop(second);
        drop(third.await.unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
