//! Pods as their records and statuses on disk tell of them, whoever runs them.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::choose::{self, Chosen};
use super::control::answers;
use super::lock::PodLock;
use crate::identity::PodUid;
use crate::manifest::nearest;
use crate::spec;
use crate::status::has_ended;
use crate::watch::Watch;
use crate::worker::{PodRecord, Records};

/// Where a node keeps its pods.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where pods' directories and records are.
    pub kubelet_root: PathBuf,
    /// Where containers' logs are.
    pub log_root: PathBuf,
    /// What is gone after a reboot: sockets.
    pub run_root: PathBuf,
}

/// By which a program knows that it works for an ordinary user, in namespaces of that user's.
pub const ORDINARY_USER: &str = "BERTH_ROOTLESS";

/// Root and each user have pods of their own, and see no others'.
fn of_others() -> &'static str {
    if std::env::var_os(ORDINARY_USER).is_some() {
        ", which are yours; root's are listed by `sudo berth ps`"
    } else if std::env::var("SUDO_UID").is_ok_and(|uid| uid != "0") {
        ", which are root's; yours are listed without sudo"
    } else {
        ""
    }
}

/// Why a pod or its log can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The records can't be read.
    #[error("The pods' records in {} can't be read: {source}.", path.display())]
    Records {
        /// The kubelet directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No such pod, and what to do about that.
    #[error("There is no pod {0}; {1}")]
    NoPod(String, String),
    /// No such container.
    #[error("Pod {pod} has no container {container}; it has {known}.")]
    NoContainer {
        /// The pod.
        pod: String,
        /// The container that was asked for.
        container: String,
        /// The ones there are.
        known: String,
    },
    /// The container has not run so often.
    #[error("Container {container} of pod {pod} has no {what}log yet{why}.")]
    NoLog {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// `previous `, or empty.
        what: &'static str,
        /// What it waits for, after a colon, or empty.
        why: String,
    },
    /// More logs than somebody who gave only a selector may have had in mind.
    #[error("{logs} logs would be followed, and at most {most} are: --max-log-requests allows more.")]
    TooManyLogs {
        /// How many there are.
        logs: usize,
        /// How many there may be.
        most: NonZeroUsize,
    },
    /// Changes can't be waited for.
    #[error("The directory {} can't be watched: {source}.", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The log can't be read.
    #[error("The log {} can't be read: {source}.", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Places {
    /// All of them, by namespace and name; of one name, the oldest first.
    pub(super) fn records(&self) -> Result<Vec<(PodRecord, Option<PodStatus>)>, InspectError> {
        let records = Records::new(&self.kubelet_root);
        let failed = |source| InspectError::Records {
            path: self.kubelet_root.clone(),
            source,
        };
        let mut list = records.list().map_err(failed)?;
        list.sort_by(|one, other| {
            let key = |record: &PodRecord| {
                let pod = (spec::namespace(&record.pod), spec::name(&record.pod));
                (pod.0.to_owned(), pod.1.to_owned(), record.admitted_at)
            };
            key(one).cmp(&key(other))
        });
        Ok(list
            .into_iter()
            .map(|record| (records.load_status(&record.uid()), record))
            .map(|(s, r)| (r, s))
            .collect())
    }

    /// Pods that have not ended and are to go on.
    pub(super) fn running(&self) -> Result<Vec<PodRecord>, InspectError> {
        let mut records = self.records()?;
        records.retain(|(record, status)| {
            record.deletion().is_none() && !has_ended(&status.clone().unwrap_or_default())
        });
        Ok(records.into_iter().map(|(record, _)| record).collect())
    }

    /// The pod `NAME` or `NAMESPACE/NAME`.
    pub(super) fn find(&self, pod: &str) -> Result<(PodRecord, Option<PodStatus>), InspectError> {
        let mut records = self.records()?;
        for (namespace, name) in choose::readings(pod) {
            let wanted = |(record, _): &(PodRecord, _)| {
                spec::name(&record.pod) == name && spec::namespace(&record.pod) == namespace
            };
            if let Some(index) = records.iter().position(wanted) {
                return Ok(records.swap_remove(index));
            }
        }
        Err(InspectError::NoPod(pod.to_owned(), hint(pod, &records)))
    }

    /// The container of a pod that is meant.
    ///
    /// # Errors
    /// There is no such pod, or no such container in it.
    pub fn choose(&self, pod: &str, container: Option<&str>) -> Result<Chosen, InspectError> {
        choose::container(&self.find(pod)?.0.pod, pod, container)
    }

    /// All pods, as `NAMESPACE/NAME`.
    ///
    /// # Errors
    /// The records can't be read.
    pub fn names(&self) -> Result<Vec<String>, InspectError> {
        let name =
            |record: &PodRecord| format!("{}/{}", spec::namespace(&record.pod), spec::name(&record.pod));
        Ok(self.records()?.iter().map(|(record, _)| name(record)).collect())
    }

    /// Whether nothing of a pod runs any more.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn has_ended(&self, pod: &str) -> Result<bool, InspectError> {
        let (_, status) = self.find(pod)?;
        Ok(has_ended(&status.unwrap_or_default()))
    }

    /// Returns when nothing is left of the pod that has this UID.
    ///
    /// # Errors
    /// The records can't be watched.
    pub async fn gone(&self, uid: &str) -> Result<(), InspectError> {
        let directory = self.kubelet_root.join("pod-records");
        let failed = |source| InspectError::Watch {
            path: directory.clone(),
            source,
        };
        let watch = Watch::new(vec![directory.clone()]).map_err(failed)?;
        let records = Records::new(&self.kubelet_root);
        loop {
            watch.arm().map_err(failed)?;
            // A record that can't be read is there.
            if matches!(records.load(&PodUid(uid.to_owned())), Ok(None)) {
                return Ok(());
            }
            watch.changed().await.map_err(failed)?;
        }
    }

    /// The process that runs a pod.
    pub(super) fn owner(&self, record: &PodRecord) -> Option<u32> {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        PodLock::owner(&self.kubelet_root, namespace, name).filter(|&pid| answers(&self.run_root, pid))
    }

    /// The daemon's process, if there is one that answers.
    pub fn daemon(&self) -> Option<u32> {
        PodLock::daemon(&self.kubelet_root).filter(|&pid| answers(&self.run_root, pid))
    }

    /// Where the runtime listens that runs a pod; `None` is the built-in one.
    pub fn runtime_endpoint(&self, pod: &str) -> Result<Option<String>, InspectError> {
        Ok(self.find(pod)?.0.runtime_endpoint)
    }

    /// A pod with its status.
    pub fn pod(&self, pod: &str) -> Result<Pod, InspectError> {
        let (record, status) = self.find(pod)?;
        Ok(shown(record, status))
    }
}

