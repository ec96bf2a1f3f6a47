//! What is known of a sandbox, and how it is told.

use std::fs::File;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use nix::fcntl::Flock;
use tokio::sync::watch;

use crate::engine::EngineError;
use crate::local::cgroups::Place;
use crate::local::records::{self, SandboxDirs, SandboxPhase, SandboxRecord};
use crate::local::{Container, RunState, Sandbox, Shim, lock};
use crate::types::{ContainerId, PodSandboxStatus};

impl Sandbox {
    pub(in crate::local) fn new(dirs: SandboxDirs, lock_file: Flock<File>, record: SandboxRecord) -> Self {
        Self {
            id: record.id.clone(),
            dirs,
            _lock: lock_file,
            changing: Arc::default(),
            checkpointing: Arc::default(),
            making: AtomicBool::new(false),
            taken_over: watch::Sender::new(true),
            failure: Mutex::default(),
            record: Mutex::new(record),
            shim: Mutex::default(),
            containers: Mutex::default(),
            execs: Mutex::default(),
            usage: Default::default(),
        }
    }

    pub(in crate::local) fn status(&self) -> PodSandboxStatus {
        let record = lock(&self.record);
        let alive = lock(&self.shim)
            .as_ref()
            .is_some_and(|shim| shim.pause_pid.is_some());
        PodSandboxStatus {
            id: record.id.clone(),
            config: record.config.clone(),
            ready: alive && record.phase == SandboxPhase::Ready,
            created_at: record.created_at,
            ips: record.ips.clone(),
        }
    }

    pub(in crate::local) fn update_record(
        &self,
        change: impl FnOnce(&mut SandboxRecord),
    ) -> Result<(), EngineError> {
        let mut record = lock(&self.record);
        let mut changed = record.clone();
        change(&mut changed);
        if changed == *record {
            return Ok(());
        }
        records::write(&self.dirs.record(), &changed).map_err(|error| {
            EngineError::Unavailable(format!(
                "The record of sandbox {} can't be written: {error}.",
                self.id
            ))
        })?;
        *record = changed;
        Ok(())
    }

    /// Keeps a fact on record, in memory if the disk is full: it is true all the same, and what takes things away must not
    /// wait for space to do so.
    pub(super) fn note(&self, change: impl FnOnce(&mut SandboxRecord)) {
        let mut record = lock(&self.record);
        let before = record.clone();
        change(&mut record);
        if *record == before {
            return;
        }
        if let Err(error) = records::write(&self.dirs.record(), &*record) {
            tracing::warn!("The record of sandbox {} can't be written: {error}.", self.id);
        }
    }

    pub(in crate::local) fn live_shim(&self) -> Result<Shim, EngineError> {
        lock(&self.shim).clone().ok_or_else(|| {
            EngineError::FailedPrecondition(format!(
                "Sandbox {} has no shim any more; it needs a new attempt.",
                self.id
            ))
        })
    }

    /// Whether the shim does not answer, as far as is known.
    pub(in crate::local) fn is_silent(&self, container: &Container) -> bool {
        match lock(&self.shim).as_ref() {
            Some(shim) => shim.client.is_silent(),
            None => matches!(*container.run.borrow(), RunState::Unheard),
        }
    }

    /// Why nothing can be done with a sandbox whose shim this engine has not heard yet.
    pub(in crate::local) fn unheard(&self) -> EngineError {
        EngineError::FailedPrecondition(format!(
            "The shim of sandbox {} does not answer; it is stopped, or hangs. Stop the sandbox to end it.",
            self.id
        ))
    }

    pub(in crate::local) fn all_containers(&self) -> Vec<Arc<Container>> {
        lock(&self.containers).values().cloned().collect()
    }

    /// The shim's and the pause's own cgroup.
    pub(in crate::local) fn place(&self) -> Place {
        Place::of(&lock(&self.record), &self.id.0)
    }

    /// A container's cgroup.
    pub(in crate::local) fn place_of(&self, container: &ContainerId) -> Place {
        Place::of(&lock(&self.record), &container.0)
    }

    /// Every cgroup that may hold a process of this sandbox.
    pub(in crate::local) fn places(&self) -> Vec<Place> {
        let containers = self.all_containers();
        let theirs = containers.iter().map(|container| self.place_of(&container.id));
        theirs.chain([self.place()]).collect()
    }

    /// What becomes of its containers when the shim is gone: the exit records on disk are the last word.
    pub(in crate::local) fn settle_containers(&self) {
        for container in self.all_containers() {
            container.settle(&self.dirs, |state| !matches!(state, RunState::Exited(_)));
        }
    }
}
