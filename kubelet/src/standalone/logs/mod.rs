//! `berth logs`: what containers have written, and what they go on to write.

mod begin;
mod late;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, PodStatus};
use tokio::sync::mpsc;

use self::begin::Begin;
use self::late::LateLines;
use super::choose;
use super::inspect::{InspectError, Places};
use crate::logs::{LogLine, LogReader, Start};
use crate::spec;
use crate::status::has_ended;
use crate::watch::Watch;
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
    /// Only so many lines of what is there already.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
}

/// A line and where it comes from.
#[derive(Clone, Debug)]
pub struct PodLogLine {
    /// The container.
    pub container: String,
    /// What it wrote.
    pub line: LogLine,
}

impl Places {
    /// Gives the lines of a pod's containers to `sink`, which ends it with an error. `notice` is told what there is to
    /// say to the person who asked.
    ///
    /// # Errors
    /// There is no such pod, container or log, or it can't be read. An error of the sink is no error.
    pub async fn logs(
        &self,
        pod: &str,
        options: &LogOptions,
        notice: impl FnOnce(&str),
        mut sink: impl FnMut(PodLogLine) -> io::Result<()>,
    ) -> Result<(), InspectError> {
        let (record, status) = self.find(pod)?;
        let containers = if options.all_containers {
            choose::names(&record.pod)
        } else {
            let chosen = choose::container(&record.pod, pod, options.container.as_deref())?;
            chosen.notice.as_deref().map(notice);
            vec![chosen.container]
        };
        let log = |container: &String| Log {
            directory: self.log_directory(&record).join(container),
            records: Records::new(&self.kubelet_root),
            records_directory: self.kubelet_root.join("pod-records"),
            record: record.clone(),
            container: container.clone(),
            shown: pod.to_owned(),
            options: options.clone(),
        };
        if options.follow && !options.previous {
            return follow_all(containers.iter().map(log), sink).await;
        }
        for container in &containers {
            match log(container).read(status.as_ref(), &mut sink) {
                // One that has not begun has nothing to say; the others have.
                Err(Stop::Error(InspectError::NoLog { .. })) if options.all_containers => {}
                Err(Stop::Error(error)) => return Err(error),
                Err(Stop::SinkIsFull) => return Ok(()),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn log_directory(&self, record: &PodRecord) -> PathBuf {
        let (namespace, name) = (spec::namespace(&record.pod), spec::name(&record.pod));
        self.log_root.join(format!("{namespace}_{name}_{}", record.uid()))
    }
}

/// Why reading stopped early.
enum Stop {
    SinkIsFull,
    Error(InspectError),
}

impl From<InspectError> for Stop {
    fn from(error: InspectError) -> Self {
        Self::Error(error)
    }
}

/// Follows each container in a task of its own. Lines of one container come in their order.
async fn follow_all(
    logs: impl Iterator<Item = Log>,
    mut sink: impl FnMut(PodLogLine) -> io::Result<()>,
) -> Result<(), InspectError> {
    let (sender, mut receiver) = mpsc::channel(ROOM);
    for log in logs {
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

/// The log of one container, over its restarts.
struct Log {
    directory: PathBuf,
    records: Records,
    records_directory: PathBuf,
    record: PodRecord,
    container: String,
    shown: String,
    options: LogOptions,
}

impl Log {
    fn read(
        &self,
        status: Option<&PodStatus>,
        mut sink: impl FnMut(PodLogLine) -> io::Result<()>,
    ) -> Result<(), Stop> {
        let mut attempts = attempts(&self.directory);
        // A container that waits for its restart has ended: then the last one is the previous one.
        if self.options.previous && !is_waiting(status, &self.container) {
            attempts.pop();
        }
        let Some(attempt) = attempts.pop() else {
            return Err(Stop::Error(InspectError::NoLog {
                pod: self.shown.clone(),
                container: self.container.clone(),
                what: if self.options.previous { "previous " } else { "" },
                why: status
                    .filter(|_| !self.options.previous)
                    .and_then(|status| waits_for(status, &self.container))
                    .map_or_else(String::new, |why| format!(": {}", why.trim_end_matches('.'))),
            }));
        };
        let mut reader = self.reader(attempt);
        let mut begin = Begin::new(&self.options);
        let mut take = |line| sink(self.named(line)).map_err(|_| Stop::SinkIsFull);
        while let Some(line) = reader
            .next_line()
            .map_err(|error| self.unreadable(attempt, error))?
        {
            begin.push(line).map_or(Ok(()), &mut take)?;
        }
        for line in reader.finish() {
            begin.push(line).map_or(Ok(()), &mut take)?;
        }
        begin.end().try_for_each(take)
    }

    /// Ends when the container is not to run again, or when nobody takes the lines any more.
    async fn follow(
        &self,
        sender: &mpsc::Sender<Result<PodLogLine, InspectError>>,
    ) -> Result<(), InspectError> {
        let failed = |source| InspectError::Watch {
            path: self.directory.clone(),
            source,
        };
        let watch =
            Watch::new(vec![self.directory.clone(), self.records_directory.clone()]).map_err(failed)?;
        let mut begin = Begin::new(&self.options);
        let mut current: Option<(u32, LogReader)> = None;
        // One whose end came before we looked has written all.
        let mut late = LateLines::NoneExpected;
        loop {
            watch.arm().map_err(failed)?;
            // Looked at before the log is read: what was written before is in it.
            let ended = self.is_over();
            let over = ended && !late.may_come();
            let all = attempts(&self.directory);
            let (attempt, reader) = match &mut current {
                Some((attempt, reader)) => (*attempt, reader),
                None => match all.last() {
                    Some(&last) => {
                        let (_, reader) = current.insert((last, self.reader(last)));
                        (last, reader)
                    }
                    None if ended => return Ok(()),
                    None => {
                        watch.changed().await.map_err(failed)?;
                        late = LateLines::Expected;
                        continue;
                    }
                },
            };
            let next = all.iter().find(|&&one| one > attempt);
            let mut lines = Vec::new();
            loop {
                let line = reader
                    .next_line()
                    .map_err(|error| self.unreadable(attempt, error))?;
                let done = line.is_none();
                lines.extend(line.and_then(|line| begin.push(line)));
                if done {
                    // Whatever comes from now on is new.
                    lines.extend(begin.end());
                    if next.is_some() || over {
                        lines.extend(reader.finish());
                    }
                }
                // The channel is as wide as the taker is quick.
                for line in lines.drain(..) {
                    if sender.send(Ok(self.named(line))).await.is_err() {
                        return Ok(());
                    }
                }
                if done {
                    break;
                }
            }
            match next {
                Some(&next) => current = Some((next, self.reader(next))),
                None if over => return Ok(()),
                None => tokio::select! {
                    changed = watch.changed() => {
                        changed.map_err(failed)?;
                        late.expect(ended);
                    }
                    () = late.quiet(ended) => {}
                    () = sender.closed() => return Ok(()),
                },
            }
        }
    }

    fn reader(&self, attempt: u32) -> LogReader {
        LogReader::new(self.path(attempt), Start::Oldest)
    }

    fn path(&self, attempt: u32) -> PathBuf {
        self.directory.join(format!("{attempt}.log"))
    }

    fn named(&self, line: LogLine) -> PodLogLine {
        PodLogLine {
            container: self.container.clone(),
            line,
        }
    }

    fn unreadable(&self, attempt: u32, source: io::Error) -> InspectError {
        InspectError::Log {
            path: self.path(attempt),
            source,
        }
    }

    /// The container does not run and will not run again.
    fn is_over(&self) -> bool {
        let uid = self.record.uid();
        if !matches!(self.records.load(&uid), Ok(Some(_))) {
            return true;
        }
        let Some(status) = self.records.load_status(&uid) else {
            return false;
        };
        if has_ended(&status) {
            return true;
        }
        let Some((container, role)) = spec::container(&self.record.pod, &self.container) else {
            // An ephemeral one runs once.
            let ephemeral = state(&status, &self.container);
            return ephemeral.is_none_or(|state| state.terminated.is_some());
        };
        let ended = state(&status, &self.container).and_then(|state| state.terminated.as_ref());
        ended.is_some_and(|ended| !spec::restarts(&self.record.pod, container, role, ended.exit_code))
    }
}

fn state<'a>(status: &'a PodStatus, container: &str) -> Option<&'a ContainerState> {
    let init = status.init_container_statuses.iter().flatten();
    let ephemeral = status.ephemeral_container_statuses.iter().flatten();
    let mut all = init
        .chain(status.container_statuses.iter().flatten())
        .chain(ephemeral);
    all.find(|status| status.name == container)?.state.as_ref()
}

fn is_waiting(status: Option<&PodStatus>, container: &str) -> bool {
    status
        .and_then(|status| state(status, container))
        .is_some_and(|state| state.waiting.is_some())
}

/// Why a container has not begun.
fn waits_for(status: &PodStatus, container: &str) -> Option<String> {
    let waiting = state(status, container)?.waiting.as_ref()?;
    let reason = waiting.reason.clone()?;
    Some(match waiting.message.as_deref() {
        Some(message) if !message.is_empty() => format!("{reason}: {message}"),
        _ => reason,
    })
}

/// The numbers of `<n>.log` files, the least first.
fn attempts(directory: &Path) -> Vec<u32> {
    let names = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let number = |name: std::ffi::OsString| name.to_str()?.strip_suffix(".log")?.parse().ok();
    let mut attempts: Vec<u32> = names.filter_map(|entry| number(entry.file_name())).collect();
    attempts.sort_unstable();
    attempts
}
