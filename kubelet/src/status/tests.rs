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

const ONE: &str = r#"{"containers":[{"name":"c","image":"i:1"}]}"#;
const WITH_INIT: &str = r#"{"initContainers":[{"name":"i","image":"i:1"},{"name":"s","image":"i:1","restartPolicy":"Always",
    "startupProbe":{"exec":{"command":["x"]}}}],"containers":[{"name":"c","image":"i:1"}]}"#;

#[test]
fn reads_as_kubectl_shows_it() {
    let status = scene(ONE).ended("c", 0, 1).running("c", 1).status();
    let time = "1970-01-01T00:00:09Z";
    let met = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": time, "observedGeneration": 1});
    let ended = json!({"exitCode": 1, "reason": "Error", "startedAt": "1970-01-01T00:00:02Z",
        "finishedAt": "1970-01-01T00:00:03Z", "containerID": "berth://c0"});
    let expected = json!({
        "phase": "Running",
        "observedGeneration": 1,
        "qosClass": "BestEffort",
        "hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.1"}],
        "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}],
        "startTime": "1970-01-01T00:00:01Z",
        "conditions": [met("PodReadyToStartContainers"), met("Initialized"), met("Ready"), met("ContainersReady"), met("PodScheduled")],
        "containerStatuses": [{
            "name": "c", "image": "i:1", "imageID": "sha256:1", "containerID": "berth://c1",
            "ready": true, "started": true, "restartCount": 1, "resources": {},
            "state": {"running": {"startedAt": "1970-01-01T00:00:02Z"}},
            "lastState": {"terminated": ended},
        }],
    });
    let found: Value = serde_json::to_value(&status).unwrap();
    assert_eq!(
        found,
        expected,
        "{}",
        serde_json::to_string_pretty(&found).unwrap()
    );
}

#[test]
fn phases() {
    let never = &ONE.replace("{\"cont", "{\"restartPolicy\":\"Never\",\"cont");
    for (name, scene, phase) in [
        ("nothing yet", scene(ONE), "Pending"),
        ("running", scene(ONE).running("c", 0), "Running"),
        ("crashed, comes back", scene(ONE).ended("c", 0, 1), "Running"),
        (
            "crash loop",
            scene(ONE)
                .ended("c", 1, 1)
                .waiting("c", Reason::CrashLoopBackOff, "x"),
            "Running",
        ),
        (
            "done",
            scene(never).ended("c", 0, 0).stage(Stage::Terminated),
            "Succeeded",
        ),
        (
            "failed",
            scene(never).ended("c", 0, 2).stage(Stage::Terminated),
            "Failed",
        ),
        (
            "deleted",
            scene(ONE).ended("c", 0, 143).stage(Stage::Removing),
            "Failed",
        ),
        ("init runs", scene(WITH_INIT).running("i", 0), "Pending"),
        (
            "init failed, comes back",
            scene(WITH_INIT).ended("i", 0, 1),
            "Pending",
        ),
        (
            "sidecar not up",
            scene(WITH_INIT).ended("i", 0, 0).running("s", 0),
            "Pending",
        ),
        (
            "main waits",
            scene(WITH_INIT).ended("i", 0, 0).running("s", 0).probes(
                "s0",
                ProbeResults {
                    startup: Some(true),
                    ..Default::default()
                },
            ),
            "Pending",
        ),
        (
            "main runs, sidecar crashed",
            scene(WITH_INIT).ended("i", 0, 0).ended("s", 0, 1).running("c", 0),
            "Running",
        ),
    ] {
        assert_eq!(scene.phase(), phase, "{name}");
    }
    let mut late = scene(ONE).ended("c", 0, 143).stage(Stage::Terminated);
    late.plan.failure = Some(PodFailure {
        reason: "DeadlineExceeded".into(),
        message: "late".into(),
        grace: None,
    });
    let status = late.status();
    assert_eq!(
        (
            status.phase.as_deref(),
            status.reason.as_deref(),
            status.message.as_deref()
        ),
        (Some("Failed"), Some("DeadlineExceeded"), Some("late"))
    );
}

