//! `berth events`: what happened to pods, and what goes on to happen.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::inspect::{InspectError, Places};
use super::journal::{self, Entry};
use crate::identity::PodUid;
use crate::spec;
use crate::watch::Watch;
use crate::worker::Records;

/// Something that happened to a pod.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLine {
    /// When.
    pub time: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What, in a word.
    pub reason: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container that it happened to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// A sentence for people.
    pub message: String,
}

impl Places {
    /// Gives events to `sink`, until that returns `false`: those that are kept, of one pod or of all, in the order of
    /// their times; then, if `follow`, what happens from now on.
    ///
    /// # Errors
    /// There is no such pod, or the records can't be read or watched.
    pub async fn events(
        &self,
        pod: Option<&str>,
        follow: bool,
        mut sink: impl FnMut(EventLine) -> bool,
    ) -> Result<(), InspectError> {
        let wanted = match pod {
            // With all that have this name later.
            Some(pod) => {
                let (record, _) = self.find(pod)?;
                Some((
                    spec::namespace(&record.pod).to_owned(),
                    spec::name(&record.pod).to_owned(),
                ))
            }
            None => None,
        };
        let directory = self.kubelet_root.join("pod-records");
        let failed = |source| InspectError::Watch {
            path: directory.clone(),
            source,
        };
        let watch = Watch::new(vec![directory.clone()]).map_err(failed)?;
        // The number of the next event of each pod.
        let mut next = BTreeMap::<PodUid, u64>::new();
        loop {
            watch.arm().map_err(failed)?;
            let mut new = self.kept(&wanted);
            new.retain(|entry| next.get(&entry.uid).is_none_or(|&next| entry.number >= next));
            new.sort_by_key(|entry| (entry.time, entry.number));
            for entry in new {
                next.insert(entry.uid.clone(), entry.number + 1);
                if !sink(line(entry)) {
                    return Ok(());
                }
            }
            if !follow {
                return Ok(());
            }
            watch.changed().await.map_err(failed)?;
        }
    }

    fn kept(&self, wanted: &Option<(String, String)>) -> Vec<Entry> {
        let records = Records::new(&self.kubelet_root);
        let all = records
            .event_files()
            .into_iter()
            .flat_map(|path| journal::read(&path));
        all.filter(|entry| {
            wanted
                .as_ref()
                .is_none_or(|(namespace, name)| *namespace == entry.namespace && *name == entry.pod)
        })
        .collect()
    }
}

fn line(entry: Entry) -> EventLine {
    EventLine {
        time: Timestamp::from_nanosecond(i128::from(entry.time)).unwrap_or_default(),
        kind: if entry.warning { "Warning" } else { "Normal" },
        reason: entry.reason,
        namespace: entry.namespace,
        pod: entry.pod,
        container: entry.container,
        message: entry.message,
    }
}
