//! A pod's records, put in order for the plan.

use berth_cri::{ContainerId, ContainerState, ContainerStatus, PodSandboxStatus, UnixNanos};
use k8s_openapi::api::core::v1::Container;

use super::{Desired, HookKind, HookOutcome, Observed};
use crate::spec::{self, RestartAction, RestartPolicy, Role};

/// What is wanted, what there is, and the time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) desired: &'a Desired,
    pub(crate) observed: &'a Observed,
    pub(crate) now: UnixNanos,
}

/// Where a running container stands between its start and being of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Startup {
    /// Its postStart hook has not ended.
    InHook,
    /// Its startup probe has not succeeded.
    InProbe,
    /// `started: true`.
    Started,
}

impl<'a> View<'a> {
    /// The newest ready sandbox.
    pub(crate) fn sandbox(&self) -> Option<&'a PodSandboxStatus> {
        self.observed
            .sandboxes
            .iter()
            .filter(|sandbox| sandbox.ready)
            .max_by_key(|sandbox| sandbox.config.attempt)
    }

    /// The newest record of a container.
    pub(crate) fn latest(&self, name: &str) -> Option<&'a ContainerStatus> {
        self.records(name)
            .max_by_key(|record| (record.config.attempt, record.created_at))
    }

    /// The newest record of a container in the current sandbox and round.
    pub(crate) fn latest_here(&self, name: &str) -> Option<&'a ContainerStatus> {
        let sandbox = self.sandbox()?;
        let round = self.round();
        let here = self
            .records(name)
            .filter(|record| record.sandbox == sandbox.id && round_of(record) == round);
        here.max_by_key(|record| (record.config.attempt, record.created_at))
    }

    /// All records of a container.
    pub(crate) fn records(&self, name: &str) -> impl Iterator<Item = &'a ContainerStatus> + use<'a> {
        let name = name.to_owned();
        self.observed
            .containers
            .iter()
            .filter(move |record| record.config.name == name)
    }

    /// All containers of the specification with their parts.
    pub(crate) fn containers(&self) -> impl DoubleEndedIterator<Item = (&'a Container, Role)> + use<'a> {
        spec::all_containers(&self.desired.pod)
    }

    /// Whether a container is restarted.
    pub(crate) fn policy(&self, container: &Container, role: Role) -> RestartPolicy {
        spec::restart_policy(&self.desired.pod, container, role)
    }

    /// A container that ended with this code is started again.
    pub(crate) fn restarts(&self, container: &Container, role: Role, exit_code: i32) -> bool {
        spec::restarts(&self.desired.pod, container, role, exit_code)
    }

    /// How often all containers of the pod were restarted together (`RestartAllContainers`), the restart that is due
    /// among them. A container of an earlier round is not part of the pod as it is to be.
    pub(crate) fn round(&self) -> u32 {
        let last = self.last_round();
        if self.restart_all_trigger().is_some() {
            last.saturating_add(1)
        } else {
            last
        }
    }

    /// The newest round of which there is a container.
    fn last_round(&self) -> u32 {
        self.observed.containers.iter().map(round_of).max().unwrap_or(0)
    }

    /// The container whose end asks for a restart of all, until there is one of the next round.
    pub(crate) fn restart_all_trigger(&self) -> Option<&'a ContainerStatus> {
        if !spec::may_restart_all(&self.desired.pod) {
            return None;
        }
        let last = self.last_round();
        self.containers().find_map(|(container, _)| {
            let record = self.latest(&container.name)?;
            let asks = record.state == ContainerState::Exited
                && !self.is_restarted(record)
                && round_of(record) == last
                && spec::restart_rule(container, record.exit_code)
                    == Some(RestartAction::RestartAllContainers);
            asks.then_some(record)
        })
    }

    /// The newest record of a container in the current round.
    pub(crate) fn current(&self, name: &str) -> Option<&'a ContainerStatus> {
        self.latest(name)
            .filter(|record| round_of(record) == self.round())
    }

    /// Somebody wants this container to be started anew.
    pub(crate) fn is_restarted(&self, record: &ContainerStatus) -> bool {
        self.observed.restarts.contains_key(&record.id)
    }

    /// The next number of a container's attempt.
    pub(crate) fn next_attempt(&self, name: &str) -> u32 {
        self.latest(name)
            .map_or(0, |record| record.config.attempt.saturating_add(1))
    }

    /// How a hook of a container ended, if it did.
    pub(crate) fn hook(&self, id: &ContainerId, kind: HookKind) -> Option<&'a HookOutcome> {
        self.observed.hooks.get(&(id.clone(), kind))
    }

    /// Where a running container stands.
    pub(crate) fn startup(&self, container: &Container, record: &ContainerStatus) -> Startup {
        let has_hook = container
            .lifecycle
            .as_ref()
            .is_some_and(|lifecycle| lifecycle.post_start.is_some());
        if has_hook && self.hook(&record.id, HookKind::PostStart) != Some(&HookOutcome::Succeeded) {
            return Startup::InHook;
        }
        let results = self.observed.probes.get(&record.id).copied().unwrap_or_default();
        if container.startup_probe.is_some() && results.startup != Some(true) {
            return Startup::InProbe;
        }
        Startup::Started
    }

    /// A running container is started and its readiness probe, if it has one, succeeds.
    pub(crate) fn is_ready(&self, container: &Container, record: &ContainerStatus) -> bool {
        let results = self.observed.probes.get(&record.id).copied().unwrap_or_default();
        is_running(record)
            && self.startup(container, record) == Startup::Started
            && (container.readiness_probe.is_none() || results.readiness == Some(true))
    }

    /// Whether every init container has done its part. It stays so while the sandbox lives, whatever sidecars do later.
    pub(crate) fn is_initialized(&self) -> bool {
        let main_made = spec::containers(&self.desired.pod)
            .iter()
            .any(|main| self.latest_here(&main.name).is_some());
        main_made
            || spec::init_containers(&self.desired.pod)
                .iter()
                .all(|init| self.has_done_its_part(init))
    }

    /// Of an init container: it succeeded in the current sandbox, or as a sidecar it has started.
    pub(crate) fn has_done_its_part(&self, init: &Container) -> bool {
        let Some(record) = self.latest_here(&init.name) else {
            return false;
        };
        if spec::is_sidecar(init) {
            return is_running(record) && self.startup(init, record) == Startup::Started;
        }
        // One that somebody wants to run again has not, although it may have ended well before it could be stopped.
        record.state == ContainerState::Exited && record.exit_code == 0 && !self.is_restarted(record)
    }
}

/// The annotation of a container that holds how often all containers of its pod were restarted together before it.
pub(crate) const ROUND: &str = "berth.container.round";

/// How often all containers of the pod were restarted together before this one was made.
pub(crate) fn round_of(record: &ContainerStatus) -> u32 {
    let text = record.config.annotations.get(ROUND);
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Its program runs.
pub(crate) fn is_running(record: &ContainerStatus) -> bool {
    record.state == ContainerState::Running
}

/// Its program has run.
pub(crate) fn has_ended(record: &ContainerStatus) -> bool {
    matches!(record.state, ContainerState::Exited | ContainerState::Unknown)
}

/// The exit code that counts. A container that nobody saw end has failed.
pub(crate) fn exit_code(record: &ContainerStatus) -> i32 {
    match record.state {
        ContainerState::Unknown if record.exit_code == 0 => 137,
        _ => record.exit_code,
    }
}
