//! The steps that are being done.

use std::collections::{BTreeMap, BTreeSet};

use berth_cri::UnixNanos;
use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

use super::execute::{Done, Failure, Job};
use crate::plan::{Step, StepKey};

/// The steps of one pod that are being done, at most one of a kind, but for those that supersede.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    set: JoinSet<Result<Done, Failure>>,
    running: BTreeMap<StepKey, Running>,
}

#[derive(Debug)]
struct Running {
    step: Step,
    task: AbortHandle,
    deadline: watch::Sender<UnixNanos>,
    /// It is not planned any more.
    unwanted: watch::Sender<bool>,
    /// Something else is wanted by now.
    outdated: bool,
}

/// What is to be done with a step that was planned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Begin it.
    Begin,
    /// It is being done.
    Join,
}

impl Tasks {
    /// Decides on a planned step. One that is being done gets its nearer deadline if that is all that is new.
    pub(super) fn admit(&mut self, step: &Step) -> Admission {
        let Some(running) = self.running.get_mut(&step.key()) else {
            return Admission::Begin;
        };
        if !step.supersedes(&running.step) {
            return Admission::Join;
        }
        if let Step::RunHook { deadline, .. } = step {
            // A hook is not run twice; it only gets less time.
            running.deadline.send_replace(*deadline);
            running.step = step.clone();
            return Admission::Join;
        }
        Admission::Begin
    }

    /// Begins a step. A step of the same kind that is being done goes on, but only the end of this one counts.
    pub(super) fn begin(
        &mut self,
        step: &Step,
        job: impl FnOnce(watch::Receiver<UnixNanos>, watch::Receiver<bool>) -> Job,
    ) {
        let at = match step {
            Step::RunHook { deadline, .. } => *deadline,
            _ => 0,
        };
        let (deadline, receiver) = watch::channel(at);
        let (unwanted, is_unwanted) = watch::channel(false);
        let task = self.set.spawn(job(receiver, is_unwanted).run());
        self.running.insert(
            step.key(),
            Running {
                step: step.clone(),
                task,
                deadline,
                unwanted,
                outdated: false,
            },
        );
    }

    /// Drops steps that are not planned any more and need not come to an end: a pull for a pod that is deleted. The others are
    /// told that nobody waits for what they do. Returns what was dropped.
    pub(super) fn drop_unwanted(&mut self, planned: &[Step]) -> Vec<StepKey> {
        let mut dropped = Vec::new();
        self.running.retain(|key, running| {
            let is_planned = planned.iter().any(|step| step.key() == *key);
            let keep = is_planned || !key.is_cancellable();
            if !is_planned {
                running.unwanted.send_replace(true);
            }
            if !keep {
                running.task.abort();
                dropped.push(key.clone());
            }
            keep
        });
        dropped
    }

    /// What fails of these steps from now on says nothing about what is wanted now.
    pub(super) fn outdate(&mut self, of: impl Fn(&StepKey) -> bool) {
        for (key, running) in &mut self.running {
            running.outdated |= of(key);
        }
    }

    /// The kinds of steps that are being done.
    pub(super) fn keys(&self) -> BTreeSet<StepKey> {
        self.running.keys().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Waits for the end of a step that counts; waits for ever if none is being done.
    pub(super) async fn next(&mut self) -> (StepKey, Result<Done, Failure>) {
        loop {
            match self.set.join_next_with_id().await {
                Some(ended) => {
                    if let Some(ended) = self.ended(ended) {
                        return ended;
                    }
                }
                None => std::future::pending().await,
            }
        }
    }

    /// The end of a step that counts, if there is one now.
    pub(super) fn try_next(&mut self) -> Option<(StepKey, Result<Done, Failure>)> {
        while let Some(ended) = self.set.try_join_next_with_id() {
            let ended = self.ended(ended);
            if ended.is_some() {
                return ended;
            }
        }
        None
    }

    fn ended(
        &mut self,
        ended: Result<(Id, Result<Done, Failure>), JoinError>,
    ) -> Option<(StepKey, Result<Done, Failure>)> {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result),
            Err(error) => (
                error.id(),
                Err((
                    crate::plan::Reason::FailedSync,
                    format!("the step broke off: {error}"),
                )),
            ),
        };
        let key = self
            .running
            .iter()
            .find(|(_, running)| running.task.id() == id)?
            .0
            .clone();
        let outdated = self.running.remove(&key).is_some_and(|running| running.outdated);
        match result {
            Err(_) if outdated => Some((key, Ok(Done::Nothing))),
            result => Some((key, result)),
        }
    }
}
