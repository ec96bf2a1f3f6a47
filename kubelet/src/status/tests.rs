//! Statuses of pods that are put together by hand.

mod conditions;
mod containers;
mod phases;
mod pod;
mod rules;

use std::sync::Arc;

use berth_cri::{ContainerId, ContainerState, ImageId, PodSandboxConfig, PodSandboxStatus, SandboxId};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Value, json};

use super::*;
use crate::defaulting::default_pod;
use crate::identity::PodUid;
use crate::plan::{HookKind, NodeFacts, PodFailure, ProbeResults, Reason, Stage, Waiting};
use crate::testing::{self, pod};

const SECOND: u64 = 1_000_000_000;

struct Scene {
    desired: Desired,
    observed: Observed,
    plan: Plan,
}

fn scene(spec: &str) -> Scene {
    let mut pod: Pod = pod(spec);
    default_pod(&mut pod);
    let node = NodeFacts {
        host_ips: vec![[10, 0, 0, 1].into()],
        ..NodeFacts::default()
    };
    let desired = Desired {
        pod: Arc::new(pod),
        uid: PodUid("uid".into()),
        objects: Arc::default(),
        node: Arc::new(node),
        user_ids: None,
        deletion: None,
    };
    let sandbox = PodSandboxStatus {
        id: SandboxId("s".into()),
        config: PodSandboxConfig::default(),
        ready: true,
        created_at: SECOND,
        ips: vec![[10, 1, 0, 2].into()],
    };
    let observed = Observed {
        admitted_at: SECOND,
        sandboxes: vec![sandbox],
        ..Observed::default()
    };
    Scene {
        desired,
        observed,
        plan: Plan::default(),
    }
}

impl Scene {
    fn record(mut self, name: &str, attempt: u32, state: ContainerState, exit_code: i32) -> Self {
        let (started_at, finished_at) = (
            2 * SECOND,
            if state == ContainerState::Running {
                0
            } else {
                3 * SECOND
            },
        );
        self.observed.containers.push(berth_cri::ContainerStatus {
            state,
            created_at: 2 * SECOND,
            started_at,
            finished_at,
            exit_code,
            ..testing::created(testing::config(name, attempt))
        });
        self
    }

    fn running(self, name: &str, attempt: u32) -> Self {
        self.record(name, attempt, ContainerState::Running, 0)
    }

    fn ended(self, name: &str, attempt: u32, code: i32) -> Self {
        self.record(name, attempt, ContainerState::Exited, code)
    }

    fn waiting(mut self, name: &str, reason: Reason, message: &str) -> Self {
        self.plan.waiting.insert(
            name.into(),
            Waiting {
                reason,
                message: message.into(),
            },
        );
        self
    }

    fn stage(mut self, stage: Stage) -> Self {
        self.plan.stage = stage;
        self
    }

    fn probes(mut self, id: &str, results: ProbeResults) -> Self {
        self.observed.probes.insert(ContainerId(id.into()), results);
        self
    }

    fn status(&self) -> PodStatus {
        pod_status(&self.desired, &self.observed, &self.plan, None, 9 * SECOND)
    }

    fn phase(&self) -> String {
        self.status().phase.unwrap()
    }
}

fn condition(status: &PodStatus, kind: &str) -> (String, String, String) {
    let found = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == kind)
        .unwrap();
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (found.status.clone(), text(&found.reason), text(&found.message))
}

fn expect(status: &str, reason: &str, message: &str) -> (String, String, String) {
    (status.into(), reason.into(), message.into())
}

fn first(status: &PodStatus) -> ContainerStatus {
    status.container_statuses.as_ref().unwrap()[0].clone()
}

fn of<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let inits = status.init_container_statuses.iter().flatten();
    let mut all = inits.chain(status.container_statuses.iter().flatten());
    all.find(|status| status.name == name).unwrap()
}

const ONE: &str = r#"{"containers":[{"name":"c","image":"i:1"}]}"#;
const WITH_INIT: &str = r#"{"initContainers":[{"name":"i","image":"i:1"},{"name":"s","image":"i:1","restartPolicy":"Always",
    "startupProbe":{"exec":{"command":["x"]}}}],"containers":[{"name":"c","image":"i:1"}]}"#;
