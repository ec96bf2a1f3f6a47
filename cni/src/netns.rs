//! Network namespaces.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};

/// Which namespace it is, whatever path leads to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NetNsId {
    dev: u64,
    ino: u64,
    /// Numbers are given anew after a reboot.
    boot: String,
}

/// A network namespace, kept alive by its descriptor.
#[derive(Debug)]
pub(crate) struct NetNs {
    file: File,
    path: PathBuf,
}

impl NetNs {
    pub(crate) fn open(path: &Path) -> io::Result<NetNs> {
        Ok(NetNs {
            file: File::open(path)?,
            path: path.to_owned(),
        })
    }

    /// The calling thread's: the host's.
    pub(crate) fn own() -> io::Result<NetNs> {
        NetNs::open(Path::new("/proc/thread-self/ns/net"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn id(&self) -> io::Result<NetNsId> {
        let metadata = self.file.metadata()?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(NetNsId {
            dev: metadata.dev(),
            ino: metadata.ino(),
            boot: boot.trim().to_owned(),
        })
    }

    /// Runs `work` inside, on a thread of its own that never returns to another use.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
                Ok(work())
            });
            inside
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace died")))
        })
    }
}
