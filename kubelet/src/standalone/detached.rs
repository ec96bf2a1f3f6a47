//! What the daemon is to run: the pods that were handed to it, with what they refer to, so that it can start their
//! containers anew after a restart of itself or of the machine. For root only: Secrets are in it.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::control::SentWorkload;
use crate::durable;
use crate::identity::PodUid;

/// A pod that is to run.
const SUFFIX: &str = "json";
/// A pod that somebody wants to be removed: it must not come back when nothing of it is left.
const ENDING: &str = "ending";

/// The pods that were handed to the daemon of a node.
#[derive(Clone, Debug)]
pub(super) struct Detached {
    directory: PathBuf,
}

/// A pod that was handed to the daemon, as a daemon that starts finds it.
pub(super) struct Found {
    pub(super) uid: PodUid,
    pub(super) workload: SentWorkload,
    /// Somebody wants it to be removed.
    pub(super) ending: bool,
}

impl Detached {
    pub(super) fn new(kubelet_root: &Path) -> Self {
        Self {
            directory: kubelet_root.join("detached"),
        }
    }

    fn path(&self, uid: &PodUid, suffix: &str) -> PathBuf {
        self.directory.join(format!("{uid}.{suffix}"))
    }

    /// Writes one pod and what it refers to, for good before it returns.
    pub(super) fn save(&self, uid: &PodUid, workload: &SentWorkload) -> io::Result<()> {
        durable::write(&self.path(uid, SUFFIX), &serde_json::to_vec(workload)?)
    }

    /// A pod and what it refers to.
    pub(super) fn load(&self, uid: &PodUid) -> io::Result<SentWorkload> {
        Ok(serde_json::from_slice(&std::fs::read(self.path(uid, SUFFIX))?)?)
    }

    /// Notes that a pod is to be removed.
    pub(super) fn end(&self, uid: &PodUid) -> io::Result<()> {
        match std::fs::rename(self.path(uid, SUFFIX), self.path(uid, ENDING)) {
            // It was noted before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(&self.directory)?.sync_all(),
        }
    }

    /// Forgets a pod of which nothing is left. The last one takes the directory with it.
    pub(super) fn remove(&self, uid: &PodUid) {
        for suffix in [SUFFIX, ENDING] {
            // What stays is looked at by the next daemon.
            let _ = std::fs::remove_file(self.path(uid, suffix));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }

    /// One pod, if it is there.
    pub(super) fn find(&self, uid: &PodUid) -> io::Result<Option<Found>> {
        for (suffix, ending) in [(SUFFIX, false), (ENDING, true)] {
            match std::fs::read(self.path(uid, suffix)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(bytes) => {
                    return Ok(Some(Found {
                        uid: uid.clone(),
                        workload: serde_json::from_slice(&bytes)?,
                        ending,
                    }));
                }
            }
        }
        Ok(None)
    }

    /// All there are, and sentences on those that can't be read.
    pub(super) fn list(&self) -> io::Result<(Vec<Found>, Vec<String>)> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), Vec::new())),
            entries => entries?,
        };
        let (mut found, mut damaged) = (Vec::new(), Vec::new());
        for entry in entries {
            let path = entry?.path();
            let ending = match path.extension().and_then(|suffix| suffix.to_str()) {
                Some(SUFFIX) => false,
                Some(ENDING) => true,
                _ => {
                    // Half written.
                    std::fs::remove_file(&path)?;
                    continue;
                }
            };
            let uid = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .unwrap_or_default();
            match serde_json::from_slice(&std::fs::read(&path)?) {
                Ok(workload) => found.push(Found {
                    uid: PodUid(uid.to_owned()),
                    workload,
                    ending,
                }),
                Err(error) => damaged.push(format!("{} can't be read: {error}.", path.display())),
            }
        }
        Ok((found, damaged))
    }
}

/// Whether a pod was handed to the daemon.
pub(super) fn has(kubelet_root: &Path, uid: &PodUid) -> bool {
    let detached = Detached::new(kubelet_root);
    [SUFFIX, ENDING]
        .iter()
        .any(|suffix| detached.path(uid, suffix).exists())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Objects;
    use crate::testing;

    #[test]
    fn pods_are_kept_until_nothing_of_them_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let detached = Detached::new(dir.path());
        let uid = PodUid("uid".into());
        let pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let workload = SentWorkload::new(vec![pod.clone()], &Objects::default());
        detached.save(&uid, &workload).unwrap();
        assert!(has(dir.path(), &uid));
        assert_eq!(detached.load(&uid).unwrap().pods, [pod]);
        let is_ending = || detached.list().unwrap().0[0].ending;
        assert!(!is_ending());
        detached.end(&uid).unwrap();
        detached.end(&uid).unwrap();
        assert!(is_ending());
        std::fs::write(dir.path().join("detached/x.json"), "{").unwrap();
        std::fs::write(dir.path().join("detached/y.new"), "{").unwrap();
        let (found, damaged) = detached.list().unwrap();
        assert_eq!((found.len(), damaged.len()), (1, 1));
        std::fs::remove_file(dir.path().join("detached/x.json")).unwrap();
        detached.remove(&uid);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
