//! `berth ps`: which pods are listed, and their table.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};

use super::choose;
use super::inspect::{InspectError, Places, shown};
use super::lock::PodLock;
use super::pod_word::word;
use super::selector::Selector;
use super::view::table;
use crate::duration::short_age;
use crate::spec;
use crate::status::has_ended;
use crate::worker::PodRecord;

/// Which pods are listed, and how.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Also those that have ended.
    pub all: bool,
    /// Only those of this namespace.
    pub namespace: Option<String>,
    /// Only these: `NAME` or `NAMESPACE/NAME`; they may have ended.
    pub names: Vec<String>,
    /// Only those with such labels.
    pub selector: Selector,
    /// With more columns.
    pub wide: bool,
    /// Without the line of the columns' names.
    pub without_header: bool,
}

impl Places {
    /// The pods that are to be listed, with their statuses.
    ///
    /// # Errors
    /// The records can't be read, or a pod that is named is not there.
    pub fn list(&self, listing: &Listing) -> Result<Vec<Pod>, InspectError> {
        let chosen = self.chosen(listing)?;
        Ok(chosen
            .into_iter()
            .map(|(record, status)| shown(record, status))
            .collect())
    }

    /// The same as a table.
    ///
    /// # Errors
    /// As [`Places::list`].
    pub fn table(&self, listing: &Listing) -> Result<String, InspectError> {
        let mut header = vec![
            "NAMESPACE",
            "NAME",
            "READY",
            "STATUS",
            "RESTARTS",
            "AGE",
            "IP",
            "RUN BY",
        ];
        if listing.wide {
            header.extend(["CONTAINERS", "IMAGES"]);
        }
        let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
        if listing.without_header {
            rows.clear();
        }
        for (record, status) in self.chosen(listing)? {
            let mut row = self.row(&record, &status.unwrap_or_default()).to_vec();
            if listing.wide {
                row.extend(more_of(&record));
            }
            rows.push(row);
        }
        Ok(table(&rows))
    }

    fn chosen(&self, listing: &Listing) -> Result<Vec<(PodRecord, Option<PodStatus>)>, InspectError> {
        // One that is named has to be there.
        for name in &listing.names {
            self.find(name)?;
        }
        let named = |record: &PodRecord| {
            let own = (spec::namespace(&record.pod), spec::name(&record.pod));
            listing
                .names
                .iter()
                .any(|name| choose::readings(name).contains(&own))
        };
        let mut records = self.records()?;
        records.retain(|(record, status)| {
            let metadata = &record.pod.metadata;
            let ended = status.as_ref().is_some_and(has_ended);
            let wanted = match listing.names.is_empty() {
                true => listing.all || !ended,
                false => named(record),
            };
            let namespace = listing.namespace.as_deref();
            wanted
                && namespace.is_none_or(|namespace| spec::namespace(&record.pod) == namespace)
                && listing.selector.fits(metadata.labels.as_ref())
        });
        Ok(records)
    }

    fn row(&self, record: &PodRecord, status: &PodStatus) -> [String; 8] {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        let containers = long_running(&record.pod, status);
        let ready = containers.iter().filter(|container| container.ready).count();
        let now = crate::worker::Clock::system().now();
        let word = word(&record.pod, status, record.deletion().is_some());
        let restarts = restarts(&restarted(&word, containers, status), Timestamp::now());
        let age = std::time::Duration::from_nanos(now.saturating_sub(record.admitted_at));
        [
            namespace.to_owned(),
            name.to_owned(),
            format!("{ready}/{}", wanted(&record.pod)),
            word,
            restarts,
            short_age(age),
            status.pod_ip.clone().unwrap_or_else(|| "-".to_owned()),
            match self.owner(record) {
                Some(pid) if PodLock::daemon(&self.kubelet_root) == Some(pid) => "daemon".to_owned(),
                Some(pid) => format!("process {pid}"),
                None => "nobody (berth died)".to_owned(),
            },
        ]
    }
}

