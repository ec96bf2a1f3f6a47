//! The archive of a checkpoint, as kubelets hand it out: the files and names that checkpointctl, CRI-O and containerd know.
//!
//! ```text
//! config.dump        what the container was made of
//! spec.dump          its OCI configuration
//! status.dump        its CRI status
//! dump.log stats-dump  what criu says of its work
//! container.log      what the container has printed
//! deleted.files      what it has removed of its image: a list of paths
//! rootfs-diff.tar    what it has changed of its image, as a layer
//! checkpoint/        criu's images
//! ```

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use berth_images::pack::Archive;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open, renameat, unlinkat};
use rustix::io::Errno;
use serde_json::Value;

use super::interest::Interest;

/// criu's images in the archive.
pub(in crate::local) const IMAGES: &str = "checkpoint";
pub(in crate::local) const ROOTFS_DIFF: &str = "rootfs-diff.tar";
pub(in crate::local) const DELETED_FILES: &str = "deleted.files";
pub(in crate::local) const CONFIG: &str = "config.dump";
pub(in crate::local) const SPEC: &str = "spec.dump";
pub(in crate::local) const STATUS: &str = "status.dump";

/// What goes into an archive.
pub(super) struct Parts<'a> {
    /// Small files that are made for it.
    pub(super) described: Vec<(&'static str, Value)>,
    /// Files as they are, which may be missing.
    pub(super) files: Vec<(&'static str, PathBuf)>,
    /// The directory of criu's images.
    pub(super) images: &'a Path,
}

/// Why there is no archive.
#[derive(Debug)]
pub(super) enum NotWritten {
    /// Nobody waits for it.
    Unwanted,
    /// The file system refused.
    Io(io::Error),
}

impl From<io::Error> for NotWritten {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes an archive and puts it at `location`, in the place of what is there, unless nobody waits for it any more.
/// Only root may read it. Upon failure nothing is left.
pub(super) fn write(parts: &Parts<'_>, location: &Path, interest: &Interest) -> Result<(), NotWritten> {
    let unseen = Unseen::new(location)?;
    {
        let mut archive = Archive::new(Careful {
            to: BufWriter::with_capacity(1 << 17, &unseen.file),
            interest,
        });
        for (name, value) in &parts.described {
            archive.bytes(name, &serde_json::to_vec_pretty(value).map_err(io::Error::from)?)?;
        }
        for (name, path) in &parts.files {
            match archive.file(name, path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        archive.directory(IMAGES)?;
        let mut images = fs::read_dir(parts.images)?.collect::<io::Result<Vec<_>>>()?;
        images.sort_unstable_by_key(fs::DirEntry::file_name);
        for image in images {
            let name = image.file_name();
            if image.file_type()?.is_file() {
                archive.file(&format!("{IMAGES}/{}", name.to_string_lossy()), &image.path())?;
            }
        }
        archive.finish()?.to.flush()?;
    }
    unseen.file.sync_all()?;
    if !interest.publish() {
        return Err(NotWritten::Unwanted);
    }
    Ok(unseen.show(location)?)
}

fn directory_of(location: &Path) -> &Path {
    location.parent().unwrap_or_else(|| Path::new("/"))
}

/// Stops as soon as nobody waits.
struct Careful<'a, W> {
    to: W,
    interest: &'a Interest,
}

impl<W: Write> Write for Careful<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.interest.is_lost() {
            return Err(io::Error::from(io::ErrorKind::TimedOut));
        }
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// A file that is nowhere yet: it goes with this process unless it is shown. On file systems that have no files without a
/// name it has a hidden one.
struct Unseen {
    file: File,
    temporary: PathBuf,
    named: bool,
}

impl Unseen {
    fn new(location: &Path) -> io::Result<Self> {
        let directory = directory_of(location);
        let name = location.file_name().unwrap_or_default().to_string_lossy();
        let temporary = directory.join(format!(".{name}.{}", std::process::id()));
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        match open(directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => Ok(Self {
                file: file.into(),
                temporary,
                named: false,
            }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                let _ = fs::remove_file(&temporary);
                let mut options = fs::OpenOptions::new();
                let file = options
                    .write(true)
                    .create_new(true)
                    .mode(0o600)
                    .open(&temporary)?;
                Ok(Self {
                    file,
                    temporary,
                    named: true,
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    fn show(mut self, location: &Path) -> io::Result<()> {
        if !self.named {
            let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
            // A daemon that was killed right here before has left one.
            let _ = unlinkat(CWD, &self.temporary, AtFlags::empty());
            linkat(CWD, path, CWD, &self.temporary, AtFlags::SYMLINK_FOLLOW)?;
            self.named = true;
        }
        renameat(CWD, &self.temporary, CWD, location)?;
        self.named = false;
        if let Ok(directory) = File::open(directory_of(location)) {
            let _ = directory.sync_all();
        }
        Ok(())
    }
}

impl Drop for Unseen {
    fn drop(&mut self) {
        if self.named {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use serde_json::json;

    use super::*;

    fn parts(images: &Path) -> Parts<'_> {
        Parts {
            described: vec![
                (CONFIG, json!({ "id": "c" })),
                (DELETED_FILES, json!(["etc/passwd"])),
            ],
            files: vec![
                ("dump.log", images.join("../dump.log")),
                ("container.log", images.join("../none")),
            ],
            images,
        }
    }

    fn images(directory: &Path) -> PathBuf {
        let images = directory.join("images");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("pages-1.img"), [7; 5000]).unwrap();
        fs::write(images.join("inventory.img"), "i").unwrap();
        fs::write(directory.join("dump.log"), "fine").unwrap();
        images
    }

    fn count(directory: &Path) -> usize {
        fs::read_dir(directory).unwrap().count()
    }

    #[test]
    fn the_archive_has_the_names_that_others_know() {
        let directory = tempfile::tempdir().unwrap();
        let images = images(directory.path());
        let place = tempfile::tempdir().unwrap();
        let location = place.path().join("x.tar");
        fs::write(&location, "what was there before").unwrap();
        write(&parts(&images), &location, &Interest::new()).unwrap();
        let metadata = fs::metadata(&location).unwrap();
        assert_eq!((metadata.mode() & 0o7777, count(place.path())), (0o600, 1));
        let target = directory.path().join("again");
        fs::create_dir(&target).unwrap();
        let limits = berth_images::Limits::default();
        berth_images::apply(File::open(&location).unwrap(), &target, limits).unwrap();
        let read = |name: &str| fs::read(target.join(name)).unwrap();
        let described: Value = serde_json::from_slice(&read("config.dump")).unwrap();
        assert_eq!(described, json!({ "id": "c" }));
        assert_eq!(read("dump.log"), b"fine");
        assert_eq!(read("checkpoint/pages-1.img"), [7; 5000]);
        assert_eq!(read("checkpoint/inventory.img"), b"i");
        assert!(!target.join("container.log").exists());
    }

    #[test]
    fn a_failure_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let images = images(directory.path());
        let place = tempfile::tempdir().unwrap();
        let location = place.path().join("x.tar");
        let lost = Interest::new();
        lost.abandon();
        assert!(write(&parts(&images), &location, &lost).is_err());
        fs::remove_dir_all(&images).unwrap();
        let failed = write(&parts(&images), &location, &Interest::new());
        assert!(matches!(failed, Err(NotWritten::Io(_))));
        assert_eq!(count(place.path()), 0);
        let nowhere = place.path().join("missing/x.tar");
        assert!(matches!(
            write(&parts(&images), &nowhere, &Interest::new()),
            Err(NotWritten::Io(_))
        ));
    }

    #[test]
    fn a_file_that_is_not_shown_goes() {
        let place = tempfile::tempdir().unwrap();
        let location = place.path().join("x");
        drop(Unseen::new(&location).unwrap());
        let file = File::create(place.path().join("hidden")).unwrap();
        drop(Unseen {
            file,
            temporary: place.path().join("hidden"),
            named: true,
        });
        assert_eq!(count(place.path()), 0);
    }
}
