//! The claims of a node on its disk.
//!
//! ```text
//! <kubelet root>/claims/<namespace>/<name>/claim.json   the record
//! <kubelet root>/claims/<namespace>/<name>/data         the files, unless a PersistentVolume has them
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use nix::fcntl::{Flock, FlockArg};

use super::record::full_name;
use super::{ClaimError, ClaimRecord, decide, users};
use crate::durable;
use crate::identity::PodUid;
use crate::spec;
use crate::volumes::{delete_tree, make_private_dirs};

const RECORD: &str = "claim.json";
const DATA: &str = "data";
/// What a claim's directory is renamed to before it is deleted, with its name behind. No object's name begins so.
const DELETED: &str = ".deleted-";

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// There was none.
    Created,
    /// It was there as it is.
    Unchanged,
    /// It has a larger request, other labels or annotations.
    Changed,
}

/// The claims of a node.
#[derive(Clone, Debug)]
pub struct ClaimStore {
    root: PathBuf,
}

impl ClaimStore {
    /// Those of the node whose kubelet directory is `kubelet_root`.
    pub fn new(kubelet_root: &Path) -> Self {
        ClaimStore {
            root: kubelet_root.join("claims"),
        }
    }

    /// Makes the claims that are not there, and enters what has changed of those that are. Each stands for itself: an error
    /// leaves those before it made.
    ///
    /// # Errors
    /// One can't be bound or changed, or the disk refuses.
    pub fn make_all(
        &self,
        claims: &[PersistentVolumeClaim],
        volumes: &[PersistentVolume],
    ) -> Result<Vec<(String, Made)>, ClaimError> {
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        let _lock = self.lock()?;
        self.each(claims, volumes, |record, what| match what {
            Made::Unchanged => Ok(()),
            Made::Created | Made::Changed => self.write(record),
        })
    }

    /// What [`ClaimStore::make_all`] would come to.
    ///
    /// # Errors
    /// One can't be bound or changed, or the disk refuses.
    pub fn compare_all(
        &self,
        claims: &[PersistentVolumeClaim],
        volumes: &[PersistentVolume],
    ) -> Result<Vec<(String, Made)>, ClaimError> {
        self.each(claims, volumes, |_, _| Ok(()))
    }

    fn each(
        &self,
        claims: &[PersistentVolumeClaim],
        volumes: &[PersistentVolume],
        act: impl Fn(&ClaimRecord, Made) -> Result<(), ClaimError>,
    ) -> Result<Vec<(String, Made)>, ClaimError> {
        let mut existing = self.list()?;
        let mut made = Vec::new();
        for claim in claims {
            let (record, what) = decide(claim, volumes, &existing)?;
            act(&record, what)?;
            made.push((record.full_name(), what));
            existing.retain(|other| other.full_name() != record.full_name());
            existing.push(record);
        }
        Ok(made)
    }

    /// Makes the claim of a pod's ephemeral volume, or finds it made for this pod.
    ///
    /// # Errors
    /// There is one of that name that is not this pod's, or the disk refuses.
    pub(crate) fn make_ephemeral(
        &self,
        claim: &PersistentVolumeClaim,
        owner: &PodUid,
        pod: &str,
    ) -> Result<ClaimRecord, ClaimError> {
        let _lock = self.lock()?;
        let record = ClaimRecord {
            claim: claim.clone(),
            volume: None,
            owner: Some(owner.clone()),
        };
        match self.find(record.namespace(), record.name()) {
            Ok(found) if found.owner.as_ref() == Some(owner) => Ok(found),
            Ok(_) => Err(ClaimError::NotOwner {
                claim: full_name(claim),
                pod: pod.to_owned(),
            }),
            Err(ClaimError::NotFound(_)) => self.write(&record).map(|()| record),
            Err(error) => Err(error),
        }
    }