/// A pod as an API server would show it.
pub(super) fn shown(record: PodRecord, status: Option<PodStatus>) -> Pod {
    let deletion = record.deletion();
    let time = |nanos: u64| {
        let time = jiff::Timestamp::from_nanosecond(i128::from(nanos));
        time.ok().map(Time)
    };
    let created = time(record.admitted_at);
    let mut pod = Pod { status, ..record.pod };
    pod.metadata.creation_timestamp = created;
    if let Some(deletion) = deletion {
        pod.metadata.deletion_timestamp = time(deletion.requested_at);
        let own = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        let asked = deletion
            .grace
            .and_then(|grace| i64::try_from(grace.as_secs()).ok());
        pod.metadata.deletion_grace_period_seconds = asked.or(own);
    }
    pod
}

/// What to do about a pod that is not there: whether it is in another namespace, or has another name.
fn hint(wanted: &str, records: &[(PodRecord, Option<PodStatus>)]) -> String {
    let known = || {
        let all = records.iter().map(|(record, _)| &record.pod);
        all.map(|pod| (spec::namespace(pod), spec::name(pod)))
    };
    let likely = choose::readings(wanted);
    let elsewhere = known().find(|(_, name)| likely.iter().any(|(_, wanted)| name == wanted));
    if let Some((namespace, name)) = elsewhere {
        return format!("there is one in another namespace: {namespace}/{name}.");
    }
    let short = |(namespace, name): (&str, &str)| match namespace {
        "default" => name.to_owned(),
        _ => format!("{namespace}/{name}"),
    };
    let names: Vec<String> = known().map(short).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let beginnings = names.iter().filter(|name| name.starts_with(wanted));
    let found = match beginnings.collect::<Vec<_>>()[..] {
        [only] if !wanted.is_empty() => Some((*only).to_owned()),
        _ => nearest(wanted, &names),
    };
    found.map_or_else(
        || format!("`berth ps -a` lists those there are{}.", of_others()),
        |name| format!("did you mean {name}?"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn a_pod_that_is_not_there_may_be_another() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet_root: dir.path().join("kubelet"),
            log_root: dir.path().join("logs"),
            run_root: dir.path().join("run"),
        };
        for (namespace, name) in [("default", "frontend"), ("data", "db")] {
            let mut pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
            pod.metadata.namespace = Some(namespace.into());
            pod.metadata.name = Some(name.into());
            pod.metadata.uid = Some(format!("uid-{name}"));
            let record = PodRecord::new(pod, 1, PathBuf::new());
            Records::new(&places.kubelet_root).save(&record).unwrap();
        }
        for (wanted, said) in [
            (
                "db",
                "There is no pod db; there is one in another namespace: data/db.",
            ),
            (
                "pod/db",
                "There is no pod pod/db; there is one in another namespace: data/db.",
            ),
            ("fronted", "There is no pod fronted; did you mean frontend?."),
            ("fro", "There is no pod fro; did you mean frontend?."),
            ("data/dc", "There is no pod data/dc; did you mean data/db?."),
            ("x", "There is no pod x; `berth ps -a` lists those there are."),
        ] {
            assert_eq!(
                places.pod(wanted).unwrap_err().to_string(),
                said.replace("?.", "?")
            );
        }
        assert!(places.pod("pod/data/db").is_ok());
        assert!(places.pod("data/db").is_ok());
    }
}
