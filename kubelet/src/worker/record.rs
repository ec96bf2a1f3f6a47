//! A pod's record on disk: the intent that is there before anything of the pod is, and what must outlive the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{ContainerId, UnixNanos};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};

use crate::admission::Share;
use crate::durable;
use crate::identity::PodUid;
use crate::plan::{Deletion, PodFailure, ProbeResults};
use crate::sizes::Sizes;
use crate::spec;
use crate::user_ids::UserIds;

/// The record's name in the directory `<kubelet root>/pod-records`.
const SUFFIX: &str = ".json";

/// What is kept of a pod. The objects that it refers to are not: Secrets are never on a disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// The pod, defaulted and validated.
    pub pod: Pod,
    /// When the node took it on.
    pub admitted_at: UnixNanos,
    /// When its last scheduling gate was lifted, if it had any then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ungated_at: Option<UnixNanos>,
    /// The cgroup root of the node that made its cgroup.
    pub cgroup_root: PathBuf,
    /// Where the runtime listens that runs it; `None` is the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_endpoint: Option<String>,
    /// Its end has been asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deletion: Option<SavedDeletion>,
    /// What its probes said last.
    #[serde(default)]
    probes: BTreeMap<ContainerId, SavedProbes>,
    /// When its containers were first told to end.
    #[serde(default)]
    pub kill_started: BTreeMap<ContainerId, UnixNanos>,
    /// Containers that somebody wants to be started anew.
    #[serde(default)]
    pub restarts: BTreeSet<ContainerId>,
    /// Containers whose postStart hook has done its work: an adopted container that is not among them gets it (again).
    /// `None` in records of versions that did not keep it, where each is taken to have had it.
    #[serde(default)]
    pub post_started: Option<BTreeSet<ContainerId>>,
    /// Its ids on the node, if they are its own (`hostUsers: false`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_ids: Option<UserIds>,
    /// Its resources, if they were changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sizes: Option<Sizes>,
    /// It has failed as a whole: when, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<(UnixNanos, PodFailure)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedDeletion {
    requested_at: UnixNanos,
    grace_seconds: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedProbes {
    startup: Option<bool>,
    readiness: Option<bool>,
    liveness: Option<bool>,
}

impl PodRecord {
    /// The record of a pod that the node takes on now.
    pub fn new(pod: Pod, admitted_at: UnixNanos, cgroup_root: PathBuf) -> Self {
        PodRecord {
            pod,
            admitted_at,
            ungated_at: None,
            cgroup_root,
            runtime_endpoint: None,
            deletion: None,
            probes: BTreeMap::new(),
            kill_started: BTreeMap::new(),
            restarts: BTreeSet::new(),
            post_started: Some(BTreeSet::new()),
            user_ids: None,
            sizes: None,
            failed: None,
        }
    }

    /// The pod's UID.
    pub fn uid(&self) -> PodUid {
        PodUid(self.pod.metadata.uid.clone().unwrap_or_default())
    }

    /// What the pod has of the node, as the node gave it; nothing while it is gated.
    pub(crate) fn share(&self) -> Option<Share> {
        if spec::is_gated(&self.pod) {
            return None;
        }
        let pod = Arc::new(self.pod.clone());
        Some(Share::of(match &self.sizes {
            Some(sizes) => sizes.allocated.applied(&pod),
            None => pod,
        }))
    }

    /// When it began to be the node's: what counts from there is its deadline.
    pub(crate) fn began_at(&self) -> UnixNanos {
        self.ungated_at.unwrap_or(self.admitted_at)
    }

    /// The end that was asked for.
    pub fn deletion(&self) -> Option<Deletion> {
        self.deletion.map(|saved| Deletion {
            requested_at: saved.requested_at,
            grace: saved.grace_seconds.map(Duration::from_secs),
        })
    }

    /// Enters the end that was asked for.
    pub fn set_deletion(&mut self, deletion: Option<Deletion>) {
        self.deletion = deletion.map(|deletion| SavedDeletion {
            requested_at: deletion.requested_at,
            grace_seconds: deletion.grace.map(|grace| grace.as_secs()),
        });
    }

    /// What the probes of each container said last. A failed startup or liveness probe is not among it: it has to fail
    /// again.
    pub(crate) fn probes(&self) -> BTreeMap<ContainerId, ProbeResults> {
        let passed = |verdict: Option<bool>| verdict.filter(|good| *good);
        let results = |saved: &SavedProbes| ProbeResults {
            startup: passed(saved.startup),
            readiness: saved.readiness,
            liveness: passed(saved.liveness),
        };
        self.probes
            .iter()
            .map(|(id, saved)| (id.clone(), results(saved)))
            .collect()
    }

