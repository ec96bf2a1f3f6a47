//! A node that is all in memory, with a clock of its own: it does the steps of plans, and containers do as told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use berth_cri::{
    ContainerId, ContainerState, ContainerStatus, LinuxContainerResources, PodSandboxConfig,
    PodSandboxStatus, SandboxId, UnixNanos,
};
use k8s_openapi::api::core::v1::{Pod, PodStatus, ResourceRequirements};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::rules::Seen;
use crate::defaulting::default_pod;
use crate::identity::PodUid;
use crate::plan::*;
use crate::resources::pod_resources;
use crate::sizes::{Allocation, Sizes};
use crate::spec::{self, RestartPolicy, Role};
use crate::status::pod_status;
use crate::testing::{self, pod};

/// The round that a container is to be started in.
fn start_round(start: &StartContainer) -> u32 {
    start
        .config
        .annotations
        .get(ROUND)
        .map_or(0, |round| round.parse().unwrap())
}

/// Gives each container that has resources others.
fn resize_all(pod: &mut Pod, to: u32) {
    let spec = pod.spec.as_mut().unwrap();
    let list = [
        ("cpu".to_owned(), Quantity(format!("{}m", 100 * to))),
        ("memory".to_owned(), Quantity(format!("{to}Mi"))),
    ];
    if let Some(own) = spec.resources.as_mut() {
        own.limits = Some(list.clone().into());
        own.requests = Some(list.clone().into());
    }
    let inits = spec.init_containers.iter_mut().flatten();
    for container in inits.chain(&mut spec.containers) {
        let Some(resources) = container.resources.as_mut().filter(|own| own.limits.is_some()) else {
            continue;
        };
        resources.limits = Some(list.clone().into());
        resources.requests = Some(list.clone().into());
    }
}

pub(super) const SECOND: u64 = 1_000_000_000;

/// No story takes more looks than this, nor more at one time: one that does goes round in circles.
const MOST_LOOKS: usize = 5_000;
const MOST_AT_ONCE: usize = 300;

/// What one run of a container does.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Ends by itself after so many seconds with this code; `None` runs until it is stopped.
    pub(super) ends: Option<(u64, i32)>,
    /// Seconds from the stop signal to its end.
    pub(super) stops_in: u64,
    /// Its startup probe succeeds.
    pub(super) starts: bool,
    /// Seconds after its start when its liveness probe fails.
    pub(super) liveness_fails_after: Option<u64>,
    /// Its postStart hook succeeds.
    pub(super) hook_succeeds: bool,
}

impl Default for Run {
    fn default() -> Self {
        Self {
            ends: None,
            stops_in: 1,
            starts: true,
            liveness_fails_after: None,
            hook_succeeds: true,
        }
    }
}

impl Run {
    pub(super) fn ends(after: u64, code: i32) -> Self {
        Self {
            ends: Some((after, code)),
            ..Self::default()
        }
    }
}

/// Something that comes from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Disturbance {
    /// The pod is deleted, with a grace period of its own.
    Delete(Option<u64>),
    /// The daemon is killed, and another one started.
    RestartDaemon,
    /// The sandbox and all in it is gone.
    LoseSandbox,
    /// Somebody wants all running containers to be started anew.
    Restart,
    /// The pod is given other resources: each container that has any gets so many tenths of a CPU and MiB.
    Resize(u32),
    /// The containers' readiness probes fail, or succeed again.
    Readiness(bool),
    /// Somebody sets the clock, so many seconds ahead or back.
    ClockJump(i64),
}

pub(super) struct Task {
    pub(super) step: Step,
    ends_at: UnixNanos,
}

pub(super) struct Simulator {
    pub(super) desired: Desired,
    pub(super) observed: Observed,
    pub(super) now: UnixNanos,
    pub(super) status: Option<PodStatus>,
    /// What was done, each with its second since the beginning.
    pub(super) log: Vec<(u64, String)>,
    /// What the runs of each container do, one after the other; the last one is repeated.
    pub(super) runs: BTreeMap<String, Vec<Run>>,
    pub(super) disturbances: Vec<(u64, Disturbance)>,
    /// Steps of this kind fail so often before they succeed.
    pub(super) failing: BTreeMap<String, u32>,
    /// How long a step takes: cycled through.
    pub(super) durations: Vec<u64>,
    /// preStop hooks end neither by themselves nor at their deadline: only the plan ends them.
    pub(super) hooks_hang: bool,
    pub(super) tasks: Vec<Task>,
    pub(super) begun: UnixNanos,
    /// What [`rules`](super::rules) remember.
    pub(super) seen: Seen,
    /// Containers whose postStart hook did its work, as the pod's record keeps them.
    post_started: BTreeSet<ContainerId>,
    steps_done: usize,
    pub(super) failed_starts: u32,
    /// Main containers that ran, by how often.
    pub(super) starts: BTreeMap<String, u32>,
    last_plan: Plan,
    /// How many restarts in a row led to each attempt of a container, counted apart from what the plan counts.
    streaks: BTreeMap<(String, u32), u32>,
}

