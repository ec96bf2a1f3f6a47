//! Rules for every plan and every status of a simulated pod, said another way than the plan says them.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cri::{ContainerId, ContainerState, ContainerStatus, UnixNanos};
use k8s_openapi::api::core::v1::{Container, PodStatus};

use super::simulator::Simulator;
use crate::plan::*;
use crate::spec::{self, Role};

/// What the rules remember from one look to the next.
#[derive(Default)]
pub(super) struct Seen {
    /// When each container that is being ended has to be gone, and for whose sake.
    deadlines: BTreeMap<ContainerId, (Cause, UnixNanos)>,
}

/// What a grace period is of; that of another cause may be longer.
type Cause = (bool, bool);

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap()
}

impl Simulator {
    pub(super) fn check_rules(&mut self, plan: &Plan) {
        self.check_probes(plan);
        self.check_time(plan);
        self.check_end_of_pod(plan);
        for id in &plan.spared {
            self.seen.deadlines.remove(id);
        }
    }

    fn record(&self, id: &ContainerId) -> Option<&ContainerStatus> {
        self.observed.containers.iter().find(|record| record.id == *id)
    }

    fn any_running(&self, name: &str) -> bool {
        let mut all = self.observed.containers.iter();
        all.any(|record| record.config.name == name && record.state == ContainerState::Running)
    }

    /// Its postStart hook has done its work.
    fn past_hook(&self, container: &Container, id: &ContainerId) -> bool {
        let hook = container
            .lifecycle
            .as_ref()
            .and_then(|all| all.post_start.as_ref());
        let key = (id.clone(), HookKind::PostStart);
        hook.is_none() || self.observed.hooks.get(&key) == Some(&HookOutcome::Succeeded)
    }

    fn results(&self, id: &ContainerId) -> ProbeResults {
        self.observed.probes.get(id).copied().unwrap_or_default()
    }

    /// The startup probe comes after the hook and before the others, which go on as long as the container does.
    fn check_probes(&self, plan: &Plan) {
        for probe in &plan.probes {
            let record = self.record(&probe.id).expect("what is probed is there");
            let (container, _) = spec::container(&self.desired.pod, &probe.name).unwrap();
            assert_eq!(record.state, ContainerState::Running, "{probe:?}");
            assert!(self.past_hook(container, &probe.id), "{probe:?} before its hook");
            let started = container.startup_probe.is_none() || self.results(&probe.id).startup == Some(true);
            assert_eq!(started, probe.kind != ProbeKind::Startup, "{probe:?}");
            assert!(
                plan.stage == Stage::Syncing || probe.kind == ProbeKind::Readiness,
                "{probe:?} of a pod that ends"
            );
        }
        for id in &plan.spared {
            let record = self.record(id).expect("it runs");
            let (container, _) = spec::container(&self.desired.pod, &record.config.name).unwrap();
            let started = container.startup_probe.is_none() || self.results(id).startup == Some(true);
            if !self.past_hook(container, id) {
                continue;
            }
            let wanted = [
                (ProbeKind::Startup, container.startup_probe.is_some() && !started),
                (ProbeKind::Liveness, container.liveness_probe.is_some() && started),
                (
                    ProbeKind::Readiness,
                    container.readiness_probe.is_some() && started,
                ),
            ];
            for (kind, wanted) in wanted {
                let runs = plan
                    .probes
                    .iter()
                    .any(|probe| probe.id == *id && probe.kind == kind);
                assert_eq!(runs, wanted, "{kind:?} probe of {}", record.config.name);
            }
        }
    }

    /// No pod goes on after its `activeDeadlineSeconds`, whatever a clock that was set back says.
    fn check_time(&self, plan: &Plan) {
        let Some(limit) = spec::active_deadline(&self.desired.pod) else {
            return;
        };
        let over = self.now >= self.observed.admitted_at + nanos(limit) || self.observed.failed.is_some();
        assert!(
            !over || plan.stage != Stage::Syncing,
            "a pod that is out of time goes on"
        );
        let deadline = self.observed.admitted_at + nanos(limit);
        let deleted_before = self
            .desired
            .deletion
            .is_some_and(|deletion| deletion.requested_at <= deadline);
        assert!(
            !deleted_before || self.observed.failed.is_some() || plan.failure.is_none(),
            "a pod that was deleted in time is out of time: {:?}",
            plan.failure
        );
    }

