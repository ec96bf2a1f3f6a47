//! What is known of a container, and how it is told.

use std::path::PathBuf;
use std::sync::Mutex;

use berth_shim::protocol::ExitRecord;
use tokio::sync::watch;

use crate::engine::EngineError;
use crate::local::records::{self, ContainerPhase, ContainerRecord, SandboxDirs};
use crate::local::{Container, RunState, Sandbox, lock, logs, now};
use crate::types::{ContainerState, ContainerStatus, UnixNanos};

/// What a process that nobody could reap is said to have ended with, as upstream says it.
const EXIT_CODE_UNKNOWN: i32 = 137;

impl Container {
    pub(in crate::local) fn new(record: ContainerRecord) -> Self {
        let state = match &record.exit {
            Some(exit) => RunState::Exited(exit.clone()),
            None => RunState::Created { pid: 0 },
        };
        Self {
            id: record.id.clone(),
            record: Mutex::new(record),
            limits: tokio::sync::Mutex::default(),
            run: watch::Sender::new(state),
            log: logs::LogCounter::default(),
            usage: Default::default(),
        }
    }

    /// A container of an engine before. Its shim knows more.
    pub(in crate::local) fn left(record: ContainerRecord) -> Self {
        let container = Self::new(record);
        if !container.has_ended() {
            container.run.send_replace(RunState::Unheard);
        }
        container
    }

    /// Waits until the shim's word that the program runs, or has ended, has arrived here: who is told that a container was
    /// started may use it at once.
    pub(super) async fn begun(&self) {
        let begun = |state: &RunState| !matches!(state, RunState::Created { .. });
        // The sender is this container's own, so that there is always one.
        let _ = self.run.subscribe().wait_for(begun).await;
    }

    pub(in crate::local) fn running(&self, sandbox: &Sandbox, pid: i32, started_at: UnixNanos) {
        self.note(&sandbox.dirs, |record| record.started_at = started_at);
        self.run.send_replace(RunState::Running { pid });
    }

    pub(in crate::local) fn exited(&self, sandbox: &Sandbox, exit: ExitRecord) {
        self.note(&sandbox.dirs, |record| {
            record.started_at = exit.started_at;
            record.exit = Some(exit.clone());
        });
        self.run.send_replace(RunState::Exited(exit));
    }

    /// Settles what became of a container whose shim can't be asked: its exit record on disk is the last word.
    pub(in crate::local) fn settle(&self, dirs: &SandboxDirs, unsettled: impl Fn(&RunState) -> bool) {
        if !unsettled(&self.run.borrow()) {
            return;
        }
        let exit = records::read::<ExitRecord>(&dirs.exit_record(&self.id))
            .ok()
            .flatten();
        let state = match exit {
            Some(exit) => {
                self.note(dirs, |record| record.exit = Some(exit.clone()));
                RunState::Exited(exit)
            }
            None => RunState::Unknown { since: now() },
        };
        self.run.send_replace(state);
        self.log.complete();
    }

    /// Keeps a fact on record. Not being able to must not stop what happens anyway: the shim still knows it.
    pub(super) fn note(&self, dirs: &SandboxDirs, change: impl FnOnce(&mut ContainerRecord)) {
        if let Err(error) = self.update_record(dirs, change) {
            tracing::warn!("{error}");
        }
    }

    pub(in crate::local) fn update_record(
        &self,
        dirs: &SandboxDirs,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<(), EngineError> {
        let mut record = lock(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        if changed == *record {
            return Ok(());
        }
        let written = records::write(&dirs.container_record(&self.id), &changed);
        *record = changed;
        written.map_err(|error| {
            EngineError::Unavailable(format!(
                "The record of container {} can't be written: {error}.",
                self.id
            ))
        })
    }

    /// Nobody but plugins is to know of a container that is being made.
    pub(in crate::local) fn is_made(&self) -> bool {
        lock(&self.record).phase != ContainerPhase::Creating
    }

    pub(in crate::local) fn has_ended(&self) -> bool {
        matches!(*self.run.borrow(), RunState::Exited(_) | RunState::Unknown { .. })
    }

    pub(super) async fn ended(&self) {
        let mut run = self.run.subscribe();
        // The sender lives as long as the container that is borrowed here.
        let _ = run
            .wait_for(|state| matches!(state, RunState::Exited(_) | RunState::Unknown { .. }))
            .await;
    }

    /// Waits for the end, and tells the exit code.
    pub(in crate::local) async fn exit_code(&self) -> i32 {
        self.ended().await;
        match &*self.run.borrow() {
            RunState::Exited(exit) => exit.exit_code,
            _ => EXIT_CODE_UNKNOWN,
        }
    }

    pub(in crate::local) fn status(&self, sandbox: &Sandbox) -> ContainerStatus {
        let record = lock(&self.record).clone();
        let (pod_uid, log_directory) = {
            let pod = lock(&sandbox.record);
            (pod.config.uid.clone(), pod.config.log_directory.clone())
        };
        let run = self.run.borrow().clone();
        let (state, pid) = match &run {
            RunState::Created { pid } => (ContainerState::Created, *pid),
            RunState::Running { pid } => (ContainerState::Running, *pid),
            RunState::Exited(_) => (ContainerState::Exited, 0),
            RunState::Unheard | RunState::Unknown { .. } => (ContainerState::Unknown, 0),
        };
        let (exit_code, finished_at, reason) = ending(&record, &run);
        ContainerStatus {
            id: self.id.clone(),
            sandbox: sandbox.id.clone(),
            pod_uid,
            image_id: record.image_id,
            state,
            created_at: record.created_at,
            started_at: record.started_at,
            finished_at,
            exit_code,
            reason: reason.to_owned(),
            message: record.cannot_run.unwrap_or_default(),
            log_path: if record.config.log_path.as_os_str().is_empty() {
                PathBuf::new()
            } else {
                log_directory.join(&record.config.log_path)
            },
            pid,
            user: record.user,
            stop_signal: record.stop_signal,
            config: record.config,
        }
    }
}

/// Exit code, time and reason, in the words that kubectl shows.
fn ending(record: &ContainerRecord, run: &RunState) -> (i32, UnixNanos, &'static str) {
    match run {
        RunState::Created { .. } | RunState::Running { .. } => (0, 0, ""),
        RunState::Unheard => (0, 0, "ShimUnresponsive"),
        RunState::Unknown { since } => (EXIT_CODE_UNKNOWN, *since, "ContainerStatusUnknown"),
        RunState::Exited(exit) => {
            let reason = match exit {
                _ if record.cannot_run.is_some() => "ContainerCannotRun",
                exit if exit.oom_killed => "OOMKilled",
                exit if exit.exit_code == 0 => "Completed",
                _ => "Error",
            };
            (exit.exit_code, exit.finished_at, reason)
        }
    }
}