impl Simulator {
    pub(super) fn new(pod_spec: &str) -> Self {
        let mut pod = pod(pod_spec);
        default_pod(&mut pod);
        let begun = 1_000_000 * SECOND;
        let node = NodeFacts {
            host_ips: vec![[10, 0, 0, 1].into()],
            ..NodeFacts::default()
        };
        let ephemeral: Vec<String> = spec::ephemeral_containers(&pod)
            .into_iter()
            .filter_map(|(container, _)| container.image)
            .collect();
        let images = spec::all_containers(&pod)
            .map(|(container, _)| container.image.clone().unwrap())
            .chain(ephemeral)
            .map(|image| (image, ImageState::default()))
            .collect::<BTreeMap<_, _>>();
        let observed = Observed {
            admitted_at: begun,
            images,
            ..Observed::default()
        };
        Self {
            desired: Desired {
                pod: Arc::new(pod),
                uid: PodUid("uid".into()),
                objects: Arc::default(),
                node: Arc::new(node),
                user_ids: None,
                deletion: None,
            },
            observed,
            now: begun,
            status: None,
            log: Vec::new(),
            runs: BTreeMap::new(),
            disturbances: Vec::new(),
            failing: BTreeMap::new(),
            durations: vec![0],
            hooks_hang: false,
            tasks: Vec::new(),
            seen: Seen::default(),
            post_started: BTreeSet::new(),
            begun,
            steps_done: 0,
            failed_starts: 0,
            starts: BTreeMap::new(),
            last_plan: Plan::default(),
            streaks: BTreeMap::new(),
        }
    }

    pub(super) fn runs(mut self, container: &str, runs: &[Run]) -> Self {
        self.runs.insert(container.to_owned(), runs.to_vec());
        self
    }

    pub(super) fn disturb(mut self, at: u64, disturbance: Disturbance) -> Self {
        self.disturbances.push((at, disturbance));
        self
    }

    pub(super) fn fail(mut self, step: &str, times: u32) -> Self {
        self.failing.insert(step.to_owned(), times);
        self
    }

    pub(super) fn second(&self) -> u64 {
        self.now.saturating_sub(self.begun) / SECOND
    }

    pub(super) fn phase(&self) -> &str {
        self.status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default()
    }

    pub(super) fn running(&self) -> Vec<&str> {
        let running = self
            .observed
            .containers
            .iter()
            .filter(|c| c.state == ContainerState::Running);
        running.map(|c| c.config.name.as_str()).collect()
    }

    /// The seconds at which entries of the log begin so.
    pub(super) fn seconds_of(&self, prefix: &str) -> Vec<u64> {
        self.log
            .iter()
            .filter(|(_, entry)| entry.starts_with(prefix))
            .map(|(second, _)| *second)
            .collect()
    }

    /// Entries of the log that begin with one of these words.
    pub(super) fn order_of(&self, words: &[&str]) -> Vec<String> {
        let wanted = |entry: &&String| words.iter().any(|word| entry.split(' ').next() == Some(word));
        self.log
            .iter()
            .map(|(_, entry)| entry)
            .filter(wanted)
            .cloned()
            .collect()
    }

    /// Goes on until nothing more can happen, or until `limit` seconds have passed. Returns the last plan.
    pub(super) fn run(&mut self, limit: u64) -> Plan {
        let mut at_once = (self.now, 0);
        for _ in 0..MOST_LOOKS {
            at_once = if at_once.0 == self.now {
                (self.now, at_once.1 + 1)
            } else {
                (self.now, 0)
            };
            if at_once.1 > MOST_AT_ONCE {
                break;
            }
            let plan = self.look();
            self.begin(&plan);
            let Some(next) = self.next_event(&plan) else {
                return plan;
            };
            if next > self.begun + limit * SECOND {
                return plan;
            }
            self.now = next.max(self.now);
            self.happen();
        }
        panic!(
            "no end in sight: {:#?}",
            self.log.iter().rev().take(30).collect::<Vec<_>>()
        );
    }

    fn note(&mut self, entry: String) {
        self.log.push((self.second(), entry));
    }

    fn look(&mut self) -> Plan {
        self.observed.in_flight = self.tasks.iter().map(|task| task.step.key()).collect();
        let plan = plan(&self.desired, &self.observed, self.now);
        if let Some(at) = plan.wake_at {
            assert!(at > self.now, "a plan wants to be asked at once: {plan:#?}");
        }
        let keys: BTreeSet<StepKey> = plan.steps.iter().map(Step::key).collect();
        assert_eq!(keys.len(), plan.steps.len(), "two steps of one key: {plan:#?}");
        let waits = keys.iter().find(|key| {
            self.observed
                .failures
                .get(*key)
                .is_some_and(|failure| failure.at == self.now)
        });
        assert_eq!(waits, None, "a step that just failed is tried at once");
        self.check_resize(&plan);
        self.check_rules(&plan);
        if plan.stage != Stage::Gone && self.last_plan.stage != Stage::Removing {
            self.check_status(&plan);
        }
        if let (Some(failure), Some(at), None) = (&plan.failure, plan.over_since, &self.observed.failed) {
            self.observed.failed = Some((at, failure.clone()));
        }
        for id in &plan.spared {
            self.observed.kill_started.remove(id);
            self.observed.hooks.remove(&(id.clone(), HookKind::PreStop));
        }
        if let (Some(allocated), Some(sizes)) = (&plan.resize.allocated, &mut self.observed.sizes) {
            sizes.allocated.clone_from(allocated);
        }
        self.last_plan = plan.clone();
        plan
    }