/// Containers and images.
fn more_of(record: &PodRecord) -> [String; 2] {
    let containers = spec::containers(&record.pod);
    let names: Vec<&str> = containers
        .iter()
        .map(|container| container.name.as_str())
        .collect();
    let images: Vec<&str> = containers
        .iter()
        .filter_map(|container| container.image.as_deref())
        .collect();
    [names.join(","), images.join(",")]
}

/// The containers whose restarts are shown: until init containers are done, those; then the others. As kubectl counts.
fn restarted<'a>(
    word: &str,
    long_running: Vec<&'a ContainerStatus>,
    status: &'a PodStatus,
) -> Vec<&'a ContainerStatus> {
    if word.starts_with("Init:") {
        status.init_container_statuses.iter().flatten().collect()
    } else {
        long_running
    }
}

/// How often containers were started again, and when one ended last before that.
fn restarts(containers: &[&ContainerStatus], now: Timestamp) -> String {
    let count: i32 = containers.iter().map(|container| container.restart_count).sum();
    let ends = containers.iter().filter_map(|container| {
        let ended = container.last_state.as_ref()?.terminated.as_ref()?;
        ended.finished_at.as_ref().map(|time| time.0)
    });
    match ends.max().filter(|_| count > 0) {
        Some(last) => {
            let ago = now.duration_since(last).try_into().unwrap_or_default();
            format!("{count} ({} ago)", short_age(ago))
        }
        None => count.to_string(),
    }
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
    use std::path::PathBuf;

    use super::*;
    use crate::testing;
    use crate::worker::Records;

    #[test]
    fn pods_are_found_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places {
            kubelet_root: dir.path().join("kubelet"),
            log_root: dir.path().join("logs"),
            run_root: dir.path().join("run"),
        };
        let listing = Listing::default();
        assert_eq!(places.table(&listing).unwrap().lines().count(), 1);
        for (namespace, uid) in [("default", "u1"), ("other", "u2")] {
            let mut pod = testing::pod(r#"{"containers":[{"name":"c","image":"i"}]}"#);
            pod.metadata.namespace = Some(namespace.into());
            pod.metadata.uid = Some(uid.into());
            let record = PodRecord::new(pod, 1, PathBuf::new());
            Records::new(&places.kubelet_root).save(&record).unwrap();
        }
        let table = places.table(&listing).unwrap();
        let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(row[..5], ["default", "p", "0/1", "Pending", "0"]);
        assert_eq!(row[6], "-");
        let count = |listing: Listing| places.list(&listing).map(|pods| pods.len());
        let other = Some("other".to_owned());
        assert_eq!(
            count(Listing {
                namespace: other,
                ..listing.clone()
            })
            .unwrap(),
            1
        );
        let names = vec!["p".to_owned()];
        assert_eq!(
            count(Listing {
                names,
                ..listing.clone()
            })
            .unwrap(),
            1
        );
        let selector = "app=web".parse().unwrap();
        assert_eq!(
            count(Listing {
                selector,
                ..listing.clone()
            })
            .unwrap(),
            0
        );
        let names = vec!["q".to_owned()];
        assert!(matches!(
            count(Listing { names, ..listing }),
            Err(InspectError::NoPod(..))
        ));
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

    #[test]
    fn restarts_of_init_containers_are_shown_until_they_are_done() {
        let restarted = |name: &str, restart_count| ContainerStatus {
            name: name.into(),
            restart_count,
            ..Default::default()
        };
        let pod = testing::pod(
            r#"{"initContainers":[{"name":"once","image":"i"}],"containers":[{"name":"c","image":"i"}]}"#,
        );
        let status = PodStatus {
            init_container_statuses: Some(vec![restarted("once", 3)]),
            container_statuses: Some(vec![restarted("c", 1)]),
            ..Default::default()
        };
        let shown = |word: &str| {
            restarts(
                &super::restarted(word, long_running(&pod, &status), &status),
                Timestamp::now(),
            )
        };
        assert_eq!(shown("Init:CrashLoopBackOff"), "3");
        assert_eq!(shown("Running"), "1");
    }
}
