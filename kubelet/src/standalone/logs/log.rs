//! The log of one container.

use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ContainerState, PodStatus};
use tokio::sync::mpsc;

use super::begin::Begin;
use super::late::LateLines;
use super::{LogOptions, PodLogLine};
use crate::logs::{LogLine, LogReader, Start};
use crate::spec;
use crate::standalone::inspect::InspectError;
use crate::status::has_ended;
use crate::watch::Watch;
use crate::worker::{PodRecord, Records};

/// Why reading stopped early.
pub(super) enum Stop {
    SinkIsFull,
    Error(InspectError),
}

impl From<InspectError> for Stop {
    fn from(error: InspectError) -> Self {
        Self::Error(error)
    }
}

/// The log of one container, over its restarts.
pub(super) struct Log {
    pub(super) directory: PathBuf,
    pub(super) records: Records,
    pub(super) records_directory: PathBuf,
    pub(super) record: PodRecord,
    pub(super) status: Option<PodStatus>,
    pub(super) container: String,
    /// The pod, as it was asked for.
    pub(super) shown: String,
    /// How many bytes are still wanted.
    pub(super) left: Option<u64>,
    pub(super) options: LogOptions,
}

impl Log {
    /// Gives what there is.
    pub(super) fn read(&mut self, sink: &mut impl FnMut(PodLogLine) -> io::Result<()>) -> Result<(), Stop> {
        let status = self.status.as_ref();
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
        while self.left != Some(0) {
            let line = reader
                .next_line()
                .map_err(|error| self.unreadable(attempt, error))?;
            let done = line.is_none();
            let mut lines: Vec<LogLine> = line.and_then(|line| begin.push(line)).into_iter().collect();
            if done {
                let last = reader.finish().into_iter();
                lines.extend(last.filter_map(|line| begin.push(line)));
                lines.extend(begin.end());
            }
            for line in lines.into_iter().filter_map(|line| self.named(line)) {
                sink(line).map_err(|_| Stop::SinkIsFull)?;
            }
            if done {
                break;
            }
        }
        Ok(())
    }

    /// Ends when the container is not to run again, or when nobody takes the lines any more, or wants them.
    pub(super) async fn follow(
        &mut self,
        sender: &mpsc::Sender<Result<PodLogLine, InspectError>>,
    ) -> Result<(), InspectError> {
        let directory = self.directory.clone();
        let failed = |source| InspectError::Watch {
            path: directory.clone(),
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
                for line in lines.drain(..).filter_map(|line| self.named(line)) {
                    if sender.send(Ok(line)).await.is_err() {
                        return Ok(());
                    }
                }
                if self.left == Some(0) {
                    return Ok(());
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

    /// As it is printed; `None` once as much has been printed as is wanted.
    fn named(&mut self, line: LogLine) -> Option<PodLogLine> {
        let mut text = Vec::with_capacity(line.time.len() + line.text.len() + 2);
        if self.options.timestamps {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&line.text);
        text.push(b'\n');
        if let Some(left) = &mut self.left {
            text.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= text.len() as u64;
            if text.is_empty() {
                return None;
            }
        }
        Some(PodLogLine {
            pod: spec::name(&self.record.pod).to_owned(),
            container: self.container.clone(),
            stream: line.stream,
            text,
        })
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
