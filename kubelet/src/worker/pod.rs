//! The worker itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use berth_cri::{EngineError, UnixNanos};
use k8s_openapi::api::core::v1::PodStatus;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::announce::Announcer;
use super::event::EventReason;
use super::execute::Job;
use super::inbox::{Inbox, Wake};
use super::memory::Memory;
use super::observe::pod_ip;
use super::preemption::Victims;
use super::record::{PodRecord, Records};
use super::reporter::Reporter;
use super::room::RoomWatch;
use super::sole::Sole;
use super::storage::StorageWatch;
use super::tasks::{Admission, Tasks};
use super::{Command, Node, PodState};
use crate::admission::Share;
use crate::plan::{self, Desired, Observed, Plan, ProbeWanted, Stage, Step};
use crate::prober::ProbeReport;
use crate::user_ids::{Claims, wants_own};
use crate::volumes::PodDir;
use crate::{config, spec, status};

/// After the engine could not answer, or a last file could not be removed, the worker tries again after this.
const RETRY: Duration = Duration::from_secs(1);

pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) desired: Desired,
    pub(super) dir: PodDir,
    pub(super) records: Records,
    pub(super) record: PodRecord,
    pub(super) memory: Memory,
    pub(super) tasks: Tasks,
    pub(super) probes: BTreeMap<ProbeWanted, AbortHandle>,
    pub(super) probe_sender: mpsc::UnboundedSender<ProbeReport>,
    pub(super) storage: StorageWatch,
    pub(super) room: RoomWatch,
    pub(super) inbox: Inbox,
    /// Images that are to be looked up again.
    pub(super) doubtful_images: BTreeSet<String>,
    pub(super) state: watch::Sender<PodState>,
    pub(super) reporter: Reporter,
    pub(super) announcer: Announcer,
    /// The pod was looked at once.
    pub(super) adopted: bool,
    /// The status that an earlier daemon left, until there is a newer one.
    pub(super) recalled: Option<PodStatus>,
    /// Containers that are to be started anew, by name, until the next look tells which ones these are.
    pub(super) restart_asked: BTreeSet<String>,
    /// Volumes are being set up with objects that are others by now.
    pub(super) refresh_due: bool,
    /// How often volumes were brought up to date, so that an older state never follows a newer one.
    pub(super) refreshes: Arc<AtomicU64>,
    /// Resolves when nobody reads the pod's logs any more.
    pub(super) logs_released: Option<oneshot::Receiver<()>>,
    /// There is no other worker for the pod.
    pub(super) sole: Sole,
    /// Pods that make room for this one.
    pub(super) victims: Victims,
}

/// What a look at the pod says about the next one.
enum Next {
    /// The pod is gone.
    Gone,
    /// Look again when something happens, or at that time.
    Wait(Option<UnixNanos>),
}

impl Worker {
    pub(super) async fn run(mut self) {
        loop {
            let next = match self.turn().await {
                Ok(next) => next,
                Err(error) => {
                    self.announcer.trouble(&self.reporter, error.to_string());
                    Next::Wait(Some(self.node.clock.now() + nanos(RETRY)))
                }
            };
            match next {
                Next::Gone => return,
                Next::Wait(at) => self.wait(at).await,
            }
        }
    }

    /// Observe, plan, publish, act.
    async fn turn(&mut self) -> Result<Next, EngineError> {
        let observed = self.observe().await?;
        let now = self.node.clock.now();
        let plan = plan::plan(&self.desired, &observed, now);
        self.note_failure(&plan);
        self.note_resize(&plan);
        self.note_spared(&plan);
        self.publish(&observed, &plan, now);
        if plan.stage == Stage::Gone && self.tasks.is_empty() {
            return Ok(self.finish().await);
        }
        self.announcer.no_trouble();
        if plan.stage == Stage::Syncing && self.victims.remain() {
            return Ok(Next::Wait(None));
        }
        let desired = plan::effective(&self.desired, &plan.resize).into_owned();
        self.begin_steps(&desired, &plan.steps, &observed);
        self.run_probes(&plan.probes, &observed);
        let runs = plan.stage == Stage::Syncing && !spec::is_gated(&desired.pod);
        let deferred = plan
            .resize
            .pending
            .as_ref()
            .is_some_and(|pending| !pending.infeasible);
        self.room.keep(runs && deferred, &self.records);
        self.storage
            .keep(runs, &self.node, &self.desired.pod, &self.dir, &self.reporter);
        Ok(Next::Wait(plan.wake_at))
    }