    /// What has ended holds nothing; and the end that somebody wants is no failure.
    fn check_end_of_pod(&self, plan: &Plan) {
        if plan.stage >= Stage::Terminated {
            let mut all = self.observed.containers.iter();
            assert!(
                all.all(|record| record.state != ContainerState::Running),
                "{plan:#?}"
            );
            let mut all = self.observed.sandboxes.iter();
            assert!(
                all.all(|sandbox| !sandbox.ready),
                "a pod that has ended keeps its network"
            );
        }
        let lost = plan
            .failure
            .as_ref()
            .is_some_and(|failure| failure.reason == "PodSandboxLost");
        assert!(
            !lost || self.observed.failed.is_some() || self.desired.deletion.is_none(),
            "the sandbox of a deleted pod is taken for lost"
        );
    }

    /// A step that ends a container: in time, not too early, and sidecars after those that they serve.
    pub(super) fn check_end(&mut self, plan: &Plan, step: &Step) {
        let (id, deadline, reason) = match step {
            Step::StopContainer {
                id, deadline, reason, ..
            } => (id, *deadline, Some(reason)),
            Step::RunHook {
                id,
                deadline,
                kind: HookKind::PreStop,
                ..
            } => (id, *deadline, None),
            _ => return,
        };
        let name = self.record(id).expect("it is there").config.name.clone();
        let cause = (plan.stage != Stage::Syncing, self.desired.deletion.is_some());
        match self.seen.deadlines.get(id) {
            Some((before, known)) if *before == cause => {
                assert!(deadline <= *known, "{name} is given more time");
            }
            Some(_) => {}
            None if matches!(
                reason,
                Some(KillReason::RestartAllContainers | KillReason::Orphaned)
            ) => {}
            None if plan.stage == Stage::Syncing => {
                let grace = self.least_grace(&name);
                assert!(deadline >= self.now + nanos(grace), "{name} is given less time");
            }
            None => {}
        }
        self.seen.deadlines.insert(id.clone(), (cause, deadline));
        self.check_order(plan, step, &name, deadline);
    }

    /// The shortest time that a container may be given to end in.
    fn least_grace(&self, name: &str) -> Duration {
        let pod = &self.desired.pod;
        let Some((container, _)) = spec::container(pod, name) else {
            return Duration::ZERO;
        };
        let probes = [&container.liveness_probe, &container.startup_probe];
        let of_probes = probes
            .into_iter()
            .map(|probe| spec::probe_grace_period(pod, probe.as_ref()));
        of_probes.fold(spec::grace_period(pod), Duration::min)
    }

    fn check_order(&self, plan: &Plan, step: &Step, name: &str, deadline: UnixNanos) {
        let is_stop = matches!(step, Step::StopContainer { .. });
        let all: Vec<_> = spec::all_containers(&self.desired.pod).collect();
        let Some(index) = all.iter().position(|(container, _)| container.name == name) else {
            return;
        };
        let at_once = self
            .desired
            .deletion
            .is_some_and(|deletion| deletion.grace == Some(Duration::ZERO));
        let is_sidecar = all[index].1 == Role::Sidecar;
        if plan.stage == Stage::Syncing || !is_stop || !is_sidecar || at_once || self.now >= deadline {
            return;
        }
        let served = all
            .iter()
            .enumerate()
            .filter(|(other, (_, role))| *other > index || *role != Role::Sidecar);
        for (_, (other, _)) in served {
            assert!(
                !self.any_running(&other.name),
                "sidecar {name} is stopped before {}",
                other.name
            );
        }
    }

    /// What a status says of each container: it is ready only if it is, and it forgets no restart.
    pub(super) fn check_containers(&self, status: &PodStatus) {
        let lists = |status: &PodStatus| {
            let inits = status.init_container_statuses.clone().into_iter().flatten();
            let all: Vec<_> = inits
                .chain(status.container_statuses.clone().into_iter().flatten())
                .collect();
            all
        };
        for of in lists(status) {
            let (container, role) = spec::container(&self.desired.pod, &of.name).unwrap();
            if let Some(before) = &self.status {
                let before = lists(before).into_iter().find(|before| before.name == of.name);
                let before = before.map_or(0, |before| before.restart_count);
                assert!(
                    before <= of.restart_count,
                    "{} was restarted {before} times, and now {}",
                    of.name,
                    of.restart_count
                );
            }
            if role == Role::Init || !of.ready {
                continue;
            }
            let mut running =
                self.observed.containers.iter().filter(|record| {
                    record.config.name == of.name && record.state == ContainerState::Running
                });
            let record = running
                .next()
                .unwrap_or_else(|| panic!("{} is ready and does not run", of.name));
            let results = self.results(&record.id);
            assert!(self.past_hook(container, &record.id), "{}", of.name);
            for (probe, result) in [
                (&container.startup_probe, results.startup),
                (&container.readiness_probe, results.readiness),
            ] {
                assert!(probe.is_none() || result == Some(true), "{} is ready", of.name);
            }
        }
    }
}
