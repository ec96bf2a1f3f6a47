//! The worker itself.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_cri::{ContainerState, ContainerStatus, EngineError, EngineEvent, PodSandboxStatus, UnixNanos};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::announce::Announcer;
use super::event::{EventReason, PodEvent};
use super::execute::{Done, Failure, Job};
use super::memory::Memory;
use super::record::{PodRecord, Records};
use super::reporter::Reporter;
use super::sole::Sole;
use super::storage::StorageWatch;
use super::tasks::{Admission, Tasks};
use super::{Command, Node, PodHandle, PodState};
use crate::defaults::IMMEDIATE_EVICTION_GRACE_PERIOD;
use crate::plan::{
    self, Deletion, Desired, HookKind, NodeFacts, Observed, Plan, PodFailure, ProbeWanted, Stage, Step,
    StepKey,
};
use crate::prober::{self, ProbeReport, RunningProbe};
use crate::user_ids::{ClaimError, Claims, UserIds, wants_own};
use crate::volumes::{PodDir, env_files, termination_message};
use crate::{admission, annotations, config, qos, spec, status};

/// After the engine could not answer, or a last file could not be removed, the worker tries again after this.
const RETRY: Duration = Duration::from_secs(1);

/// Why a pod can't be taken on.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// Its record can't be read or written.
    #[error("The record of pod {pod} can't be kept: {source}.")]
    Record {
        /// The pod.
        pod: String,
        /// Why.
        source: std::io::Error,
    },
    /// It gets no ids of its own (`hostUsers: false`).
    #[error("Pod {pod} can't have users of its own: {source}.")]
    UserIds {
        /// The pod.
        pod: String,
        /// Why.
        source: ClaimError,
    },
    /// There is a worker for it already.
    #[error("Pod {0} is being run already.")]
    Running(String),
    /// Its UID is another pod's.
    #[error("Pod {pod} has the UID of pod {other}; give it another metadata.uid, or none.")]
    Uid {
        /// The pod.
        pod: String,
        /// The one that has a record.
        other: String,
    },
    /// Another runtime runs it.
    #[error("Pod {pod} is run by {}, not by {}; end it there first: berth stop finds the way.", runtime(.theirs), runtime(.ours))]
    Runtime {
        /// The pod.
        pod: String,
        /// The endpoint of the runtime that runs it; `None` is the built-in one.
        theirs: Option<String>,
        /// The endpoint of this node's runtime.
        ours: Option<String>,
    },
}

fn runtime(endpoint: &Option<String>) -> String {
    match endpoint {
        Some(endpoint) => format!("the runtime at {endpoint}"),
        None => "the built-in runtime".to_owned(),
    }
}