    /// Every claim, by namespace and name.
    ///
    /// # Errors
    /// A record can't be read.
    pub fn list(&self) -> Result<Vec<ClaimRecord>, ClaimError> {
        let mut found = Vec::new();
        for namespace in names(&self.root)? {
            for name in names(&self.root.join(&namespace))? {
                match self.find(&namespace, &name) {
                    // Half made.
                    Err(ClaimError::NotFound(_)) => {}
                    record => found.push(record?),
                }
            }
        }
        Ok(found)
    }

    /// One claim.
    ///
    /// # Errors
    /// There is none, or its record can't be read.
    pub fn find(&self, namespace: &str, name: &str) -> Result<ClaimRecord, ClaimError> {
        let not_found = || ClaimError::NotFound(name.to_owned());
        let path = self.place(namespace, name).ok_or_else(not_found)?.join(RECORD);
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(not_found()),
            bytes => bytes.map_err(ClaimError::io("read", &path))?,
        };
        let damaged = |error: serde_json::Error| io::Error::new(io::ErrorKind::InvalidData, error);
        serde_json::from_slice(&bytes)
            .map_err(damaged)
            .map_err(ClaimError::io("read", &path))
    }

    /// The directory of a claim that no PersistentVolume has the files of.
    pub fn directory(&self, record: &ClaimRecord) -> PathBuf {
        self.root.join(record.namespace()).join(record.name()).join(DATA)
    }

    /// Removes a claim that no pod uses, with its directory. What a PersistentVolume leads to is left alone.
    ///
    /// # Errors
    /// There is none, a pod uses it, or the disk refuses.
    pub fn remove_unused(&self, namespace: &str, name: &str) -> Result<(), ClaimError> {
        let record = self.find(namespace, name)?;
        let kubelet_root = self.root.parent().unwrap_or(&self.root);
        if let Some(user) = users(kubelet_root, namespace, name)?.first() {
            return Err(ClaimError::InUse {
                claim: record.full_name(),
                pod: format!("{}/{}", spec::namespace(&user.pod), spec::name(&user.pod)),
            });
        }
        self.remove(namespace, name)
    }

    /// Removes a claim with its directory.
    fn remove(&self, namespace: &str, name: &str) -> Result<(), ClaimError> {
        let _lock = self.lock()?;
        let record = self.find(namespace, name)?;
        let parent = self.root.join(record.namespace());
        let deleted = parent.join(format!("{DELETED}{name}"));
        let place = parent.join(name);
        sweep(&parent)?;
        // From here on it is gone, whenever this ends.
        std::fs::rename(&place, &deleted).map_err(ClaimError::io("delete", &place))?;
        sweep(&parent)?;
        // The last one takes the directories with it.
        let _ = std::fs::remove_dir(&parent).and_then(|()| std::fs::remove_dir(&self.root));
        Ok(())
    }

    /// Removes the claims of a pod's ephemeral volumes.
    pub(crate) fn remove_owned(&self, owner: &PodUid) -> Result<(), ClaimError> {
        let own = self.list()?;
        for record in own.iter().filter(|record| record.owner.as_ref() == Some(owner)) {
            match self.remove(record.namespace(), record.name()) {
                Err(ClaimError::NotFound(_)) => {}
                removed => removed?,
            }
        }
        Ok(())
    }

    fn place(&self, namespace: &str, name: &str) -> Option<PathBuf> {
        let is_name = |name: &str| !name.is_empty() && !name.starts_with('.') && !name.contains('/');
        (is_name(namespace) && is_name(name)).then(|| self.root.join(namespace).join(name))
    }

    /// One program at a time changes claims.
    fn lock(&self) -> Result<Flock<File>, ClaimError> {
        // Its own directory goes with the last claim.
        let held = self.root.parent().unwrap_or(&self.root);
        make_private_dirs(held).map_err(ClaimError::io("make the directory", held))?;
        let directory = File::open(held).map_err(ClaimError::io("open", held))?;
        Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, error)| ClaimError::io("lock", held)(error.into()))
    }

    /// The directory comes first: a claim whose record is there is whole.
    fn write(&self, record: &ClaimRecord) -> Result<(), ClaimError> {
        let invalid = || ClaimError::NotFound(record.name().to_owned());
        let place = self
            .place(record.namespace(), record.name())
            .ok_or_else(invalid)?;
        make_private_dirs(&place).map_err(ClaimError::io("make the directory", &place))?;
        if record.volume.is_none() {
            let data = self.directory(record);
            make_data(&data).map_err(ClaimError::io("make the directory", &data))?;
        }
        let path = place.join(RECORD);
        let written = serde_json::to_vec(record).map_err(io::Error::from);
        written
            .and_then(|content| durable::write(&path, &content))
            .map_err(ClaimError::io("write", &path))
    }
}