#[test]
fn conditions_say_why() {
    let status = scene(WITH_INIT).running("i", 0).status();
    assert_eq!(
        condition(&status, "Initialized"),
        expect(
            "False",
            "ContainersNotInitialized",
            "containers with incomplete status: [i s]"
        )
    );
    assert_eq!(
        condition(&status, "Ready"),
        expect(
            "False",
            "ContainersNotReady",
            "containers with unready status: [s c]"
        )
    );
    assert_eq!(
        condition(&status, "PodReadyToStartContainers"),
        expect("True", "", "")
    );
    let mut done = scene(&ONE.replace("{\"cont", "{\"restartPolicy\":\"Never\",\"cont"))
        .ended("c", 0, 0)
        .stage(Stage::Terminated);
    done.observed.sandboxes[0].ready = false;
    let status = done.status();
    assert_eq!(condition(&status, "Ready"), expect("False", "PodCompleted", ""));
    assert_eq!(
        condition(&status, "Initialized"),
        expect("True", "PodCompleted", "")
    );
    assert_eq!(
        condition(&status, "PodReadyToStartContainers"),
        expect("False", "", "")
    );
}

#[test]
fn a_condition_keeps_the_time_of_its_change() {
    let mut scene =
        scene(r#"{"containers":[{"name":"c","image":"i:1","readinessProbe":{"exec":{"command":["x"]}}}]}"#)
            .running("c", 0);
    let time = |status: &PodStatus| {
        let found = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "Ready")
            .unwrap();
        found.last_transition_time.clone().unwrap().0.as_second()
    };
    let before = scene.status();
    assert_eq!(
        (condition(&before, "Ready").0.as_str(), time(&before)),
        ("False", 9)
    );
    let same = pod_status(
        &scene.desired,
        &scene.observed,
        &scene.plan,
        Some(&before),
        20 * SECOND,
    );
    assert_eq!(same, before);
    scene = scene.probes(
        "c0",
        ProbeResults {
            readiness: Some(true),
            ..Default::default()
        },
    );
    let after = pod_status(
        &scene.desired,
        &scene.observed,
        &scene.plan,
        Some(&before),
        30 * SECOND,
    );
    assert_eq!(
        (condition(&after, "Ready").0.as_str(), time(&after)),
        ("True", 30)
    );
}

#[test]
fn container_states() {
    let waiting = first(
        &scene(ONE)
            .ended("c", 1, 2)
            .waiting("c", Reason::CrashLoopBackOff, "back-off 10s")
            .status(),
    );
    let state = waiting.state.unwrap().waiting.unwrap();
    assert_eq!(
        (state.reason.as_deref(), state.message.as_deref()),
        (Some("CrashLoopBackOff"), Some("back-off 10s"))
    );
    let last = waiting.last_state.unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.reason.as_deref(), waiting.restart_count),
        (2, Some("Error"), 1)
    );
    assert!(!waiting.ready && waiting.started == Some(false));

    let created = first(&scene(ONE).status());
    assert_eq!(
        created.state.unwrap().waiting.unwrap().reason.as_deref(),
        Some("ContainerCreating")
    );
    assert_eq!((created.container_id, created.image_id.as_str()), (None, ""));

    let lost = first(&scene(ONE).record("c", 0, ContainerState::Unknown, 0).status());
    let state = lost.state.unwrap().terminated.unwrap();
    assert_eq!(
        (state.exit_code, state.reason.as_deref()),
        (137, Some("ContainerStatusUnknown"))
    );

    let init = scene(WITH_INIT).status().init_container_statuses.unwrap();
    assert_eq!(
        init[0]
            .state
            .as_ref()
            .unwrap()
            .waiting
            .as_ref()
            .unwrap()
            .reason
            .as_deref(),
        Some("PodInitializing")
    );
}

#[test]
fn a_termination_message_is_what_the_container_wrote() {
    let mut scene = scene(ONE).ended("c", 0, 3).stage(Stage::Terminated);
    scene.observed.containers[0].reason = "OOMKilled".into();
    scene
        .observed
        .termination_messages
        .insert(ContainerId("c0".into()), "goodbye".into());
    let state = first(&scene.status()).state.unwrap().terminated.unwrap();
    assert_eq!(
        (state.reason.as_deref(), state.message.as_deref()),
        (Some("OOMKilled"), Some("goodbye"))
    );
}

#[test]
fn a_container_is_not_running_before_its_hook_ended() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"postStart":{"exec":{"command":["x"]}}}}]}"#;
    let mut scene = scene(spec).running("c", 0);
    let status = first(&scene.status());
    assert!(status.state.unwrap().waiting.is_some() && !status.ready);
    scene.observed.hooks.insert(
        (ContainerId("c0".into()), HookKind::PostStart),
        crate::plan::HookOutcome::Succeeded,
    );
    let status = first(&scene.status());
    assert!(status.state.unwrap().running.is_some() && status.ready && status.started == Some(true));
}