/// Takes a pod on: writes its record, then starts its worker. A pod that has a record is adopted with all that is there
/// of it. `engine_events` are the pod's, from before this call; `events` is told what happens.
pub fn spawn(
    node: Arc<Node>,
    mut desired: Desired,
    engine_events: mpsc::UnboundedReceiver<EngineEvent>,
    events: mpsc::UnboundedSender<PodEvent>,
) -> Result<PodHandle, SpawnError> {
    let sole = node.workers.take(&desired.uid);
    let sole = sole.ok_or_else(|| SpawnError::Running(spec::describe(&desired.pod)))?;
    let records = Records::new(&node.kubelet_root);
    let failed = |source| SpawnError::Record {
        pod: spec::describe(&desired.pod),
        source,
    };
    let mut rejected = None;
    let mut record = match records.load(&desired.uid).map_err(failed)? {
        Some(record) => record,
        None => {
            let cgroup_root = node.facts.cgroup_root.clone();
            let mut record = PodRecord::new(desired.pod.as_ref().clone(), node.clock.now(), cgroup_root);
            record.runtime_endpoint.clone_from(&node.runtime_endpoint);
            rejected = admission::rejection(&desired.pod, &node.facts);
            record.failed = rejected.clone().map(|failure| (node.clock.now(), failure));
            record
        }
    };
    let full_name = |pod| (spec::namespace(pod).to_owned(), spec::name(pod).to_owned());
    if full_name(&record.pod) != full_name(&desired.pod) {
        return Err(SpawnError::Uid {
            pod: spec::describe(&desired.pod),
            other: spec::describe(&record.pod),
        });
    }
    if record.runtime_endpoint != node.runtime_endpoint {
        // Nothing of it would be found here, and it would be taken for gone.
        return Err(SpawnError::Runtime {
            pod: spec::describe(&desired.pod),
            theirs: record.runtime_endpoint,
            ours: node.runtime_endpoint.clone(),
        });
    }
    if record.cgroup_root != desired.node.cgroup_root {
        // The pod stays in the cgroup that it was made in.
        let cgroup_root = record.cgroup_root.clone();
        desired.node = Arc::new(NodeFacts {
            cgroup_root,
            ..desired.node.as_ref().clone()
        });
    }
    desired.deletion = desired.deletion.or_else(|| record.deletion());
    record.set_deletion(desired.deletion);
    records.save(&record).map_err(failed)?;
    desired.pod = with_ephemeral(desired.pod, &record.pod);
    desired.user_ids = user_ids(&node, &desired, &records, &mut record)?;
    let (commands, command_receiver) = mpsc::unbounded_channel();
    let first = PodState {
        pod: Arc::clone(&desired.pod),
        status: k8s_openapi::api::core::v1::PodStatus::default(),
        stage: Stage::Syncing,
    };
    let (state, state_receiver) = watch::channel(first);
    let (logs, logs_released) = oneshot::channel();
    let (probe_sender, probe_reports) = mpsc::unbounded_channel();
    let reporter = Reporter {
        uid: desired.uid.clone(),
        clock: node.clock.clone(),
        events,
    };
    let (storage, exceeded) = StorageWatch::new(&desired.pod);
    if let Some(failure) = rejected {
        let reason = match failure.reason.as_str() {
            admission::SYSCTL_FORBIDDEN => EventReason::SysctlForbidden,
            _ => EventReason::AppArmor,
        };
        reporter.pod(reason, failure.message);
    }
    let worker = Worker {
        dir: PodDir::new(&node.kubelet_root, &desired.uid),
        memory: Memory::recall(&record),
        node,
        desired,
        records,
        record,
        tasks: Tasks::default(),
        probes: BTreeMap::new(),
        probe_sender,
        inbox: Inbox {
            engine: Some(engine_events),
            commands: Some(command_receiver),
            probes: probe_reports,
            exceeded,
        },
        storage,
        doubtful_images: BTreeSet::new(),
        state,
        reporter,
        announcer: Announcer::default(),
        adopted: false,
        restart_asked: BTreeSet::new(),
        refresh_due: false,
        refreshes: Arc::default(),
        logs_released: Some(logs_released),
        _sole: sole,
    };
    let _task = tokio::spawn(worker.run());
    Ok(PodHandle {
        commands,
        state: state_receiver,
        logs: Some(logs),
        #[cfg(test)]
        worker: _task,
    })
}

/// The ids of a pod that has its own: those of its record, or else new ones. The record is on the disk before they are
/// claimed, and says them before anything uses them.
fn user_ids(
    node: &Node,
    desired: &Desired,
    records: &Records,
    record: &mut PodRecord,
) -> Result<Option<UserIds>, SpawnError> {
    let ends = desired.deletion.is_some() || record.failed.is_some();
    if !wants_own(&desired.pod) || (ends && record.user_ids.is_none()) {
        return Ok(None);
    }
    let claims = Claims::new(&node.kubelet_root);
    if let Some(ids) = record.user_ids {
        return match claims.keep(&desired.uid, ids) {
            Err(source) if !ends => Err(SpawnError::UserIds {
                pod: spec::describe(&desired.pod),
                source,
            }),
            _ => Ok(Some(ids)),
        };
    }
    match claims.claim(&desired.uid) {
        Ok(ids) => record.user_ids = Some(ids),
        Err(source) => {
            // Nothing was made of it.
            let _ = records.remove(&desired.uid);
            return Err(SpawnError::UserIds {
                pod: spec::describe(&desired.pod),
                source,
            });
        }
    }
    records.save(record).map_err(|source| SpawnError::Record {
        pod: spec::describe(&desired.pod),
        source,
    })?;
    Ok(record.user_ids)
}

