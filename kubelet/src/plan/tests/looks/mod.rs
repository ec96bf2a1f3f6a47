//! One look at a pod: what is planned for what there is.

mod ends;
mod rounds;
mod starts;
mod steps;

use std::collections::BTreeMap;
use std::time::Duration;

use berth_cri::{
    ContainerId, ContainerState, ContainerStatus, PodSandboxConfig, PodSandboxStatus, SandboxId,
};

use super::simulator::{SECOND, Simulator};
use crate::backoff::RESTARTS_IN_A_ROW;
use crate::plan::*;
use crate::testing;

/// A pod whose sandbox, volumes and images are there, and no container yet.
struct Look {
    desired: Desired,
    observed: Observed,
    begun: u64,
}

impl Look {
    fn new(spec: &str) -> Self {
        let Simulator {
            desired,
            mut observed,
            begun,
            ..
        } = Simulator::new(spec);
        observed.volumes_ready = true;
        observed.directory_exists = true;
        observed.cgroup_exists = true;
        for image in observed.images.values_mut() {
            *image = ImageState {
                present: Some(testing::image()),
                pulled_at: begun,
            };
        }
        let look = Self {
            desired,
            observed,
            begun,
        };
        look.sandbox(0, true)
    }

    fn second(&self, second: u64) -> u64 {
        self.begun + second * SECOND
    }

    fn sandbox(mut self, attempt: u32, ready: bool) -> Self {
        self.observed
            .sandboxes
            .retain(|known| known.config.attempt != attempt);
        self.observed.sandboxes.push(PodSandboxStatus {
            id: SandboxId(format!("s{attempt}")),
            config: PodSandboxConfig {
                attempt,
                ..PodSandboxConfig::default()
            },
            ready,
            created_at: self.begun,
            ips: Vec::new(),
        });
        self
    }

    /// A container in the first sandbox that was made at the beginning; one that ran started then.
    fn record(mut self, name: &str, attempt: u32, state: ContainerState) -> Self {
        let ran = state != ContainerState::Created;
        self.observed.containers.push(ContainerStatus {
            id: id(name, attempt),
            sandbox: SandboxId("s0".into()),
            state,
            created_at: self.begun,
            started_at: if ran { self.begun } else { 0 },
            ..testing::created(testing::config(name, attempt))
        });
        self
    }

    fn running(self, name: &str, attempt: u32) -> Self {
        self.record(name, attempt, ContainerState::Running)
    }

    fn ended(self, name: &str, attempt: u32, code: i32, second: u64) -> Self {
        let at = self.second(second);
        self.record(name, attempt, ContainerState::Exited).with(|record| {
            (record.exit_code, record.finished_at) = (code, at);
        })
    }

    /// Changes the last record.
    fn with(mut self, change: impl FnOnce(&mut ContainerStatus)) -> Self {
        change(self.observed.containers.last_mut().unwrap());
        self
    }

    fn annotated(self, key: &str, value: &str) -> Self {
        self.with(|record| {
            let entry = (key.to_owned(), value.to_owned());
            record.config.annotations.extend([entry]);
        })
    }

    fn in_flight(mut self, key: StepKey) -> Self {
        self.observed.in_flight.insert(key);
        self
    }

    fn failed(mut self, key: StepKey, second: u64, reason: Reason) -> Self {
        let failure = StepFailure {
            count: 1,
            at: self.second(second),
            reason,
            message: "it broke".into(),
        };
        self.observed.failures.insert(key, failure);
        self
    }

    fn hook(mut self, container: ContainerId, kind: HookKind, outcome: HookOutcome) -> Self {
        self.observed.hooks.insert((container, kind), outcome);
        self
    }

    fn probed(mut self, container: ContainerId, results: ProbeResults) -> Self {
        self.observed.probes.insert(container, results);
        self
    }

    fn asked_anew(mut self, container: ContainerId, second: u64) -> Self {
        let at = self.second(second);
        self.observed.restarts.insert(container, at);
        self
    }

    fn deleted(mut self, second: u64, grace: Option<u64>) -> Self {
        self.desired.deletion = Some(Deletion {
            requested_at: self.second(second),
            grace: grace.map(Duration::from_secs),
        });
        self
    }

    fn at(&self, second: u64) -> Plan {
        plan(&self.desired, &self.observed, self.second(second))
    }

    /// What is done at that time, in words.
    fn steps(&self, second: u64) -> Vec<String> {
        self.at(second).steps.iter().map(word).collect()
    }
}

fn id(name: &str, attempt: u32) -> ContainerId {
    ContainerId(format!("{name}-{attempt}"))
}

fn start_of(name: &str, attempt: u32) -> StepKey {
    StepKey::StartContainer(name.to_owned(), attempt)
}

fn word(step: &Step) -> String {
    match step {
        Step::SetUpVolumes => "volumes".to_owned(),
        Step::PullImage { image } => format!("pull {image}"),
        Step::RunSandbox { config, replaces, .. } => {
            let replaced: String = replaces.iter().map(|id| format!(" for {id}")).collect();
            format!("sandbox {}{replaced}", config.attempt)
        }
        Step::StopSandbox { id } => format!("stop-sandbox {id}"),
        Step::RemoveSandbox { id } => format!("remove-sandbox {id}"),
        Step::StartContainer(start) => {
            format!(
                "start {} {} in {}",
                start.config.name, start.config.attempt, start.sandbox
            )
        }
        Step::RunHook { id, kind, .. } => format!("{kind:?} {id}"),
        Step::StopContainer { id, timeout, .. } => format!("stop {id} {}", timeout.as_secs()),
        Step::RemoveContainer { id, .. } => format!("remove {id}"),
        Step::ResizePod { .. } => "resize".to_owned(),
        Step::ResizeContainer { id, .. } => format!("resize {id}"),
        Step::TearDownVolumes => "tear-down".to_owned(),
        Step::RemoveCgroup { .. } => "remove-cgroup".to_owned(),
    }
}

fn started_with(plan: &Plan, name: &str) -> BTreeMap<String, String> {
    let mut starts = plan.steps.iter().filter_map(|step| match step {
        Step::StartContainer(start) if start.config.name == name => Some(start.config.annotations.clone()),
        _ => None,
    });
    starts.next().unwrap_or_else(|| panic!("{name} is not started"))
}

const NOTHING: [&str; 0] = [];

fn policy(policy: &str) -> String {
    format!(r#"{{"restartPolicy":"{policy}","containers":[{{"name":"c","image":"i:1"}}]}}"#)
}