/// For whoever the pod's containers run as, as an emptyDir is.
fn make_data(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        made => made?,
    }
    std::fs::set_permissions(path, Permissions::from_mode(0o777))
}

/// Deletes what was renamed to be deleted.
fn sweep(directory: &Path) -> Result<(), ClaimError> {
    let entries = std::fs::read_dir(directory).map_err(ClaimError::io("read the directory", directory))?;
    for entry in entries {
        let entry = entry.map_err(ClaimError::io("read the directory", directory))?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(DELETED.as_bytes())
        {
            let path = entry.path();
            delete_tree(&path).map_err(ClaimError::io("delete", &path))?;
        }
    }
    Ok(())
}

/// The objects' names that a directory has entries of, in order.
fn names(directory: &Path) -> Result<Vec<String>, ClaimError> {
    let failed = || ClaimError::io("read the directory", directory);
    let entries = match std::fs::read_dir(directory) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(Vec::new());
        }
        entries => entries.map_err(failed())?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed())?.file_name().into_string();
        found.extend(name.ok().filter(|name| !name.starts_with('.')));
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(name: &str) -> PersistentVolumeClaim {
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "n"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_claim_is_kept_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let store = ClaimStore::new(dir.path());
        assert!(store.list().unwrap().is_empty());
        let made = store.make_all(&[claim("a"), claim("b")], &[]).unwrap();
        assert_eq!(
            made,
            [
                ("n/a".to_owned(), Made::Created),
                ("n/b".to_owned(), Made::Created)
            ]
        );
        let record = store.find("n", "a").unwrap();
        let data = store.directory(&record);
        std::fs::write(data.join("f"), "kept").unwrap();
        assert_eq!(data.metadata().unwrap().permissions().mode() & 0o7777, 0o777);
        let again = store.make_all(&[claim("a")], &[]).unwrap();
        assert_eq!(again[0].1, Made::Unchanged);
        assert_eq!(std::fs::read_to_string(data.join("f")).unwrap(), "kept");
        store.remove("n", "a").unwrap();
        assert!(!data.exists());
        assert!(matches!(store.remove("n", "a"), Err(ClaimError::NotFound(_))));
        store.remove("n", "b").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn names_lead_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(RECORD), "{}").unwrap();
        let store = ClaimStore::new(dir.path());
        for (namespace, name) in [("..", ""), ("n", "../.."), ("", "x"), ("n/..", ".."), (".", ".")] {
            assert!(matches!(
                store.find(namespace, name),
                Err(ClaimError::NotFound(_))
            ));
        }
    }

    #[test]
    fn an_ephemeral_one_is_its_pod_s_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = ClaimStore::new(dir.path());
        store.make_all(&[claim("mine")], &[]).unwrap();
        let (one, other) = (PodUid("1".into()), PodUid("2".into()));
        store.make_ephemeral(&claim("p-v"), &one, "n/p").unwrap();
        store.make_ephemeral(&claim("p-v"), &one, "n/p").unwrap();
        for (name, owner) in [("p-v", &other), ("mine", &one)] {
            let error = store.make_ephemeral(&claim(name), owner, "n/p").unwrap_err();
            assert!(error.to_string().contains("pod is not owner"), "{error}");
        }
        store.remove_owned(&one).unwrap();
        store.remove_owned(&one).unwrap();
        let left: Vec<String> = store.list().unwrap().iter().map(ClaimRecord::full_name).collect();
        assert_eq!(left, ["n/mine"]);
    }
}
