//! One pod in the foreground: its events and logs on the terminal, its end, and what the command ends with.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_cri::{ContainerId, ContainerState, ContainerStatus, Engine};
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::journal::Journal;
use super::printer::Printer;
use crate::identity::PodUid;
use crate::logs::{Follower, LogReader, Start};
use crate::plan::Stage;
use crate::worker::{EventReason, PodEvent, PodHandle, PodState};

/// How long the last lines of containers that have ended may take to come.
const LAST_LINES: Duration = Duration::from_secs(2);

/// How impatient the person at the terminal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Patience {
    /// The pod may run.
    #[default]
    Run,
    /// It is to stop within its grace period.
    Stop,
    /// It is to be killed at once.
    Kill,
}

/// A pod in the foreground.
pub(super) struct Session {
    pub(super) name: String,
    pub(super) uid: PodUid,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) printer: Arc<Printer>,
    pub(super) journal: Journal,
    pub(super) handle: PodHandle,
    pub(super) events: mpsc::UnboundedReceiver<PodEvent>,
    pub(super) patience: watch::Receiver<Patience>,
    /// Logs that are being read.
    pub(super) followers: JoinSet<()>,
    /// Containers whose logs were or are being read.
    pub(super) followed: BTreeSet<ContainerId>,
    /// How many lines of logs were printed.
    pub(super) shown: Arc<AtomicU64>,
}

impl Session {
    /// Runs until nothing of the pod is left; returns its last state.
    pub(super) async fn run(mut self) -> PodState {
        let mut ending = false;
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.show(&event).await,
                Ok(()) = self.patience.changed() => {
                    ending = true;
                    self.hurry();
                }
                changed = self.handle.state.changed() => if changed.is_err() {
                    self.show_rest().await;
                    return self.handle.state.borrow().clone();
                },
            }
            let stage = self.handle.state.borrow().stage;
            if stage >= Stage::Terminated && !ending {
                // Its work is done.
                ending = true;
                self.show_rest().await;
                self.handle.delete(None);
            }
            if stage >= Stage::Removing {
                self.show_rest().await;
                self.handle.release_logs();
            }
        }
    }

    fn hurry(&mut self) {
        match *self.patience.borrow_and_update() {
            Patience::Run => {}
            Patience::Stop => self.handle.delete(None),
            Patience::Kill => self.handle.delete(Some(Duration::ZERO)),
        }
    }

    async fn show(&mut self, event: &PodEvent) {
        if matches!(
            event.reason,
            EventReason::Started | EventReason::Adopted | EventReason::Exited
        ) {
            let start = if event.reason == EventReason::Adopted {
                Start::End
            } else {
                Start::Oldest
            };
            self.follow_new(start).await;
        }
        if let Err(error) = self.journal.enter(event) {
            self.printer
                .note(&format!("{}: the pod's events can't be kept: {error}", self.name));
        }
        self.printer.event(&self.name, event);
    }

    /// Everything that was said until now, and the last lines of containers that have ended.
    async fn show_rest(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.show(&event).await;
        }
        let mut shown = self.shown.load(Ordering::Relaxed);
        loop {
            let followers = &mut self.followers;
            let all = async { while followers.join_next().await.is_some() {} };
            if timeout(LAST_LINES, all).await.is_ok() {
                return;
            }
            // A process that left its container and holds the log open must not hold us, nor a terminal that stands
            // still; one that is only slow may have its lines.
            let now = self.shown.load(Ordering::Relaxed);
            if now == shown || *self.patience.borrow() == Patience::Kill {
                return self.followers.abort_all();
            }
            shown = now;
        }
    }

    /// Begins to read the logs of containers that have started.
    async fn follow_new(&mut self, start: Start) {
        let Ok(containers) = self.engine.list_containers(Some(&self.uid.0)).await else {
            return;
        };
        for container in containers {
            if container.state != ContainerState::Created && self.followed.insert(container.id.clone()) {
                self.follow(container, start);
            }
        }
    }

    fn follow(&mut self, container: ContainerStatus, start: Start) {
        let (engine, printer) = (Arc::clone(&self.engine), Arc::clone(&self.printer));
        let (pod, shown) = (self.name.clone(), Arc::clone(&self.shown));
        self.followers.spawn(async move {
            let name = container.config.name.as_str();
            let reader = LogReader::new(&container.log_path, start);
            let read = async {
                let mut follower = Follower::new(engine.as_ref(), &container.id, reader).await?;
                while let Some(line) = follower.next().await? {
                    printer.log(&pod, name, &line).await;
                    shown.fetch_add(1, Ordering::Relaxed);
                }
                io::Result::Ok(())
            };
            if let Err(error) = read.await {
                printer.note(&format!("{pod}: the log of {name} can't be read: {error}"));
            }
        });
    }
}

/// What the command ends with: 0 for a pod that succeeded, else the code of the container that failed first.
pub(super) fn exit_code(status: &PodStatus) -> u8 {
    if status.phase.as_deref() != Some("Failed") {
        return 0;
    }
    let init = status.init_container_statuses.iter().flatten();
    let failed = init
        .chain(status.container_statuses.iter().flatten())
        .filter_map(|container| {
            let ended = container.state.as_ref()?.terminated.as_ref()?;
            (ended.exit_code != 0).then_some((ended.finished_at.as_ref().map(|time| time.0), ended.exit_code))
        });
    let first = failed.min_by_key(|(finished_at, _)| *finished_at);
    first.map_or(1, |(_, code)| u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn ended(code: i32, at: i64) -> ContainerStatus {
        let finished_at = Some(Time(jiff::Timestamp::from_second(at).unwrap()));
        let terminated = ContainerStateTerminated {
            exit_code: code,
            finished_at,
            ..Default::default()
        };
        let state = Some(ContainerState {
            terminated: Some(terminated),
            ..ContainerState::default()
        });
        ContainerStatus {
            state,
            ..ContainerStatus::default()
        }
    }

    #[test]
    fn the_first_failure_counts() {
        let status = |phase: &str, containers: Vec<ContainerStatus>| PodStatus {
            phase: Some(phase.into()),
            container_statuses: Some(containers),
            ..PodStatus::default()
        };
        assert_eq!(exit_code(&status("Succeeded", vec![ended(0, 1)])), 0);
        assert_eq!(exit_code(&status("Running", vec![ended(3, 1)])), 0);
        assert_eq!(
            exit_code(&status("Failed", vec![ended(0, 1), ended(4, 3), ended(3, 2)])),
            3
        );
        assert_eq!(exit_code(&status("Failed", vec![])), 1);
    }
}
