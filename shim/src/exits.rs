//! Exit records on disk: they outlive the shim, so that an engine that was away still learns how a container ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::{EXITS_DIR, ExitRecord};

/// The directory of a sandbox's exit records.
pub(crate) struct Exits {
    dir: PathBuf,
}

impl Exits {
    /// Makes the directory if need be.
    pub(crate) fn open(sandbox: &Path) -> io::Result<Self> {
        let dir = sandbox.join(EXITS_DIR);
        fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    /// Puts the record in place whole or not at all. It need not survive the machine: nothing that it speaks of does.
    pub(crate) fn write(&self, record: &ExitRecord) -> io::Result<()> {
        let temporary = self.dir.join(format!(".{}.tmp", record.container));
        let written = fs::write(&temporary, serde_json::to_vec(record)?);
        written
            .and_then(|()| fs::rename(&temporary, self.path(&record.container)))
            .inspect_err(|_| {
                // On a full disk the file was made, and nothing fits into it.
                let _ = fs::remove_file(&temporary);
            })
    }

    /// Forgets the record; none is fine.
    pub(crate) fn remove(&self, container: &str) -> io::Result<()> {
        match fs::remove_file(self.path(container)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, container: &str) -> PathBuf {
        self.dir.join(format!("{container}.json"))
    }
}
