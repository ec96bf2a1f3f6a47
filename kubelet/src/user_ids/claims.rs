//! Who has which range: a symbolic link for each, named after its first id, that leads to the pod's UID.
//!
//! symlink(2) makes a claim with its owner in one step and for one claimant only. So any number of programs run pods of
//! one node, without a lock or a process between them. A pod's record is there before its claim and until after it, so
//! that no claim is ever without a pod.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::UserIds;
use super::supply::Supply;
use crate::identity::PodUid;
use crate::volumes::make_private_dirs;

/// Why a pod gets no ids.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The node is not set up for it.
    #[error("the node's ids can't be given to pods: {0}")]
    Setup(String),
    /// Other pods have all of them.
    #[error(
        "no range of ids is free; end pods with `hostUsers: false`, or give the user kubelet more ids in /etc/subuid and /etc/subgid"
    )]
    None,
    /// Another pod has the range that this one had.
    #[error("its ids from {first} are those of the pod with the UID {owner} now")]
    Lost {
        /// The first id.
        first: u32,
        /// Whose it is.
        owner: String,
    },
    /// The claims can't be read or written.
    #[error("the claims in {} can't be kept: {source}", path.display())]
    Io {
        /// Where they are.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The claims of a node's pods.
#[derive(Debug)]
pub(crate) struct Claims {
    directory: PathBuf,
}

impl Claims {
    /// The claims of the node whose kubelet directory is `kubelet_root`.
    pub(crate) fn new(kubelet_root: &Path) -> Self {
        Claims {
            directory: kubelet_root.join("user-ids"),
        }
    }

    /// A range for the pod: the one that it has, or one that is free.
    pub(crate) fn claim(&self, uid: &PodUid) -> Result<UserIds, ClaimError> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (passwd, subuid, subgid) = (read("/etc/passwd"), read("/etc/subuid"), read("/etc/subgid"));
        let supply = Supply::new(&passwd, &subuid, &subgid).map_err(ClaimError::Setup)?;
        self.claim_of(uid, &supply)
    }

    fn claim_of(&self, uid: &PodUid, supply: &Supply) -> Result<UserIds, ClaimError> {
        if let Some(ids) = self.claim_before(uid).map_err(|source| self.io(source))? {
            return Ok(ids);
        }
        let mut hasher = DefaultHasher::new();
        uid.hash(&mut hasher);
        for first in supply.from(hasher.finish()) {
            if self.take(uid, first).map_err(|source| self.io(source))? {
                return Ok(UserIds::beginning_with(first));
            }
        }
        Err(ClaimError::None)
    }

    /// Sees to it that the pod has the range that its record says. A claim may have been lost with the machine's power.
    pub(crate) fn keep(&self, uid: &PodUid, ids: UserIds) -> Result<(), ClaimError> {
        if self.take(uid, ids.first).map_err(|source| self.io(source))? {
            return Ok(());
        }
        match self.owner(ids.first).map_err(|source| self.io(source))? {
            Some(owner) if owner != uid.0 => Err(ClaimError::Lost {
                first: ids.first,
                owner,
            }),
            _ => Ok(()),
        }
    }

    /// Gives the pod's range back; `ids` is what its record says, if it does.
    pub(crate) fn release(&self, uid: &PodUid, ids: Option<UserIds>) -> io::Result<()> {
        let ids = match ids {
            Some(ids) => Some(ids),
            None => self.claim_before(uid)?,
        };
        let Some(ids) = ids else { return Ok(()) };
        if self.owner(ids.first)?.as_deref() != Some(uid.0.as_str()) {
            return Ok(());
        }
        fs::remove_file(self.path(ids.first))?;
        // The last one takes the directory with it.
        match fs::remove_dir(&self.directory) {
            Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Takes a range. Returns whether it was free.
    fn take(&self, uid: &PodUid, first: u32) -> io::Result<bool> {
        loop {
            match symlink(&uid.0, self.path(first)) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(false),
                // The last claim has just gone, and took the directory with it.
                Err(error) if error.kind() == ErrorKind::NotFound => make_private_dirs(&self.directory)?,
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        File::open(&self.directory)?.sync_all()?;
        Ok(true)
    }

    /// The range that the pod has from a daemon which was killed before it could write that down.
    fn claim_before(&self, uid: &PodUid) -> io::Result<Option<UserIds>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entries => entries?,
        };
        for entry in entries {
            let name = entry?.file_name();
            let Some(first) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.owner(first)?.as_deref() == Some(uid.0.as_str()) {
                return Ok(Some(UserIds::beginning_with(first)));
            }
        }
        Ok(None)
    }

    /// The UID of the pod that has a range.
    fn owner(&self, first: u32) -> io::Result<Option<String>> {
        match fs::read_link(self.path(first)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            owner => Ok(Some(owner?.to_string_lossy().into_owned())),
        }
    }

    fn path(&self, first: u32) -> PathBuf {
        self.directory.join(first.to_string())
    }

    fn io(&self, source: io::Error) -> ClaimError {
        ClaimError::Io {
            path: self.directory.clone(),
            source,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn supply(ranges: u32) -> Supply {
        let file = format!("kubelet:65536:{}", ranges * 65_536);
        Supply::new("kubelet:x:990:990::/:/bin/false", &file, &file).unwrap()
    }

    fn uid(n: usize) -> PodUid {
        PodUid(format!("uid-{n}"))
    }

    #[test]
    fn a_range_is_one_pod_s_until_it_is_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let claims = Claims::new(dir.path());
        let supply = supply(2);
        let first = claims.claim_of(&uid(1), &supply).unwrap();
        // A daemon that was killed before the record said so.
        assert_eq!(claims.claim_of(&uid(1), &supply).unwrap(), first);
        let second = claims.claim_of(&uid(2), &supply).unwrap();
        assert_ne!(first, second);
        assert!(matches!(claims.claim_of(&uid(3), &supply), Err(ClaimError::None)));
        claims.keep(&uid(1), first).unwrap();
        assert!(matches!(
            claims.keep(&uid(3), first),
            Err(ClaimError::Lost { owner, .. }) if owner == "uid-1"
        ));
        claims.release(&uid(3), Some(first)).unwrap();
        claims.keep(&uid(1), first).unwrap();
        claims.release(&uid(1), None).unwrap();
        assert_eq!(claims.claim_of(&uid(3), &supply).unwrap(), first);
        claims.release(&uid(3), Some(first)).unwrap();
        claims.release(&uid(3), Some(first)).unwrap();
        claims.release(&uid(2), Some(second)).unwrap();
        assert!(!claims.directory.exists());
        // Lost with the machine's power.
        claims.keep(&uid(4), second).unwrap();
        assert_eq!(claims.claim_of(&uid(4), &supply).unwrap(), second);
    }

    #[test]
    fn claimants_at_the_same_time_get_different_ranges() {
        let dir = tempfile::tempdir().unwrap();
        let claims = Claims::new(dir.path());
        let supply = supply(64);
        let pods = 0..48;
        let got: BTreeSet<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> = pods
                .clone()
                .map(|n| {
                    scope.spawn({
                        let (claims, supply) = (&claims, &supply);
                        move || {
                            // Some come and go, and the directory with them.
                            let other = uid(1000 + n);
                            let ids = claims.claim_of(&other, supply).unwrap();
                            claims.release(&other, Some(ids)).unwrap();
                            claims.claim_of(&uid(n), supply).unwrap().first
                        }
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(got.len(), pods.len());
    }
}