#[test]
fn a_pod_with_the_hosts_network_has_the_hosts_address() {
    let status = scene(r#"{"hostNetwork":true,"containers":[{"name":"c","image":"i:1"}]}"#).status();
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.1"));
}

#[test]
fn readiness_gates_are_conditions_of_the_annotation() {
    let gated = |conditions: &str| {
        let mut scene = scene(
            r#"{"containers":[{"name":"c","image":"i"}],"readinessGates":[{"conditionType":"a.b/x"},{"conditionType":"y"}]}"#,
        )
        .record("c", 0, ContainerState::Running, 0);
        let mut pod = scene.desired.pod.as_ref().clone();
        let annotation = ("berth.dev/conditions".to_owned(), conditions.to_owned());
        pod.metadata.annotations = Some([annotation].into());
        scene.desired.pod = Arc::new(pod);
        let status = scene.status();
        let all = status.conditions.unwrap();
        let find = |kind: &str| all.iter().find(|c| c.type_ == kind).cloned();
        let ready = find("Ready").unwrap();
        assert_eq!(find("ContainersReady").unwrap().status, "True");
        assert_eq!(find("a.b/x").is_some(), conditions.contains("a.b/x"));
        (
            ready.status,
            ready.reason.unwrap_or_default(),
            ready.message.unwrap_or_default(),
        )
    };
    assert_eq!(gated("a.b/x=True,y=True"), ("True".into(), "".into(), "".into()));
    assert_eq!(
        gated("a.b/x=False"),
        (
            "False".into(),
            "ReadinessGatesNotReady".into(),
            "the status of pod readiness gate \"a.b/x\" is not \"True\", but False, \
             corresponding condition of pod readiness gate \"y\" does not exist."
                .into()
        )
    );
}

#[test]
fn termination_messages_share_twelve_kibibytes() {
    for (count, most) in [(1, 4096), (3, 4096), (4, 3072), (12, 1024)] {
        let containers: Vec<Value> = (0..count)
            .map(|n| json!({ "name": format!("c{n}"), "image": "i" }))
            .collect();
        let spec = json!({ "restartPolicy": "Never", "containers": containers }).to_string();
        let mut scene = scene(&spec);
        for n in 0..count {
            scene = scene.record(&format!("c{n}"), 0, ContainerState::Exited, 1);
            let message = "é".repeat(2048);
            scene
                .observed
                .termination_messages
                .insert(ContainerId(format!("c{n}0")), message);
        }
        let status = scene.status();
        for container in status.container_statuses.unwrap() {
            let message = container.state.unwrap().terminated.unwrap().message.unwrap();
            assert_eq!(message.len(), most, "{count}");
        }
    }
}

fn of<'a>(status: &'a PodStatus, name: &str) -> &'a ContainerStatus {
    let inits = status.init_container_statuses.iter().flatten();
    let mut all = inits.chain(status.container_statuses.iter().flatten());
    all.find(|status| status.name == name).unwrap()
}

#[test]
fn who_was_never_there_is_lost_when_the_pod_has_ended() {
    let lost = |status: &PodStatus, name: &str| {
        let state = of(status, name).state.clone().unwrap();
        state.terminated.map(|end| (end.exit_code, end.reason.unwrap()))
    };
    let unknown = Some((137, "ContainerStatusUnknown".to_owned()));
    let waits = scene(ONE).waiting("c", Reason::ImagePullBackOff, "");
    assert_eq!(lost(&waits.status(), "c"), None);
    let ended = scene(ONE).stage(Stage::Terminated).status();
    assert_eq!(
        (lost(&ended, "c"), ended.phase.as_deref()),
        (unknown.clone(), Some("Failed"))
    );
    // The first init container failed: the turn of the others never came.
    let ended = scene(WITH_INIT)
        .ended("i", 0, 1)
        .stage(Stage::Terminated)
        .status();
    assert_eq!(lost(&ended, "i"), Some((1, "Error".to_owned())));
    assert_eq!((lost(&ended, "s"), lost(&ended, "c")), (None, None));
    // Nothing was started: the first one's turn had come.
    let ended = scene(WITH_INIT).stage(Stage::Terminated).status();
    assert_eq!(
        (lost(&ended, "i"), lost(&ended, "s"), lost(&ended, "c")),
        (unknown.clone(), None, None)
    );
    // A sidecar that ended well has let nobody go by that.
    let over = scene(WITH_INIT).ended("i", 0, 0).ended("s", 0, 0);
    let ended = over.stage(Stage::Terminated).status();
    assert_eq!(
        (lost(&ended, "s"), lost(&ended, "c")),
        (Some((0, "Completed".to_owned())), None)
    );
    // A pod that was not taken on has nothing to lose.
    let mut refused = scene(ONE).stage(Stage::Terminated);
    refused.observed.sandboxes.clear();
    assert_eq!(lost(&refused.status(), "c"), None);
}