/// A pod as a file says it, with the ephemeral containers that were added to it while it ran.
fn with_ephemeral(pod: Arc<Pod>, before: &Pod) -> Arc<Pod> {
    let added = before
        .spec
        .as_ref()
        .and_then(|spec| spec.ephemeral_containers.clone());
    let has_none = |pod: &Pod| {
        pod.spec
            .as_ref()
            .is_some_and(|spec| spec.ephemeral_containers.is_none())
    };
    if added.is_none() || !has_none(&pod) {
        return pod;
    }
    let mut pod = pod.as_ref().clone();
    if let Some(spec) = &mut pod.spec {
        spec.ephemeral_containers = added;
    }
    Arc::new(pod)
}

pub(super) struct Worker {
    pub(super) node: Arc<Node>,
    pub(super) desired: Desired,
    dir: PodDir,
    pub(super) records: Records,
    pub(super) record: PodRecord,
    pub(super) memory: Memory,
    tasks: Tasks,
    probes: BTreeMap<ProbeWanted, AbortHandle>,
    probe_sender: mpsc::UnboundedSender<ProbeReport>,
    storage: StorageWatch,
    inbox: Inbox,
    /// Images that are to be looked up again.
    doubtful_images: BTreeSet<String>,
    state: watch::Sender<PodState>,
    pub(super) reporter: Reporter,
    pub(super) announcer: Announcer,
    /// The pod was looked at once.
    adopted: bool,
    /// Containers that are to be started anew, by name, until the next look tells which ones these are.
    restart_asked: BTreeSet<String>,
    /// Volumes are being set up with objects that are others by now.
    refresh_due: bool,
    /// How often volumes were brought up to date, so that an older state never follows a newer one.
    refreshes: Arc<AtomicU64>,
    /// Resolves when nobody reads the pod's logs any more.
    logs_released: Option<oneshot::Receiver<()>>,
    /// There is no other worker for the pod.
    _sole: Sole,
}

/// What comes from outside.
struct Inbox {
    engine: Option<mpsc::UnboundedReceiver<EngineEvent>>,
    commands: Option<mpsc::UnboundedReceiver<Command>>,
    probes: mpsc::UnboundedReceiver<ProbeReport>,
    /// What the pod exceeds.
    exceeded: mpsc::UnboundedReceiver<String>,
}

/// What made a worker look at its pod again.
enum Wake {
    /// Something in the engine; the lists tell what.
    Engine,
    Timer,
    Command(Command),
    Probe(ProbeReport),
    Exceeded(String),
    Step(StepKey, Result<Done, Failure>),
}

/// What a look at the pod says about the next one.
enum Next {
    /// The pod is gone.
    Gone,
    /// Look again when something happens, or at that time.
    Wait(Option<UnixNanos>),
}

