//! Where criu keeps its images and writes its log.

use std::io::{Read, Seek};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::arguments::Arguments;
use crate::failure::{Attempt, Failure, usage};

/// Where criu's files are.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Their path.
    pub(crate) path: PathBuf,
    pub(crate) images: OwnedFd,
    pub(super) work: Option<OwnedFd>,
    /// Where its log is.
    log: PathBuf,
}

impl Directories {
    /// Opens what `--image-path` and `--work-path` name, and makes what of it is missing.
    pub(crate) fn open(arguments: &Arguments) -> Result<Directories, Failure> {
        let path = arguments
            .path("image-path")
            .unwrap_or_else(|| PathBuf::from("checkpoint"));
        let work = arguments.path("work-path");
        Ok(Directories {
            images: open(&path)?,
            log: work.clone().unwrap_or_else(|| path.clone()),
            work: work.as_deref().map(open).transpose()?,
            path,
        })
    }

    /// What criu's log says of errors, to be told with a failure.
    pub(crate) fn explain(&self, failure: Failure, log: &str) -> Failure {
        const LONGEST: i64 = 256 * 1024;
        const LINES: usize = 3;
        let path = self.log.join(log);
        let mut text = Vec::new();
        if let Ok(mut file) = std::fs::File::open(&path) {
            let _ = file.seek(std::io::SeekFrom::End(-LONGEST));
            let _ = file.take(LONGEST.unsigned_abs()).read_to_end(&mut text);
        }
        let text = String::from_utf8_lossy(&text);
        // The first are often about what was only tried, the last is that it failed.
        let errors: Vec<&str> = text.lines().filter(|line| line.contains("Error")).collect();
        let last = &errors[errors.len().saturating_sub(LINES)..];
        if last.is_empty() {
            return failure;
        }
        let message = failure.message.trim_end_matches('.');
        usage(format!(
            "{message}; its log {} says: {}.",
            path.display(),
            last.join("; ")
        ))
    }
}

fn open(path: &Path) -> Result<OwnedFd, Failure> {
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::DirBuilderExt;
    let doing = || format!("make the directory {}", path.display());
    // Restored processes of a user namespace look for images by name; what is in those only root may read.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(path)
        .attempt(doing)?;
    // criu, which is given its number, opens it through this process's /proc.
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .attempt(|| format!("open {}", path.display()))
}
