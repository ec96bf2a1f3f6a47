//! `berth logs`: what containers have written, and what they go on to write.

mod begin;
mod late;
mod log;
#[cfg(test)]
mod tests;

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use jiff::Timestamp;
use tokio::sync::mpsc;

use self::log::{Log, Stop};
use super::choose;
use super::inspect::{InspectError, Places};
use crate::logs::Stream;
use crate::spec;
use crate::worker::{PodRecord, Records};

/// Lines of containers that are followed wait here until they are taken.
const ROOM: usize = 64;

/// Which lines are wanted.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Of which container; `None` is the one that kubectl would take.
    pub container: Option<String>,
    /// Of all containers.
    pub all_containers: bool,
    /// Of the container before the last restart.
    pub previous: bool,
    /// Also what is written from now on, until no container can write any more.
    pub follow: bool,
    /// Only so many lines of what is there already, of each container.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Only so many bytes of each container, times and ends of lines included.
    pub limit_bytes: Option<u64>,
    /// No more logs than these are followed at a time.
    pub most_followed: Option<NonZeroUsize>,
}

/// A line and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLogLine {
    /// The pod's name.
    pub pod: String,
    /// The container.
    pub container: String,
    /// Where it wrote the line to.
    pub stream: Stream,
    /// The line with its time, if that was asked for, and its end, unless [`LogOptions::limit_bytes`] cut that off.
    pub text: Vec<u8>,
}

impl Places {
    /// Gives the lines of pods' containers to `sink`, which ends it with an error. `notice` is told what there is to
    /// say to the person who asked. Of several pods, those whose log can't be had are only noticed.
    ///
    /// # Errors
    /// There is no such pod, container or log, or it can't be read. An error of the sink is no error.
    pub async fn logs(
        &self,
        pods: &[String],
        options: &LogOptions,
        mut notice: impl FnMut(&str),
        mut sink: impl FnMut(PodLogLine) -> io::Result<()>,
    ) -> Result<(), InspectError> {
        let mut logs = Vec::new();
        for pod in pods {
            match self.logs_of(pod, options, &mut notice) {
                Ok(some) => logs.extend(some),
                Err(error) if pods.len() > 1 => notice(&error.to_string()),
                Err(error) => return Err(error),
            }
        }
        if options.follow && !options.previous {
            return follow_all(logs, options.most_followed, sink).await;
        }
        for mut log in logs {
            match log.read(&mut sink) {
                // One that has not begun has nothing to say; the others have.
                Err(Stop::Error(InspectError::NoLog { .. })) if options.all_containers => {}
                Err(Stop::Error(error)) if pods.len() > 1 => notice(&error.to_string()),
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::SinkIsFull) => return Ok(()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Those logs of a pod that are asked for.
    fn logs_of(
        &self,
        pod: &str,
        options: &LogOptions,
        notice: &mut impl FnMut(&str),
    ) -> Result<Vec<Log>, InspectError> {
        let (record, status) = self.find(pod)?;
        let containers = if options.all_containers {
            choose::names(&record.pod)
        } else {
            let chosen = choose::container(&record.pod, pod, options.container.as_deref())?;
            chosen.notice.as_deref().map(notice);
            vec![chosen.container]
        };
        let log = |container: String| Log {
            directory: self.log_directory(&record).join(&container),
            records: Records::new(&self.kubelet_root),
            records_directory: self.kubelet_root.join("pod-records"),
            record: record.clone(),
            status: status.clone(),
            container,
            shown: pod.to_owned(),
            left: options.limit_bytes,
            options: options.clone(),
        };
        Ok(containers.into_iter().map(log).collect())
    }

    fn log_directory(&self, record: &PodRecord) -> PathBuf {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        self.log_root.join(format!("{namespace}_{name}_{}", record.uid()))
    }
}

/// Follows each container in a task of its own. Lines of one container come in their order.
async fn follow_all(
    logs: Vec<Log>,
    most: Option<NonZeroUsize>,
    mut sink: impl FnMut(PodLogLine) -> io::Result<()>,
) -> Result<(), InspectError> {
    if let Some(most) = most.filter(|most| logs.len() > most.get()) {
        let logs = logs.len();
        return Err(InspectError::TooManyLogs { logs, most });
    }
    let (sender, mut receiver) = mpsc::channel(ROOM);
    for mut log in logs {
        let sender = sender.clone();
        tokio::spawn(async move {
            if let Err(error) = log.follow(&sender).await {
                // Nobody may be there to hear of it any more.
                let _ = sender.send(Err(error)).await;
            }
        });
    }
    drop(sender);
    while let Some(line) = receiver.recv().await {
        if sink(line?).is_err() {
            break;
        }
    }
    Ok(())
}