impl Worker {
    async fn run(mut self) {
        loop {
            let next = match self.turn().await {
                Ok(next) => next,
                Err(error) => {
                    self.reporter.pod(EventReason::FailedSync, error.to_string());
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
        self.note_resize(&plan.resize);
        self.publish(&observed, &plan, now);
        if plan.stage == Stage::Gone && self.tasks.is_empty() {
            return Ok(self.finish().await);
        }
        let desired = plan::effective(&self.desired, &plan.resize).into_owned();
        self.begin_steps(&desired, &plan.steps, &observed);
        self.run_probes(&plan.probes, &observed);
        let runs = plan.stage == Stage::Syncing;
        self.storage
            .keep(runs, &self.node, &self.desired.pod, &self.dir, &self.reporter);
        Ok(Next::Wait(plan.wake_at))
    }

    async fn observe(&mut self) -> Result<Observed, EngineError> {
        let uid = &self.desired.uid.0;
        let sandboxes = self.node.engine.list_pod_sandboxes(Some(uid)).await?;
        let containers = self.node.engine.list_containers(Some(uid)).await?;
        if !self.adopted {
            self.adopted = true;
            self.memory.adopt(&containers);
            self.announcer.adopt(&self.reporter, &sandboxes, &containers);
        }
        self.memory.retain(&containers);
        self.announcer.containers(&self.reporter, &containers);
        self.note_restarts(&containers);
        self.read_termination_messages(&containers);
        self.look_up_images().await;
        let mut observed = self.memory.observed(sandboxes, containers);
        observed.in_flight = self.tasks.keys();
        observed.directory_exists = self.dir.exists();
        if observed.volumes_ready {
            observed.env_files = env_files(&self.desired.pod, &self.dir);
        }
        observed.others = self.others();
        let class = qos::qos_class(&self.given());
        let cgroup = qos::pod_cgroup(&self.desired.node.cgroup_root, class, &self.desired.uid);
        observed.cgroup_exists = self.node.cgroups.exists(&cgroup);
        Ok(observed)
    }

    fn read_termination_messages(&mut self, containers: &[ContainerStatus]) {
        let ended =
            |c: &&ContainerStatus| matches!(c.state, ContainerState::Exited | ContainerState::Unknown);
        for container in containers.iter().filter(ended) {
            if self.memory.termination_messages.contains_key(&container.id) {
                continue;
            }
            let found = spec::container(&self.desired.pod, &container.config.name);
            let policy = found.and_then(|(container, _)| container.termination_message_policy.as_deref());
            let message = termination_message(&self.dir, container, policy == Some("FallbackToLogsOnError"));
            self.memory
                .termination_messages
                .insert(container.id.clone(), message);
        }
    }

    async fn look_up_images(&mut self) {
        let mut images = spec::images(&self.desired.pod);
        let ephemeral = spec::ephemeral_containers(&self.desired.pod);
        images.extend(ephemeral.into_iter().filter_map(|(container, _)| container.image));
        for image in &images {
            let known = self.memory.images.get(image);
            if known.is_some() && !self.doubtful_images.remove(image) {
                continue;
            }
            // An engine that can't say has said that it is not there: the pull tells why.
            let present = self.node.engine.image_status(image).await.ok().flatten();
            if present.is_some() && known.is_none() {
                let message = format!("Image \"{image}\" is present");
                self.reporter.pod(EventReason::Pulled, message);
            }
            let pulled_at = known.map_or(0, |known| known.pulled_at);
            self.memory
                .images
                .insert(image.clone(), plan::ImageState { present, pulled_at });
        }
    }

    fn publish(&mut self, observed: &Observed, plan: &Plan, now: UnixNanos) {
        self.announcer.waiting(&self.reporter, plan);
        let last = self.state.borrow().clone();
        // What is left of a pod that is being removed says nothing about how it ended.
        let frozen = last.stage >= Stage::Removing;
        let status = if frozen {
            last.status.clone()
        } else {
            status::pod_status(&self.desired, observed, plan, Some(&last.status), now)
        };
        if !frozen {
            self.announcer.status(&self.reporter, &status);
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
        self.tasks.drop_unwanted(steps);
        for step in steps {
            if self.tasks.admit(step) == Admission::Join {
                continue;
            }
            self.note_kill(step);
            let job = |deadline| Job {
                node: Arc::clone(&self.node),
                desired: desired.clone(),
                dir: self.dir.clone(),
                ip: pod_ip(observed, &self.node.facts.host_ips),
                step: step.clone(),
                deadline,
                reporter: self.reporter.clone(),
            };
            self.tasks.begin(step, job);
        }
    }

    /// Remembers that the pod failed as a whole: a clock that is set back must not bring it to life again.
    fn note_failure(&mut self, plan: &Plan) {
        if let (Some(failure), Some(at), None) = (&plan.failure, plan.over_since, &self.memory.failed) {
            self.memory.failed = Some((at, failure.clone()));
            self.record.failed.clone_from(&self.memory.failed);
            self.save();
        }
    }

    /// The pod takes more than it may. One that is ending anyway is left to that.
    fn evict(&mut self, message: String) {
        let ends = self.state.borrow().stage > Stage::Syncing || self.desired.deletion.is_some();
        if ends || self.memory.failed.is_some() {
            return;
        }
        self.reporter.pod(EventReason::Evicted, message.trim_end());
        let failure = PodFailure {
            reason: "Evicted".to_owned(),
            message,
            grace: Some(IMMEDIATE_EVICTION_GRACE_PERIOD),
        };
        self.memory.failed = Some((self.node.clock.now(), failure));
        self.record.failed.clone_from(&self.memory.failed);
        self.save();
    }

    /// Remembers when a container was first told to end.
    fn note_kill(&mut self, step: &Step) {
        let (Step::StopContainer { id, .. }
        | Step::RunHook {
            id,
            kind: HookKind::PreStop,
            ..
        }) = step
        else {
            return;
        };
        let resized = matches!(
            step,
            Step::StopContainer {
                reason: plan::KillReason::Resize,
                ..
            }
        );
        if resized && self.memory.restarts.insert(id.clone()) {
            self.record.restarts.clone_from(&self.memory.restarts);
            self.save();
        }
        let now = self.node.clock.now();
        self.memory.kill_started.entry(id.clone()).or_insert(now);
        if self.record.kill_started != self.memory.kill_started {
            self.record.kill_started.clone_from(&self.memory.kill_started);
            self.save();
        }
    }

    /// Starts probes that are wanted and stops those that are not.
    fn run_probes(&mut self, wanted: &[ProbeWanted], observed: &Observed) {
        self.probes.retain(|probe, task| {
            let keep = wanted.contains(probe);
            if !keep {
                task.abort();
            }
            keep
        });
        for probe in wanted {
            if self.probes.contains_key(probe) {
                continue;
            }
            let Some(running) = self.probe(probe, observed) else {
                continue;
            };
            let engine = Arc::clone(&self.node.engine);
            let task = tokio::spawn(prober::run(running, engine, self.probe_sender.clone()));
            self.probes.insert(probe.clone(), task.abort_handle());
        }
    }

    fn probe(&self, wanted: &ProbeWanted, observed: &Observed) -> Option<RunningProbe> {
        let (container, _) = spec::container(&self.desired.pod, &wanted.name)?;
        let status = observed
            .containers
            .iter()
            .find(|container| container.id == wanted.id)?;
        let probe = match wanted.kind {
            plan::ProbeKind::Startup => container.startup_probe.clone(),
            plan::ProbeKind::Readiness => container.readiness_probe.clone(),
            plan::ProbeKind::Liveness => container.liveness_probe.clone(),
        }?;
        Some(RunningProbe {
            id: wanted.id.clone(),
            kind: wanted.kind,
            probe,
            container: container.clone(),
            ip: pod_ip(observed, &self.node.facts.host_ips),
            period: annotations::probe_period(&self.desired.pod, &wanted.name, wanted.kind),
            running_for: self.node.clock.since(status.started_at),
            verdict: self.memory.verdict(&wanted.id, wanted.kind),
        })
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
                let pod = with_ephemeral(pod, &self.desired.pod);
                self.desired.objects = objects;
                self.change(pod);
                self.refresh_volumes();
            }
            Wake::Command(Command::Debug { container }) => self.add_ephemeral(*container),
            Wake::Probe(report) => return self.probed(report),
            Wake::Exceeded(message) => self.evict(message),
            Wake::Step(key, Ok(done)) => {
                self.memory.succeeded(&key);
                self.done(done);
            }
            Wake::Step(key, Err((reason, message))) => self.failed(key, reason, message),
        }
        true
    }

    fn delete(&mut self, grace: Option<Duration>) {
        let now = self.node.clock.now();
        let deletion = match self.desired.deletion {
            None => Deletion {
                requested_at: now,
                grace,
            },
            Some(last) => Deletion {
                grace: shorter(last.grace, grace),
                ..last
            },
        };
        self.desired.deletion = Some(deletion);
        self.record.set_deletion(Some(deletion));
        self.save();
    }

    /// Whoever asks for a restart means the containers that run now, or are just being started.
    fn note_restarts(&mut self, containers: &[ContainerStatus]) {
        if self.restart_asked.is_empty() && self.memory.restarts == self.record.restarts {
            return;
        }
        let being_started = |name: &String| {
            let starts =
                |key: &StepKey| matches!(key, StepKey::StartContainer(started, _) if started == name);
            self.tasks.keys().iter().any(starts)
        };
        let asked = std::mem::take(&mut self.restart_asked);
        self.restart_asked = asked.iter().filter(|name| being_started(name)).cloned().collect();
        let meant = containers
            .iter()
            .filter(|c| c.state == ContainerState::Running && asked.contains(&c.config.name));
        self.memory
            .restarts
            .extend(meant.map(|container| container.id.clone()));
        if self.record.restarts != self.memory.restarts {
            self.record.restarts.clone_from(&self.memory.restarts);
            self.save();
        }
    }

    fn change(&mut self, pod: Arc<Pod>) {
        let image = |pod: &Pod, name: &str| spec::container(pod, name).and_then(|(c, _)| c.image.clone());
        for (container, _) in spec::all_containers(&pod) {
            if image(&self.desired.pod, &container.name) != container.image {
                self.restart_asked.insert(container.name.clone());
            }
        }
        self.note_wish(&pod);
        self.record.pod = pod.as_ref().clone();
        self.desired.pod = pod;
        self.save();
    }

    /// Brings the files of ConfigMaps, Secrets and of what the pod says of itself up to date, beside the plan: containers
    /// need not wait for it.
    fn refresh_volumes(&mut self) {
        self.refresh_due = !self.memory.volumes_ready;
        if self.refresh_due || self.desired.deletion.is_some() {
            return;
        }
        let (desired, node, dir) = (self.desired.clone(), Arc::clone(&self.node), self.dir.clone());
        let (latest, reporter) = (Arc::clone(&self.refreshes), self.reporter.clone());
        let number = latest.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::task::spawn_blocking(move || {
            let context = super::execute::context(&desired, &node, &dir);
            let is_latest = || latest.load(Ordering::SeqCst) == number;
            if let Err(error) = crate::volumes::refresh(&context, is_latest) {
                reporter.pod(EventReason::FailedMount, error.to_string());
            }
        });
    }

    fn add_ephemeral(&mut self, container: EphemeralContainer) {
        let name = container.name.clone();
        let mut pod = self.desired.pod.as_ref().clone();
        if spec::container(&pod, &name).is_some() || spec::is_ephemeral(&pod, &name) {
            let message = format!("the pod has a container {name:?} already");
            return self.reporter.container(EventReason::Failed, &name, message);
        }
        if let Some(spec) = &mut pod.spec {
            spec.ephemeral_containers.get_or_insert_default().push(container);
        }
        self.change(Arc::new(pod));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Volumes(ready) => {
                self.memory.volumes_ready = ready;
                // What was changed while they were set up.
                if ready && self.refresh_due {
                    self.refresh_volumes();
                }
            }
            Done::Image(name, present) => {
                let pulled_at = self.node.clock.now();
                self.memory
                    .images
                    .insert(name, plan::ImageState { present, pulled_at });
            }
            Done::Group(limits) => self.group_is(limits),
            Done::Resized(id, resources) => self.container_has(id, resources),
            Done::Hook(id, kind, outcome) => self.memory.hook_ended(id, kind, outcome),
        }
    }

    fn failed(&mut self, key: StepKey, reason: plan::Reason, message: String) {
        if let StepKey::StartContainer(..) = key {
            // The image may have been removed under us.
            self.doubtful_images.extend(self.memory.images.keys().cloned());
        }
        let now = self.node.clock.now();
        if self.memory.failed(key.clone(), now, reason, message.clone()) {
            let event = match reason {
                _ if matches!(key, StepKey::ResizePod | StepKey::ResizeContainer(_)) => {
                    EventReason::ResizeError
                }
                plan::Reason::FailedMount => EventReason::FailedMount,
                plan::Reason::FailedCreatePodSandBox => EventReason::FailedCreatePodSandBox,
                plan::Reason::FailedSync => EventReason::FailedSync,
                _ => EventReason::Failed,
            };
            match &key {
                // The announcer tells it with the waiting reason.
                StepKey::StartContainer(..) if reason == plan::Reason::CreateContainerConfigError => {}
                StepKey::StartContainer(name, _) => {
                    self.reporter
                        .container(event, name, format!("{reason}: {message}"));
                }
                StepKey::PullImage(image) => {
                    self.reporter.pod(
                        event,
                        format!("{reason}: can't pull image \"{image}\": {message}"),
                    );
                }
                _ => self.reporter.pod(event, message),
            }
        }
    }

    /// Returns whether the probe says something else than before.
    fn probed(&mut self, report: ProbeReport) -> bool {
        let kind = format!("{:?}", report.kind);
        match &report.outcome {
            prober::Outcome::Success => {}
            prober::Outcome::Warning(message) => {
                let message = format!("{kind} probe warning: {message}");
                self.reporter
                    .container(EventReason::ProbeWarning, &report.container, message);
            }
            prober::Outcome::Failure(message) => {
                let message = format!("{kind} probe failed: {message}");
                self.reporter
                    .container(EventReason::Unhealthy, &report.container, message);
            }
            prober::Outcome::Error(message) => {
                let message = format!("{kind} probe errored and resulted in unknown state: {message}");
                self.reporter
                    .container(EventReason::Unhealthy, &report.container, message);
            }
        }
        let first = self.memory.verdict(&report.id, report.kind).is_none();
        if first && report.kind == plan::ProbeKind::Readiness && report.verdict == Some(false) {
            let message = format!("Container {} is not ready", report.container);
            self.reporter
                .container(EventReason::NotReady, &report.container, message);
        }
        let new = self.memory.probed(&report.id, report.kind, report.verdict);
        if new && self.record.set_probes(&self.memory.probes) {
            self.save();
        }
        new
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
                self.reporter.pod(
                    EventReason::FailedSync,
                    format!("can't remove the pod's record: {error}"),
                );
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

impl Inbox {
    async fn next(&mut self) -> Wake {
        loop {
            tokio::select! {
                event = receive(&mut self.engine) => match event {
                    Some(_) => return Wake::Engine,
                    None => self.engine = None,
                },
                command = receive(&mut self.commands) => match command {
                    Some(command) => return Wake::Command(command),
                    None => self.commands = None,
                },
                Some(report) = self.probes.recv() => return Wake::Probe(report),
                Some(message) = self.exceeded.recv() => return Wake::Exceeded(message),
            }
        }
    }

    fn try_next(&mut self) -> Option<Wake> {
        fn ready<T>(channel: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
            channel.as_mut()?.try_recv().ok()
        }
        if ready(&mut self.engine).is_some() {
            return Some(Wake::Engine);
        }
        if let Some(command) = ready(&mut self.commands) {
            return Some(Wake::Command(command));
        }
        if let Ok(message) = self.exceeded.try_recv() {
            return Some(Wake::Exceeded(message));
        }
        self.probes.try_recv().ok().map(Wake::Probe)
    }
}

/// Receives; for ever if the channel is closed and was taken away.
async fn receive<T>(channel: &mut Option<mpsc::UnboundedReceiver<T>>) -> Option<T> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

/// The pod's address: that of its newest ready sandbox, or the node's on the host's network.
fn pod_ip(observed: &Observed, host_ips: &[IpAddr]) -> Option<IpAddr> {
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
    let newest: &PodSandboxStatus = ready.max_by_key(|sandbox| sandbox.config.attempt)?;
    if newest.config.namespaces.host_network {
        return host_ips.first().copied();
    }
    newest.ips.first().copied()
}

fn shorter(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

fn nanos(duration: Duration) -> UnixNanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