    /// Enters what the probes said. Returns whether anything is new.
    pub(crate) fn set_probes(&mut self, probes: &BTreeMap<ContainerId, ProbeResults>) -> bool {
        let saved = |r: &ProbeResults| SavedProbes {
            startup: r.startup,
            readiness: r.readiness,
            liveness: r.liveness,
        };
        let probes = probes
            .iter()
            .map(|(id, results)| (id.clone(), saved(results)))
            .collect();
        let changed = self.probes != probes;
        self.probes = probes;
        changed
    }
}

/// The records of a node's pods.
#[derive(Clone, Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// The records of the node whose kubelet directory is `kubelet_root`.
    pub fn new(kubelet_root: &Path) -> Self {
        Records {
            directory: kubelet_root.join("pod-records"),
        }
    }

    /// Where they are. It is there as long as there is one.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, uid: &PodUid) -> PathBuf {
        self.directory.join(format!("{uid}{SUFFIX}"))
    }

    /// Writes a record, for good before it returns.
    pub fn save(&self, record: &PodRecord) -> io::Result<()> {
        durable::write(&self.path(&record.uid()), &serde_json::to_vec(record)?)
    }

    /// The record of a pod, if there is one.
    pub fn load(&self, uid: &PodUid) -> io::Result<Option<PodRecord>> {
        load(&self.path(uid))
    }

    /// Writes a pod's status beside its record, for other programs to read. It may get lost in a crash of the machine.
    pub(crate) fn save_status(&self, uid: &PodUid, status: &PodStatus) -> io::Result<()> {
        let path = self.status_path(uid);
        let new = path.with_extension("status-new");
        std::fs::write(&new, serde_json::to_vec(status)?)?;
        std::fs::rename(&new, &path)
    }

    /// The status that a pod's worker wrote last, if it did.
    pub fn load_status(&self, uid: &PodUid) -> Option<PodStatus> {
        serde_json::from_slice(&std::fs::read(self.status_path(uid)).ok()?).ok()
    }

    fn status_path(&self, uid: &PodUid) -> PathBuf {
        self.directory.join(format!("{uid}.status"))
    }

    /// Where what happened to a pod is kept, beside its record.
    pub(crate) fn events_path(&self, uid: &PodUid) -> PathBuf {
        self.directory.join(format!("{uid}.events"))
    }

    /// All of those files.
    pub(crate) fn event_files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let is_events = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "events");
        entries.map(|entry| entry.path()).filter(is_events).collect()
    }

    /// The pods that have a record, as far as the directory can be read.
    pub(crate) fn uids(&self) -> Vec<PodUid> {
        let entries = std::fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let uid = |name: &str| name.strip_suffix(SUFFIX).map(|uid| PodUid(uid.to_owned()));
        entries
            .filter_map(|entry| uid(entry.file_name().to_str()?))
            .collect()
    }

    /// Every record there is.
    pub fn list(&self) -> io::Result<Vec<PodRecord>> {
        let entries = match std::fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            result => result?,
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(load(&path)?);
            }
        }
        records.sort_by_key(|record| record.admitted_at);
        Ok(records)
    }

    /// Forgets a pod of which nothing is left.
    pub fn remove(&self, uid: &PodUid) -> io::Result<()> {
        for path in [self.status_path(uid), self.events_path(uid), self.path(uid)] {
            match std::fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // The last one takes the directory with it.
        match std::fs::remove_dir(&self.directory) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }
}

fn load(path: &Path) -> io::Result<Option<PodRecord>> {
    match std::fs::read(path) {
        Ok(bytes) => match serde_json::from_slice(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the record {} can't be read: {error}", path.display()),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(&dir.path().join("kubelet"));
        assert!(records.list().unwrap().is_empty());
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u1".into());
        let mut record = PodRecord::new(pod, 7, "tests".into());
        record.set_deletion(Some(Deletion {
            requested_at: 9,
            grace: Some(Duration::from_secs(3)),
        }));
        let id = ContainerId("c".into());
        let results = ProbeResults {
            startup: Some(true),
            readiness: Some(false),
            liveness: Some(false),
        };
        assert!(record.set_probes(&BTreeMap::from([(id.clone(), results)])));
        assert!(!record.set_probes(&BTreeMap::from([(id.clone(), results)])));
        records.save(&record).unwrap();
        let read = records.load(&PodUid("u1".into())).unwrap().unwrap();
        assert_eq!(read.deletion(), record.deletion());
        assert_eq!(read.admitted_at, 7);
        let expected = ProbeResults {
            startup: Some(true),
            readiness: Some(false),
            liveness: None,
        };
        assert_eq!(read.probes()[&id], expected);
        assert_eq!(records.list().unwrap().len(), 1);
        records.remove(&PodUid("u1".into())).unwrap();
        records.remove(&PodUid("u1".into())).unwrap();
        assert!(!dir.path().join("kubelet/pod-records").exists());
    }
}
