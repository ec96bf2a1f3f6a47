//! `berth ps` and `berth status`: pods as their records and statuses on disk tell of them, whoever runs them.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::choose;
use super::lock::PodLock;
use crate::spec;
use crate::worker::{PodRecord, Records};

/// Where a node keeps its pods.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where pods' directories and records are.
    pub kubelet_root: PathBuf,
    /// Where containers' logs are.
    pub log_root: PathBuf,
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
    #[error("There is no pod {0}; `berth ps` lists those there are.")]
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

    /// All pods, a line each.
    pub fn table(&self) -> Result<String, InspectError> {
        let mut rows =
            vec![["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "IP", "RUN BY"].map(str::to_owned)];
        for (record, status) in self.records()? {
            rows.push(self.row(&record, &status.unwrap_or_default()));
        }
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: [usize; 7] = std::array::from_fn(width);
        let mut table = String::new();
        for row in &rows {
            let cells: Vec<String> = row
                .iter()
                .zip(widths)
                .map(|(cell, width)| format!("{cell:<width$}"))
                .collect();
            let _ = writeln!(table, "{}", cells.join("   ").trim_end());
        }
        Ok(table)
    }

    fn row(&self, record: &PodRecord, status: &PodStatus) -> [String; 7] {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        let containers = long_running(&record.pod, status);
        let ready = containers.iter().filter(|container| container.ready).count();
        let restarts: i32 = containers.iter().map(|container| container.restart_count).sum();
        let owner = PodLock::owner(&self.kubelet_root, namespace, name);
        [
            namespace.to_owned(),
            name.to_owned(),
            format!("{ready}/{}", wanted(&record.pod)),
            word(status),
            restarts.to_string(),
            status.pod_ip.clone().unwrap_or_else(|| "-".to_owned()),
            owner.map_or_else(
                || "nobody (berth died)".to_owned(),
                |pid| format!("process {pid}"),
            ),
        ]
    }

    /// A pod with its status.
    pub fn pod(&self, pod: &str) -> Result<Pod, InspectError> {
        let (record, status) = self.find(pod)?;
        Ok(Pod { status, ..record.pod })
    }
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
        };
        assert_eq!(places.table().unwrap().lines().count(), 1);
        let pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
        let record = PodRecord::new(pod, 1, PathBuf::new());
        Records::new(&places.kubelet_root).save(&record).unwrap();
        let table = places.table().unwrap();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..6], ["default", "p", "0/1", "Pending", "0", "-"]);
        let _lock = PodLock::take(&places.kubelet_root, "default", "p").unwrap();
        assert!(
            places
                .table()
                .unwrap()
                .contains(&format!("process {}", std::process::id()))
        );

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
