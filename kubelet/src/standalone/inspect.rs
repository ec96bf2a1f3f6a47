//! `berth ps` and `berth status`: pods as their records and statuses on disk tell of them, whoever runs them.

use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::choose::{self, Chosen};
use super::control::answers;
use super::lock::PodLock;
use super::view::table;
use crate::duration::short_age;
use crate::identity::PodUid;
use crate::spec;
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
    /// No such pod.
    #[error("There is no pod {0}; `berth ps` lists those there are{others}.", others = of_others())]
    NoPod(String),
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
    #[error("Container {container} of pod {pod} has no {what}log yet.")]
    NoLog {
        /// The pod.
        pod: String,
        /// The container.
        container: String,
        /// `previous `, or empty.
        what: &'static str,
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
    fn records(&self) -> Result<Vec<(PodRecord, Option<PodStatus>)>, InspectError> {
        let records = Records::new(&self.kubelet_root);
        let failed = |source| InspectError::Records {
            path: self.kubelet_root.clone(),
            source,
        };
        let list = records.list().map_err(failed)?;
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
        Err(InspectError::NoPod(pod.to_owned()))
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

    /// All pods with their statuses; those that have ended only if `all` are wanted.
    ///
    /// # Errors
    /// The records can't be read.
    pub fn pods(&self, all: bool) -> Result<Vec<Pod>, InspectError> {
        let mut pods = Vec::new();
        for (record, status) in self.records()? {
            if all || !has_ended(&status.clone().unwrap_or_default()) {
                pods.push(Pod { status, ..record.pod });
            }
        }
        Ok(pods)
    }

    /// All pods, a line each; those that have ended only if `all` are wanted. `wide`: with more columns.
    ///
    /// # Errors
    /// The records can't be read.
    pub fn table(&self, all: bool, wide: bool) -> Result<String, InspectError> {
        let mut header = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "RUN BY"]
            .map(str::to_owned)
            .to_vec();
        if wide {
            header.extend(["AGE", "CONTAINERS", "IMAGES"].map(str::to_owned));
        }
        let mut rows = vec![header];
        for (record, status) in self.records()? {
            let status = status.unwrap_or_default();
            if all || !has_ended(&status) {
                let mut row = self.row(&record, &status).to_vec();
                if wide {
                    row.extend(more_of(&record));
                }
                rows.push(row);
            }
        }
        Ok(table(&rows))
    }

    fn row(&self, record: &PodRecord, status: &PodStatus) -> [String; 7] {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        let containers = long_running(&record.pod, status);
        let ready = containers.iter().filter(|container| container.ready).count();
        let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
        let owner = self.owner(record);
        [
            namespace.to_owned(),
            name.to_owned(),
            format!("{ready}/{}", wanted(&record.pod)),
            word(status),
            restarts.to_string(),
            status.pod_ip.clone().unwrap_or_else(|| "-".to_owned()),
            match owner {
                Some(pid) if PodLock::daemon(&self.kubelet_root) == Some(pid) => "daemon".to_owned(),
                Some(pid) => format!("process {pid}"),
                None => "nobody (berth died)".to_owned(),
            },
        ]
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
        Ok(Pod { status, ..record.pod })
    }
}

/// Age, containers and images.
fn more_of(record: &PodRecord) -> [String; 3] {
    let now = crate::worker::Clock::system().now();
    let age = std::time::Duration::from_nanos(now.saturating_sub(record.admitted_at));
    let containers = spec::containers(&record.pod);
    let names: Vec<&str> = containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let images: Vec<&str> = containers
        .iter()
        .filter_map(|container| container.image.as_deref())
        .collect();
    [short_age(age), names.join(","), images.join(",")]
}

fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

/// The STATUS column as kubectl has it: why a container waits or ended, else the phase.
fn word(status: &PodStatus) -> String {
    let states = status
        .container_statuses
        .iter()
        .flatten()
        .filter_map(|container| container.state.as_ref());
    let mut reasons = states.rev().filter_map(|state| {
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        waiting.or_else(|| state.terminated.as_ref().and_then(|ended| ended.reason.clone()))
    });
    let phase = status.phase.clone().unwrap_or_else(|| "Pending".to_owned());
    reasons.next().or_else(|| status.reason.clone()).unwrap_or(phase)
}

/// How many containers of a pod are to run at the same time. kubectl counts sidecars, too.
fn wanted(pod: &Pod) -> usize {
    let sidecars = spec::init_containers(pod)
        .iter()
        .filter(|container| spec::is_sidecar(container));
    sidecars.count() + spec::containers(pod).len()
}

/// The statuses of those containers.
fn long_running<'a>(pod: &Pod, status: &'a PodStatus) -> Vec<&'a ContainerStatus> {
    let is_sidecar = |name: &str| {
        spec::init_containers(pod)
            .iter()
            .any(|container| container.name == name && spec::is_sidecar(container))
    };
    let sidecars = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|container| is_sidecar(&container.name));
    sidecars
        .chain(status.container_statuses.iter().flatten())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn pods_are_found_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet_root: dir.path().join("kubelet"),
            log_root: dir.path().join("logs"),
            run_root: dir.path().join("run"),
        };
        assert_eq!(places.table(false, false).unwrap().lines().count(), 1);
        let pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let record = PodRecord::new(pod, 1, PathBuf::new());
        Records::new(&places.kubelet_root).save(&record).unwrap();
        let table = places.table(false, false).unwrap();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..6], ["default", "p", "0/1", "Pending", "0", "-"]);
        assert!(matches!(places.pod("other/p"), Err(InspectError::NoPod(_))));
    }

    #[test]
    fn sidecars_count_and_other_init_containers_do_not() {
        let pod = testing::pod(
            r#"{"initContainers":[{"name":"once","image":"i"},{"name":"side","image":"i","restartPolicy":"Always"}],
                "containers":[{"name":"c","image":"i"}]}"#,
        );
        let ready = |name: &str| ContainerStatus {
            name: name.into(),
            ready: true,
            ..Default::default()
        };
        let status = PodStatus {
            init_container_statuses: Some(vec![ready("once"), ready("side")]),
            container_statuses: Some(vec![ready("c")]),
            ..Default::default()
        };
        let counted: Vec<&str> = long_running(&pod, &status)
            .iter()
            .map(|status| status.name.as_str())
            .collect();
        assert_eq!((counted.as_slice(), wanted(&pod)), (["side", "c"].as_slice(), 2));
    }
}