#[test]
fn the_end_before_is_remembered_when_its_record_is_gone() {
    let failed = scene(WITH_INIT).ended("i", 0, 7).running("i", 1);
    let before = failed.status();
    let mut done = scene(WITH_INIT).ended("i", 1, 0);
    done.observed.containers[0].id = ContainerId("i1".into());
    let status = pod_status(
        &done.desired,
        &done.observed,
        &done.plan,
        Some(&before),
        9 * SECOND,
    );
    let last = of(&status, "i").last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.exit_code, 7);
    // What is shown as the state is not the end before as well.
    let waits = scene(ONE)
        .ended("c", 3, 1)
        .waiting("c", Reason::CrashLoopBackOff, "");
    let before = waits.status();
    let over = scene(ONE).ended("c", 3, 1).stage(Stage::Terminated);
    let status = pod_status(
        &over.desired,
        &over.observed,
        &over.plan,
        Some(&before),
        9 * SECOND,
    );
    assert_eq!(
        of(&status, "c").last_state.clone().unwrap_or_default().terminated,
        None
    );
}

#[test]
fn a_container_s_user_is_shown() {
    let mut scene = scene(ONE).running("c", 0);
    scene.observed.containers[0].user = Some(berth_cri::ContainerUser {
        uid: 5,
        gid: 6,
        supplemental_groups: vec![6, 7],
    });
    let shown = serde_json::to_value(&of(&scene.status(), "c").user).unwrap();
    assert_eq!(
        shown,
        json!({ "linux": { "uid": 5, "gid": 6, "supplementalGroups": [6, 7] } })
    );
}

#[test]
fn the_pod_s_resources_are_those_of_its_containers() {
    let found = scene(
        r#"{"initContainers":[
              {"name":"s","image":"i:1","restartPolicy":"Always","resources":{"requests":{"cpu":"50m","memory":"10Mi"},"limits":{"memory":"20Mi"}}},
              {"name":"i","image":"i:1","resources":{"requests":{"cpu":"300m"}}}],
            "containers":[{"name":"c","image":"i:1","resources":{"requests":{"cpu":"100m","memory":"20Mi"},"limits":{"cpu":"1","memory":"40Mi"}}}]}"#,
    );
    let status = found.status();
    assert_eq!(
        serde_json::to_value((&status.allocated_resources, &status.resources)).unwrap(),
        json!([
            { "cpu": "350m", "memory": "30Mi" },
            { "requests": { "cpu": "350m", "memory": "30Mi" }, "limits": { "cpu": "1", "memory": "60Mi" } }
        ])
    );
    let own = r#"{"resources":{"requests":{"cpu":"2"},"limits":{"cpu":"2"}},"containers":[{"name":"c","image":"i:1","resources":{"requests":{"cpu":"1"}}}]}"#;
    let status = scene(own).status();
    assert_eq!(
        serde_json::to_value(&status.allocated_resources).unwrap(),
        json!({ "cpu": "2" })
    );
    let status = scene(ONE).status();
    assert_eq!((status.allocated_resources, status.resources), (None, None));
}

#[test]
fn a_container_whose_hook_failed_says_so_while_it_is_stopped() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"postStart":{"exec":{"command":["x"]}}}}]}"#;
    let mut failed = scene(spec).running("c", 0);
    let key = (ContainerId("c0".into()), HookKind::PostStart);
    failed
        .observed
        .hooks
        .insert(key, crate::plan::HookOutcome::Failed("it broke".into()));
    let state = of(&failed.status(), "c").state.clone().unwrap();
    let waiting = state.waiting.unwrap();
    assert_eq!(
        (waiting.reason.as_deref(), waiting.message.as_deref()),
        (Some("PostStartHookError"), Some("it broke"))
    );
}
