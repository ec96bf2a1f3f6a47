//! What happened to a pod, kept beside its record for `berth events`: a line of JSON for each event, of which the last
//! ones are kept. It goes with the pod.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::identity::PodUid;
use crate::plan::Desired;
use crate::spec;
use crate::worker::{Node, PodEvent, Records};

/// So many events of a pod are kept at least, and twice as many at most.
const KEPT: usize = 500;

/// An event of a pod as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// It is the so-manieth event of its pod.
    pub(super) number: u64,
    /// Nanoseconds since 1970.
    pub(super) time: u64,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: PodUid,
    /// It is a `Warning`, not `Normal`.
    pub(super) warning: bool,
    pub(super) reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) container: Option<String>,
    pub(super) message: String,
}

/// The journal of one pod.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    namespace: String,
    name: String,
    next: u64,
    /// How many lines the file has.
    lines: usize,
}

impl Journal {
    /// The journal of a pod that this process takes on: it goes on where another one ended.
    pub(super) fn of(node: &Node, desired: &Desired) -> Self {
        Self::open(&Records::new(&node.kubelet_root), &desired.uid, &desired.pod)
    }

    fn open(records: &Records, uid: &PodUid, pod: &Pod) -> Self {
        let path = records.events_path(uid);
        let before = read(&path);
        Self {
            next: before.back().map_or(0, |last| last.number + 1),
            lines: before.len(),
            path,
            namespace: spec::namespace(pod).to_owned(),
            name: spec::name(pod).to_owned(),
        }
    }

    /// Enters an event. It may get lost in a crash of the machine.
    pub(super) fn enter(&mut self, event: &PodEvent) -> io::Result<()> {
        let entry = Entry {
            number: self.next,
            time: event.time,
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            uid: event.uid.clone(),
            warning: event.reason.is_warning(),
            reason: event.reason.word(),
            container: event.container.clone(),
            message: event.message.clone(),
        };
        // A pod without a record is gone, and its journal with it.
        if !self.path.with_extension("json").exists() {
            return Ok(());
        }
        self.next += 1;
        let mut line = serde_json::to_vec(&entry)?;
        line.push(b'\n');
        if self.lines >= 2 * KEPT {
            return self.shorten(&line);
        }
        self.lines += 1;
        let mut file = File::options().create(true).append(true).open(&self.path)?;
        file.write_all(&line)
    }

    fn shorten(&mut self, line: &[u8]) -> io::Result<()> {
        let before = read(&self.path);
        let kept = before.iter().skip(before.len().saturating_sub(KEPT - 1));
        let mut text = Vec::new();
        for entry in kept {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        text.extend_from_slice(line);
        self.lines = text.iter().filter(|&&byte| byte == b'\n').count();
        let new = self.path.with_extension("events-new");
        std::fs::write(&new, text)?;
        std::fs::rename(new, &self.path)
    }
}

/// The events of a journal; a line that is half written or damaged is left out.
pub(super) fn read(path: &std::path::Path) -> VecDeque<Entry> {
    let text = std::fs::read(path).unwrap_or_default();
    text.split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use crate::worker::{EventReason, PodRecord};

    #[test]
    fn the_last_events_are_kept_and_go_with_the_pod() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::new(dir.path());
        let record = PodRecord::new(testing::pod(r#"{"containers":[]}"#), 1, PathBuf::new());
        records.save(&record).unwrap();
        let uid = record.uid();
        let event = |message: String| PodEvent {
            uid: uid.clone(),
            time: 5,
            reason: EventReason::Unhealthy,
            container: Some("c".into()),
            message,
        };
        let mut journal = Journal::open(&records, &uid, &record.pod);
        for number in 0..2 * KEPT + 10 {
            if number == 7 {
                journal = Journal::open(&records, &uid, &record.pod);
            }
            journal.enter(&event(number.to_string())).unwrap();
        }
        let kept = read(&records.events_path(&uid));
        assert_eq!(kept.len(), KEPT + 10 - 1);
        let last = kept.back().unwrap();
        assert_eq!((last.message.as_str(), last.number), ("1009", 1009));
        assert!(last.warning && last.reason == "Unhealthy");
        records.remove(&uid).unwrap();
        journal.enter(&event("too late".into())).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