    fn publish(&mut self, observed: &Observed, plan: &Plan, now: UnixNanos) {
        self.announcer.waiting(&self.reporter, plan);
        let last = self.state.borrow().clone();
        // What is left of a pod that is being removed says nothing about how it ended.
        let frozen = last.stage >= Stage::Removing;
        let status = if frozen {
            last.status.clone()
        } else {
            let recalled = self.recalled.take();
            let previous = recalled.as_ref().unwrap_or(&last.status);
            status::pod_status(&self.desired, observed, plan, Some(previous), now)
        };
        if !frozen {
            self.announcer.status(&self.reporter, &status);
        }
        if status != last.status {
            let runs = !status::has_ended(&status);
            let has = runs && !spec::is_gated(&self.desired.pod);
            self.sole.has(has.then(|| Share::of(self.given())));
        }
        if status != last.status || plan.stage != last.stage || !Arc::ptr_eq(&last.pod, &self.desired.pod) {
            if status != last.status
                && let Err(error) = self.records.save_status(&self.desired.uid, &status)
            {
                self.reporter.pod(
                    EventReason::FailedSync,
                    format!("can't write the pod's status: {error}"),
                );
            }
            let pod = Arc::clone(&self.desired.pod);
            self.state.send_replace(PodState {
                pod,
                status,
                stage: plan.stage,
            });
        }
    }

    fn begin_steps(&mut self, desired: &Desired, steps: &[Step], observed: &Observed) {
        let dropped = self.tasks.drop_unwanted(steps);
        self.tell_of_late_hooks(&dropped, steps);
        for step in steps {
            if self.tasks.admit(step) == Admission::Join {
                continue;
            }
            self.note_kill(step);
            let job = |deadline, unwanted| Job {
                node: Arc::clone(&self.node),
                desired: desired.clone(),
                dir: self.dir.clone(),
                ip: pod_ip(observed, &self.node.facts.host_ips),
                step: step.clone(),
                deadline,
                unwanted,
                reporter: self.reporter.clone(),
            };
            self.tasks.begin(step, job);
        }
    }

    /// Waits until something happens, then takes in everything that has happened. A probe that says what it said before is
    /// nothing that happened: with a probe a second, looking at the pod each time would cost more than the probes.
    async fn wait(&mut self, at: Option<UnixNanos>) {
        while !self.wait_for_one(at).await {}
    }

    /// Returns whether anything happened.
    async fn wait_for_one(&mut self, at: Option<UnixNanos>) -> bool {
        let left = at.map(|at| self.node.clock.until(at));
        let timer = async {
            match left {
                Some(left) => tokio::time::sleep(left.max(Duration::from_millis(1))).await,
                None => std::future::pending().await,
            }
        };
        let wake = tokio::select! {
            (key, result) = self.tasks.next() => Wake::Step(key, result),
            wake = self.inbox.next() => wake,
            () = timer => Wake::Timer,
        };
        let mut happened = self.take_in(wake);
        while let Some((key, result)) = self.tasks.try_next() {
            happened |= self.take_in(Wake::Step(key, result));
        }
        while let Some(wake) = self.inbox.try_next() {
            happened |= self.take_in(wake);
        }
        happened
    }

    /// Returns whether the pod is to be looked at again.
    fn take_in(&mut self, wake: Wake) -> bool {
        match wake {
            Wake::Engine | Wake::Timer => {}
            Wake::Command(Command::Delete { grace }) => self.delete(grace),
            Wake::Command(Command::Restart { containers }) => self.restart_asked.extend(containers),
            Wake::Command(Command::Change { pod, objects }) => {
                let pod = spec::with_added(pod, &self.desired.pod);
                self.desired.objects = objects;
                self.change(pod);
                self.refresh_volumes();
            }
            Wake::Command(Command::Debug { container }) => self.add_ephemeral(*container),
            Wake::Probe(report) => return self.probed(report),
            Wake::Command(Command::Preempt) => self.preempt(),
            Wake::Exceeded(message) => self.evict(message),
            Wake::Step(key, Ok(done)) => {
                self.memory.succeeded(&key);
                self.done(done);
            }
            Wake::Step(key, Err((reason, message))) => self.failed(key, reason, message),
        }
        true
    }

    /// Nothing of the pod is left but its logs and its record.
    async fn finish(&mut self) -> Next {
        // An error is as good: nobody reads the logs any more.
        if let Some(released) = self.logs_released.take() {
            let _ = released.await;
        }
        let uid = &self.desired.uid;
        let claims = Claims::new(&self.node.kubelet_root);
        let ids = self.record.user_ids;
        let removed = self
            .remove_logs()
            .and_then(|()| {
                let released = || claims.release(uid, ids);
                wants_own(&self.desired.pod).then(released).unwrap_or(Ok(()))
            })
            .and_then(|()| self.records.remove(uid));
        match removed {
            Ok(()) => Next::Gone,
            Err(error) => {
                let message = format!("can't remove the pod's record: {error}");
                self.announcer.trouble(&self.reporter, message);
                Next::Wait(Some(self.node.clock.now() + nanos(RETRY)))
            }
        }
    }

    fn remove_logs(&self) -> std::io::Result<()> {
        match config::to_sandbox_config(&self.desired, 0) {
            Ok(sandbox) => crate::volumes::delete_tree(&sandbox.log_directory),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn save(&self) {
        if let Err(error) = self.records.save(&self.record) {
            let message = format!("can't write the pod's record: {error}");
            self.reporter.pod(EventReason::FailedSync, message);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.probes.values().for_each(AbortHandle::abort);
    }
}

fn nanos(duration: Duration) -> UnixNanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