    /// A resize is not over before a container runs again that was ended for it.
    fn check_resize(&self, plan: &Plan) {
        let Some(sizes) = &self.observed.sizes else { return };
        let granted = plan.resize.pending.is_none() && plan.resize.allocated.is_none();
        if !granted || plan.stage != Stage::Syncing || plan.resize.in_progress.is_some() {
            return;
        }
        for name in plan.steps.iter().filter_map(|step| match step {
            Step::StartContainer(start) => Some(&start.config.name),
            _ => None,
        }) {
            let ended = self
                .observed
                .containers
                .iter()
                .filter(|record| record.config.name == *name && record.state == ContainerState::Exited);
            let last = ended.max_by_key(|record| record.config.attempt);
            let Some((container, _)) = spec::container(&self.desired.pod, name) else {
                continue;
            };
            let wish = crate::sizes::wish(&self.desired.pod, container);
            assert!(
                last.is_none_or(|last| {
                    let had = crate::sizes::actual(Some(sizes), last);
                    !self.observed.restarts.contains_key(&last.id)
                        || crate::sizes::differences(&had, &wish).is_empty()
                }),
                "{name} is started anew for a resize that is over"
            );
        }
    }

    fn check_status(&mut self, plan: &Plan) {
        let status = pod_status(
            &self.desired,
            &self.observed,
            plan,
            self.status.as_ref(),
            self.now,
        );
        let rank = |status: &PodStatus| match status.phase.as_deref() {
            Some("Pending") => 0,
            Some("Running") => 1,
            _ => 2,
        };
        if let Some(before) = &self.status {
            assert!(
                rank(before) <= rank(&status),
                "{:?} after {:?}",
                status.phase,
                before.phase
            );
            assert!(rank(before) < 2 || before.phase == status.phase);
        }
        let ready = |kind: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == kind && condition.status == "True")
        };
        self.check_containers(&status);
        if ready("Ready") {
            assert!(
                status
                    .container_statuses
                    .iter()
                    .flatten()
                    .all(|container| container.ready)
            );
            assert!(ready("Initialized") && ready("ContainersReady"));
        }
        if plan.stage == Stage::Terminated {
            assert_eq!(rank(&status), 2, "{plan:#?} {status:#?}");
        }
        let again = pod_status(
            &self.desired,
            &self.observed,
            plan,
            Some(&status),
            self.now + SECOND,
        );
        assert_eq!(again, status, "a status that is computed again is another");
        self.status = Some(status);
    }

    /// As an executor does: drops what is not wanted any more, begins what is new.
    fn begin(&mut self, plan: &Plan) {
        let wanted: BTreeSet<StepKey> = plan.steps.iter().map(Step::key).collect();
        self.tasks
            .retain(|task| wanted.contains(&task.step.key()) || !task.step.key().is_cancellable());
        for step in &plan.steps {
            let running = self.tasks.iter().position(|task| task.step.key() == step.key());
            match running {
                Some(index) if step.supersedes(&self.tasks[index].step) => {
                    self.tasks.remove(index);
                }
                Some(_) => continue,
                None => {}
            }
            self.check_end(plan, step);
            if let Step::StopContainer { id, .. }
            | Step::RunHook {
                id,
                kind: HookKind::PreStop,
                ..
            } = step
            {
                self.observed.kill_started.entry(id.clone()).or_insert(self.now);
            }
            if let Step::StopContainer {
                id,
                reason: KillReason::Resize,
                ..
            } = step
            {
                self.observed.restarts.entry(id.clone()).or_insert(self.now);
            }
            if let Step::StartContainer(start) = step {
                self.begin_container(start);
            }
            match step {
                Step::RunSandbox { config, .. } => self.begin_sandbox(config),
                Step::StopSandbox { id } if !self.fails("StopSandbox") => self.stop_sandbox(id),
                Step::RemoveSandbox { id } if !self.fails("RemoveSandbox") => self.remove_sandbox(id),
                Step::TearDownVolumes | Step::RemoveCgroup { .. } => self.check_that_nothing_is_in_use(),
                _ => {}
            }
            let ends_at = self.now + self.duration_of(step);
            self.tasks.push(Task {
                step: step.clone(),
                ends_at,
            });
        }
    }

    /// The engine's record is there before the sandbox is, and shows.
    fn begin_sandbox(&mut self, config: &PodSandboxConfig) {
        let id = SandboxId(format!("s{}", config.attempt));
        assert!(
            self.observed.sandboxes.iter().all(|sandbox| sandbox.id != id),
            "a sandbox is made twice"
        );
        self.observed.sandboxes.push(PodSandboxStatus {
            id,
            config: config.clone(),
            ready: false,
            created_at: self.now,
            ips: Vec::new(),
        });
    }

    fn fails(&self, step: &str) -> bool {
        self.failing.get(step).is_some_and(|left| *left > 0)
    }

    /// The engine may show the end of a sandbox before it is done with it.
    fn stop_sandbox(&mut self, id: &SandboxId) {
        self.end_all_in(id);
        self.observed
            .sandboxes
            .iter_mut()
            .filter(|s| s.id == *id)
            .for_each(|s| s.ready = false);
    }

    fn remove_sandbox(&mut self, id: &SandboxId) {
        self.end_all_in(id);
        self.observed.containers.retain(|record| record.sandbox != *id);
        self.observed.sandboxes.retain(|sandbox| sandbox.id != *id);
    }

    /// Volumes and cgroup outlive what the engine still has.
    fn check_that_nothing_is_in_use(&self) {
        let in_use = |key: &StepKey| {
            matches!(
                key,
                StepKey::RunSandbox(_)
                    | StepKey::StartContainer(..)
                    | StepKey::StopSandbox(_)
                    | StepKey::StopContainer(_)
                    | StepKey::RemoveSandbox(_)
                    | StepKey::RemoveContainer(_)
            )
        };
        let user = self.tasks.iter().map(|task| task.step.key()).find(in_use);
        assert_eq!(user, None, "the pod's volumes or cgroup go too early");
    }

    /// The engine's record of a container is there before its program runs, and shows.
    fn begin_container(&mut self, start: &StartContainer) {
        let name = &start.config.name;
        if spec::is_ephemeral(&self.desired.pod, name) {
            let known = self
                .observed
                .containers
                .iter()
                .any(|record| record.config.name == *name);
            assert!(
                !known || start.config.attempt == 0,
                "an ephemeral container is started again"
            );
            return self.enter_container(start);
        }
        self.check_pause(start);
        self.check_generation(start);
        let (container, role) = spec::container(&self.desired.pod, name).unwrap();
        self.check_round(start);
        self.check_turn(name, role, &start.sandbox, start_round(start));
        let id = ContainerId(format!("{name}-{}", start.config.attempt));
        let known: Vec<&ContainerStatus> = self
            .observed
            .containers
            .iter()
            .filter(|r| r.config.name == *name)
            .collect();
        assert!(
            known.iter().all(|r| r.state != ContainerState::Running),
            "{name} runs twice"
        );
        if let Some(same) = known.iter().find(|record| record.id == id) {
            assert_eq!(same.state, ContainerState::Created, "{name} has a number twice");
            return;
        }
        assert!(
            known.iter().all(|r| r.config.attempt < start.config.attempt),
            "{name} has a number twice"
        );
        let last = known.iter().max_by_key(|record| record.config.attempt);
        if let Some(last) = last.filter(|last| role == Role::Main && last.state == ContainerState::Exited) {
            assert!(
                round_of(last) < start_round(start)
                    || self.observed.restarts.contains_key(&last.id)
                    || spec::restarts(&self.desired.pod, container, role, last.exit_code),
                "{name} is restarted against its policy"
            );
        }
        self.enter_container(start);
    }

    fn enter_container(&mut self, start: &StartContainer) {
        let id = ContainerId(format!("{}-{}", start.config.name, start.config.attempt));
        if self.observed.containers.iter().any(|record| record.id == id) {
            return;
        }
        self.observed.containers.push(ContainerStatus {
            id,
            sandbox: start.sandbox.clone(),
            created_at: self.now,
            ..testing::created(start.config.as_ref().clone())
        });
    }

    /// No container is started sooner after its end than its back-off says: the number of restarts in a row gives it,
    /// and a long run, or a restart of all containers for another's sake, begins anew.
    fn check_pause(&mut self, start: &StartContainer) {
        let name = start.config.name.clone();
        let ended = self.observed.containers.iter().filter(|record| {
            record.config.name == name
                && matches!(record.state, ContainerState::Exited | ContainerState::Unknown)
        });
        let Some(last) = ended.max_by_key(|record| record.config.attempt).cloned() else {
            return;
        };
        let in_a_row = self
            .streaks
            .get(&(name.clone(), last.config.attempt))
            .copied()
            .unwrap_or(0);
        let began = if last.started_at == 0 {
            last.created_at
        } else {
            last.started_at
        };
        let ran_long = last.finished_at.saturating_sub(began) > 600 * SECOND;
        let (container, _) = spec::container(&self.desired.pod, &name).unwrap();
        let for_another = round_of(&last) < start_round(start)
            && spec::restart_rule(container, last.exit_code)
                != Some(spec::RestartAction::RestartAllContainers);
        let asked = self.observed.restarts.contains_key(&last.id);
        let (pause, next) = match in_a_row {
            _ if asked => (0, 0),
            _ if for_another => (0, in_a_row),
            _ if ran_long => (0, 1),
            0 => (0, 1),
            n => ((10 * 2_u64.pow((n - 1).min(10))).min(300) * SECOND, n + 1),
        };
        self.streaks.insert((name.clone(), start.config.attempt), next);
        // Nobody waits until a clock that was set back is where it was.
        assert!(
            pause == 0 || self.now < last.finished_at || self.now >= last.finished_at + pause,
            "{name} is started {} s after its end, before {} s",
            self.now.saturating_sub(last.finished_at) / SECOND,
            pause / SECOND
        );
    }

    /// Nothing of an earlier round is started once all containers were restarted, or runs beside what is.
    fn check_round(&self, start: &StartContainer) {
        let round = start_round(start);
        for record in &self.observed.containers {
            assert!(
                round_of(record) <= round,
                "{} is of an old round",
                start.config.name
            );
            let old = round_of(record) < round && record.state == ContainerState::Running;
            assert!(!old, "{} runs on beside the next round", record.config.name);
        }
    }

    /// A container could not be made (nothing of it is left), or not be started (its record tells).
    fn fail_container(&mut self, start: &StartContainer, failures: u32) {
        let (name, attempt, now) = (start.config.name.clone(), start.config.attempt, self.now);
        let same = |record: &ContainerStatus| record.config.name == name && record.config.attempt == attempt;
        match failures % 3 {
            0 => self.observed.containers.retain(|record| !same(record)),
            1 => {}
            _ => self
                .observed
                .containers
                .iter_mut()
                .filter(|record| same(record))
                .for_each(|record| {
                    record.state = ContainerState::Exited;
                    record.exit_code = 128;
                    record.finished_at = now;
                }),
        }
    }

    fn duration_of(&mut self, step: &Step) -> u64 {
        self.steps_done += 1;
        let usual = self.durations[self.steps_done % self.durations.len()] * SECOND;
        match step {
            Step::StopContainer { id, timeout, .. } => {
                let stops_in = Duration::from_secs(self.behaviour(id).stops_in);
                u64::try_from(stops_in.min(*timeout).as_nanos()).unwrap()
            }
            Step::RunHook {
                kind: HookKind::PreStop,
                ..
            } if self.hooks_hang => 1_000_000 * SECOND,
            Step::RunHook { deadline, .. } if *deadline != 0 => usual.min(deadline - self.now),
            _ => usual,
        }
    }

    fn behaviour(&self, id: &ContainerId) -> Run {
        let Some(record) = self.observed.containers.iter().find(|record| record.id == *id) else {
            return Run::default();
        };
        let runs = self
            .runs
            .get(&record.config.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let attempt = record.config.attempt as usize;
        runs.get(attempt)
            .or_else(|| runs.last())
            .copied()
            .unwrap_or_default()
    }

    fn next_event(&self, plan: &Plan) -> Option<UnixNanos> {
        let tasks = self.tasks.iter().map(|task| task.ends_at);
        let ends = self
            .observed
            .containers
            .iter()
            .filter_map(|record| self.ends_at(record).map(|(at, _)| at));
        let probes = plan
            .probes
            .iter()
            .filter_map(|probe| self.probe_changes_at(probe));
        let outside = self.disturbances.iter().map(|(at, _)| self.begun + at * SECOND);
        tasks
            .chain(ends)
            .chain(probes)
            .chain(outside)
            .chain(plan.wake_at)
            .min()
    }

    fn ends_at(&self, record: &ContainerStatus) -> Option<(UnixNanos, i32)> {
        let (seconds, code) = self.behaviour(&record.id).ends?;
        (record.state == ContainerState::Running).then_some((record.started_at + seconds * SECOND, code))
    }

    /// When the verdict of a probe that runs changes.
    fn probe_changes_at(&self, probe: &ProbeWanted) -> Option<UnixNanos> {
        let record = self
            .observed
            .containers
            .iter()
            .find(|record| record.id == probe.id)?;
        let results = self.observed.probes.get(&probe.id).copied().unwrap_or_default();
        match probe.kind {
            ProbeKind::Startup if results.startup.is_none() => Some(record.started_at + SECOND),
            ProbeKind::Readiness if results.readiness != Some(true) => Some(record.started_at + 2 * SECOND),
            ProbeKind::Liveness if results.liveness != Some(false) => {
                let fails = self.behaviour(&probe.id).liveness_fails_after?;
                Some(record.started_at + fails * SECOND)
            }
            _ => None,
        }
    }

    /// Everything whose time has come.
    fn happen(&mut self) {
        let now = self.now;
        for probe in self.last_plan.probes.clone() {
            if self.probe_changes_at(&probe).is_some_and(|at| at <= now) {
                let run = self.behaviour(&probe.id);
                let results = self.observed.probes.entry(probe.id.clone()).or_default();
                match probe.kind {
                    ProbeKind::Startup => results.startup = Some(run.starts),
                    ProbeKind::Readiness => results.readiness = Some(true),
                    ProbeKind::Liveness => results.liveness = Some(false),
                }
            }
        }
        let ended: Vec<(ContainerId, i32)> = self
            .observed
            .containers
            .iter()
            .filter_map(|record| {
                self.ends_at(record)
                    .filter(|(at, _)| *at <= now)
                    .map(|(_, code)| (record.id.clone(), code))
            })
            .collect();
        ended.into_iter().for_each(|(id, code)| self.end(&id, code));
        let (due, rest): (Vec<Task>, Vec<Task>) = std::mem::take(&mut self.tasks)
            .into_iter()
            .partition(|t| t.ends_at <= now);
        self.tasks = rest;
        due.into_iter().for_each(|task| self.finish(task.step));
        let at = self.second();
        let (due, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.disturbances)
            .into_iter()
            .partition(|(t, _)| *t <= at);
        self.disturbances = rest;
        due.into_iter()
            .for_each(|(_, disturbance)| self.disturbance(disturbance));
    }

    fn end(&mut self, id: &ContainerId, code: i32) {
        let now = self.now;
        let Some(record) = self
            .observed
            .containers
            .iter_mut()
            .find(|record| record.id == *id)
        else {
            return;
        };
        if record.state != ContainerState::Running {
            return;
        }
        record.state = ContainerState::Exited;
        record.exit_code = code;
        record.finished_at = now;
        let name = record.config.name.clone();
        self.note(format!("end {name} {code}"));
    }

    fn disturbance(&mut self, disturbance: Disturbance) {
        match disturbance {
            Disturbance::Delete(grace) => {
                let grace = grace.map(Duration::from_secs);
                self.desired.deletion = Some(match self.desired.deletion {
                    Some(last) => last.asked_again(grace, &self.desired.pod),
                    None => Deletion {
                        requested_at: self.now,
                        grace,
                    },
                });
            }
            Disturbance::RestartDaemon => self.restart_daemon(),
            Disturbance::Restart => {
                let running = self.observed.containers.iter();
                let running = running.filter(|record| record.state == ContainerState::Running);
                let ids: Vec<_> = running.map(|record| (record.id.clone(), self.now)).collect();
                self.observed.restarts.extend(ids);
            }
            Disturbance::Resize(to) => self.change(|pod| resize_all(pod, to)),
            Disturbance::Readiness(good) => self.set_readiness(good),
            Disturbance::ClockJump(seconds) => {
                self.now = self.now.saturating_add_signed(seconds * 1_000_000_000);
            }
            Disturbance::LoseSandbox => {
                let running: Vec<ContainerId> = self
                    .observed
                    .containers
                    .iter()
                    .map(|record| record.id.clone())
                    .collect();
                running.iter().for_each(|id| self.end(id, 137));
                self.observed
                    .sandboxes
                    .iter_mut()
                    .for_each(|sandbox| sandbox.ready = false);
            }
        }
    }

    /// Only the engine's records, the pod's record, its directory and the image store outlive the daemon.
    fn restart_daemon(&mut self) {
        self.note("daemon".to_owned());
        self.tasks.clear();
        let adopted = |id: &ContainerId| ((id.clone(), HookKind::PostStart), HookOutcome::Succeeded);
        let hooks = self.post_started.iter().map(adopted).collect();
        let good = |verdict: Option<bool>| verdict.filter(|good| *good);
        let mut probes = std::mem::take(&mut self.observed.probes);
        for results in probes.values_mut() {
            // What failed has to fail again.
            (results.startup, results.liveness) = (good(results.startup), good(results.liveness));
        }
        let images = std::mem::take(&mut self.observed.images).into_iter();
        self.observed = Observed {
            admitted_at: self.observed.admitted_at,
            failed: self.observed.failed.take(),
            restarts: std::mem::take(&mut self.observed.restarts),
            kill_started: std::mem::take(&mut self.observed.kill_started),
            probes,
            sizes: self.observed.sizes.take(),
            others: self.observed.others.clone(),
            sandboxes: std::mem::take(&mut self.observed.sandboxes),
            containers: std::mem::take(&mut self.observed.containers),
            directory_exists: self.observed.directory_exists,
            cgroup_exists: self.observed.cgroup_exists,
            images: images
                .map(|(name, image)| {
                    (
                        name,
                        ImageState {
                            pulled_at: 0,
                            ..image
                        },
                    )
                })
                .collect(),
            hooks,
            ..Observed::default()
        };
    }

    fn set_readiness(&mut self, good: bool) {
        for probe in &self.last_plan.probes {
            if probe.kind == ProbeKind::Readiness {
                let results = self.observed.probes.entry(probe.id.clone()).or_default();
                results.readiness = Some(good);
            }
        }
    }

    fn finish(&mut self, step: Step) {
        let key = step.key();
        let kind = format!("{key:?}")
            .split(['(', '{'])
            .next()
            .unwrap_or_default()
            .to_owned();
        if let Some(left) = self.failing.get_mut(&kind).filter(|left| **left > 0) {
            *left -= 1;
            self.note(format!("failed {kind}"));
            if let Step::StartContainer(start) = &step {
                self.failed_starts += 1;
                self.fail_container(start, self.failed_starts);
            }
            if let Step::RunSandbox { config, .. } = &step {
                // The engine takes its record back.
                self.observed
                    .sandboxes
                    .retain(|sandbox| sandbox.config.attempt != config.attempt);
            }
            let count = self
                .observed
                .failures
                .get(&key)
                .map_or(1, |failure| failure.count + 1);
            let reason = match kind.as_str() {
                "PullImage" => Reason::ErrImagePull,
                "StartContainer" => Reason::CreateContainerError,
                _ => Reason::FailedSync,
            };
            let failure = StepFailure {
                count,
                at: self.now,
                reason,
                message: "it failed".into(),
            };
            self.observed.failures.insert(key, failure);
            return;
        }
        self.observed.failures.remove(&key);
        self.apply(step);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::SetUpVolumes => {
                (self.observed.volumes_ready, self.observed.directory_exists) = (true, true)
            }
            Step::PullImage { image } => {
                self.note(format!("pull {image}"));
                let present = Some(testing::image());
                self.observed.images.insert(
                    image,
                    ImageState {
                        present,
                        pulled_at: self.now,
                    },
                );
            }
            Step::RunSandbox {
                config,
                replaces,
                cgroup,
            } => {
                if let Some(sizes) = &mut self.observed.sizes {
                    sizes.group = cgroup.resources;
                }
                assert!(
                    self.observed.sandboxes.iter().all(|sandbox| !sandbox.ready),
                    "a second sandbox"
                );
                let id = SandboxId(format!("s{}", config.attempt));
                for sandbox in self.observed.sandboxes.iter().filter(|sandbox| sandbox.id != id) {
                    assert!(replaces.contains(&sandbox.id), "an old sandbox keeps its network");
                }
                self.note(format!("sandbox {}", config.attempt));
                self.observed.cgroup_exists = true;
                let made = self
                    .observed
                    .sandboxes
                    .iter_mut()
                    .find(|sandbox| sandbox.id == id);
                let made = made.expect("its record is there since it was begun");
                (made.ready, made.ips) = (true, vec![[10, 1, 0, 2].into()]);
            }
            Step::StopSandbox { id } => {
                self.note(format!("stop-sandbox {id}"));
                self.stop_sandbox(&id);
            }
            Step::RemoveSandbox { id } => self.remove_sandbox(&id),
            Step::StartContainer(start) => self.start(*start),
            Step::RunHook { id, kind, name, .. } => {
                self.note(format!("{kind:?} {name}"));
                let outcome = if kind == HookKind::PreStop || self.behaviour(&id).hook_succeeds {
                    HookOutcome::Succeeded
                } else {
                    HookOutcome::Failed("no".into())
                };
                if (kind, &outcome) == (HookKind::PostStart, &HookOutcome::Succeeded) {
                    self.post_started.insert(id.clone());
                }
                self.observed.hooks.insert((id, kind), outcome);
            }
            Step::StopContainer {
                id, timeout, name, ..
            } => {
                self.note(format!("stop {name}"));
                let killed = Duration::from_secs(self.behaviour(&id).stops_in) > timeout;
                self.end(&id, if killed { 137 } else { 143 });
            }
            Step::ResizePod {
                cgroup,
                lowers_memory,
                ..
            } => self.resize_pod(cgroup.resources, lowers_memory),
            Step::ResizeContainer {
                id,
                name,
                limits,
                resources,
                ..
            } => self.resize_container(&id, &name, *limits, resources),
            Step::RemoveContainer { id, .. } => {
                let running =
                    |record: &&ContainerStatus| record.id == id && record.state == ContainerState::Running;
                assert_eq!(
                    self.observed.containers.iter().find(running),
                    None,
                    "a running container is removed"
                );
                self.observed.containers.retain(|record| record.id != id);
            }
            Step::TearDownVolumes => {
                (self.observed.volumes_ready, self.observed.directory_exists) = (false, false)
            }
            Step::RemoveCgroup { path } => {
                assert!(
                    path.ends_with("poduid") && path.starts_with("kubepods"),
                    "{path:?}"
                );
                self.observed.cgroup_exists = false;
            }
        }
    }

    fn end_all_in(&mut self, sandbox: &SandboxId) {
        let inside: Vec<ContainerId> = self
            .observed
            .containers
            .iter()
            .filter(|r| r.sandbox == *sandbox)
            .map(|r| r.id.clone())
            .collect();
        inside.iter().for_each(|id| self.end(id, 137));
    }

    /// Runs the program of a container that was made.
    fn start(&mut self, start: StartContainer) {
        let (name, attempt) = (start.config.name.clone(), start.config.attempt);
        if !self
            .observed
            .sandboxes
            .iter()
            .any(|sandbox| sandbox.id == start.sandbox && sandbox.ready)
        {
            // The sandbox went meanwhile, and the engine refuses.
            return;
        }
        let now = self.now;
        let same =
            |record: &&mut ContainerStatus| record.config.name == name && record.config.attempt == attempt;
        let Some(record) = self.observed.containers.iter_mut().find(same) else {
            return;
        };
        (record.state, record.started_at, record.pid) = (ContainerState::Running, now, 1);
        if spec::is_ephemeral(&self.desired.pod, &name) {
            return self.note(format!(
                "start {name} {attempt} beside {:?}",
                start.config.pid_target
            ));
        }
        let (container, role) = spec::container(&self.desired.pod, &name).unwrap();
        let asked = self
            .observed
            .restarts
            .keys()
            .any(|id| id.0.starts_with(&format!("{name}-")));
        let never = !asked
            && spec::restart_policy(&self.desired.pod, container, role) == RestartPolicy::Never
            && !spec::may_restart_all(&self.desired.pod)
            && container.restart_policy_rules.is_none();
        let count = self.starts.entry(name.clone()).or_default();
        *count += 1;
        assert!(role != Role::Main || !never || *count == 1, "{name} began twice");
        self.note(format!("start {name} {attempt}"));
    }

    /// The group's limits in the kernel's order: nothing in it may have more than it has.
    fn resize_pod(&mut self, limits: LinuxContainerResources, lowers_memory: bool) {
        let sizes = self.observed.sizes.as_mut().expect("it was resized");
        let lower = match (sizes.group.memory_limit, limits.memory_limit) {
            (Some(before), Some(after)) => after < before,
            (before, after) => before.is_none() && after.is_some(),
        };
        assert_eq!(lower, lowers_memory);
        sizes.group = limits;
        let entry = format!("group {:?} {:?}", sizes.group.cpu_quota, sizes.group.memory_limit);
        self.check_group();
        self.note(entry);
    }

    fn resize_container(
        &mut self,
        id: &ContainerId,
        name: &str,
        limits: LinuxContainerResources,
        resources: ResourceRequirements,
    ) {
        let sizes = self.observed.sizes.as_mut().expect("it was resized");
        sizes.containers.insert(id.clone(), resources);
        self.check_group();
        self.note(format!(
            "resize {name} {:?} {:?}",
            limits.cpu_quota, limits.memory_limit
        ));
    }

    /// No running container may use more than the pod's group lets it.
    fn check_group(&self) {
        let Some(sizes) = &self.observed.sizes else { return };
        for record in &self.observed.containers {
            let running = record.state == ContainerState::Running;
            if !running || spec::container(&self.desired.pod, &record.config.name).is_none() {
                continue;
            }
            let has = crate::sizes::actual(Some(sizes), record);
            let limit = |resource: &str| {
                let list = has.limits.as_ref()?;
                list.get(resource).map(crate::quantity::value_of)
            };
            if let (Some(group), Some(own)) = (sizes.group.memory_limit, limit("memory")) {
                assert!(
                    own.as_units() <= group,
                    "{} has more memory than its pod",
                    record.config.name
                );
            }
            if let (Some(group), Some(own)) = (sizes.group.cpu_quota, limit("cpu")) {
                assert!(
                    own.as_milli() * 100 <= group,
                    "{} has more CPU time than its pod",
                    record.config.name
                );
            }
        }
    }

    /// Running containers that do not have what the pod was given.
    pub(super) fn stale(&self) -> Vec<String> {
        let running = self.observed.containers.iter();
        let running = running.filter(|record| record.state == ContainerState::Running);
        let sizes = self.observed.sizes.as_ref();
        let stale = running.filter(|record| {
            let found = spec::container(&self.desired.pod, &record.config.name);
            found.is_some_and(|(container, _)| {
                let wanted = crate::sizes::wish(&self.desired.pod, container);
                !crate::sizes::differences(&wanted, &crate::sizes::actual(sizes, record)).is_empty()
            })
        });
        stale.map(|record| record.config.name.clone()).collect()
    }

    /// A container that is started has what the pod is given at that time: nothing of an earlier generation is.
    fn check_generation(&self, start: &StartContainer) {
        let Some((container, _)) = spec::container(&self.desired.pod, &start.config.name) else {
            return;
        };
        let given = match &self.observed.sizes {
            Some(sizes) => sizes.allocated.applied(&self.desired.pod),
            None => Arc::clone(&self.desired.pod),
        };
        let (of_given, _) = spec::container(&given, &container.name).unwrap();
        let given = crate::sizes::wish(&given, of_given);
        let made_with = start.config.annotations.get(crate::sizes::MADE_WITH);
        let made_with: Option<ResourceRequirements> =
            made_with.map(|text| serde_json::from_str(text).unwrap());
        assert_eq!(
            made_with.unwrap_or_default(),
            given,
            "{} is started with old resources",
            container.name
        );
        assert_eq!(
            start.config.user_specified_image,
            container.image.clone().unwrap()
        );
    }

    /// Gives the pod another specification, as an executor does.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Pod)) {
        let before = Arc::clone(&self.desired.pod);
        let mut pod = before.as_ref().clone();
        change(&mut pod);
        if self.observed.sizes.is_none() && Allocation::of(&before) != Allocation::of(&pod) {
            self.observed.sizes = Some(Sizes {
                allocated: Allocation::of(&before),
                group: pod_resources(&before, &self.desired.node),
                ..Sizes::default()
            });
        }
        self.desired.pod = Arc::new(pod);
    }

    /// Init containers before this one have done their part in this sandbox, unless main containers were made in it.
    fn check_turn(&self, name: &str, role: Role, sandbox: &SandboxId, round: u32) {
        let pod = &self.desired.pod;
        let here = |name: &str| {
            let records = self.observed.containers.iter();
            records
                .filter(|r| r.config.name == name && r.sandbox == *sandbox && round_of(r) == round)
                .max_by_key(|r| r.config.attempt)
        };
        let initialized = spec::containers(pod)
            .iter()
            .any(|main| here(&main.name).is_some());
        if initialized {
            assert!(role != Role::Init, "{name} runs again beside main containers");
            return;
        }
        let inits = spec::init_containers(pod);
        let before = inits.iter().take_while(|init| init.name != name);
        let later_made = |index: usize| inits[index + 1..].iter().any(|init| here(&init.name).is_some());
        for (index, init) in before.enumerate() {
            let record = here(&init.name);
            assert!(record.is_some(), "{name} begins before {}", init.name);
            let Some(record) = record else { continue };
            if spec::is_sidecar(init) {
                let probed = init.startup_probe.is_none()
                    || self
                        .observed
                        .probes
                        .get(&record.id)
                        .is_some_and(|results| results.startup == Some(true));
                // Once a later one began, an end of this one holds nothing up.
                assert!(
                    probed || later_made(index) || record.state != ContainerState::Running,
                    "{name} before {}",
                    init.name
                );
            } else {
                assert_eq!(
                    (record.state, record.exit_code),
                    (ContainerState::Exited, 0),
                    "{name} before {}",
                    init.name
                );
            }
        }
    }
}
