//! Rules of a status, each by itself: what a pod says at its end, between two runs, and after what it said before.

use std::collections::BTreeMap;

use berth_cri::{Image, LinuxContainerResources, Mount};

use super::*;
use crate::plan::{HookOutcome, ImageState, InProgress, PodFailure, ROUND, Resize};
use crate::sizes::Sizes;

const NEVER: &str = r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i:1"}]}"#;
const HOOKED: &str =
    r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"postStart":{"exec":{"command":["x"]}}}}]}"#;

impl Scene {
    /// The status after another one.
    fn after(&self, previous: &PodStatus) -> PodStatus {
        pod_status(
            &self.desired,
            &self.observed,
            &self.plan,
            Some(previous),
            20 * SECOND,
        )
    }

    fn without_sandbox(mut self) -> Self {
        self.observed
            .sandboxes
            .iter_mut()
            .for_each(|sandbox| sandbox.ready = false);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut berth_cri::ContainerStatus)) -> Self {
        change(self.observed.containers.last_mut().unwrap());
        self
    }

    fn hook(mut self, id: &str, outcome: HookOutcome) -> Self {
        let key = (ContainerId(id.into()), HookKind::PostStart);
        self.observed.hooks.insert(key, outcome);
        self
    }

    fn failure(mut self, reason: &str) -> Self {
        self.plan.failure = Some(PodFailure {
            reason: reason.into(),
            message: String::new(),
            grace: None,
        });
        self
    }
}

fn started() -> ProbeResults {
    ProbeResults {
        startup: Some(true),
        ..ProbeResults::default()
    }
}

fn phase_of(status: &PodStatus) -> &str {
    status.phase.as_deref().unwrap()
}

/// `running`, `terminated CODE REASON` or `waiting REASON`.
fn state_of(status: &ContainerStatus) -> String {
    let state = status.state.clone().unwrap();
    match (state.waiting, state.terminated) {
        (Some(waiting), _) => format!("waiting {}", waiting.reason.unwrap()),
        (_, Some(end)) => format!("terminated {} {}", end.exit_code, end.reason.unwrap()),
        _ => "running".to_owned(),
    }
}

#[test]
fn phases_between_and_at_the_end() {
    let sidecar = r#"{"restartPolicy":"Never","initContainers":[{"name":"s","image":"i:1","restartPolicy":"Always"}],
        "containers":[{"name":"c","image":"i:1"}]}"#;
    let own =
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i:1","restartPolicy":"Always"}]}"#;
    let other =
        r#"{"restartPolicy":"Always","containers":[{"name":"c","image":"i:1","restartPolicy":"Never"}]}"#;
    let two =
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i:1"},{"name":"d","image":"i:1"}]}"#;
    let never_init = &WITH_INIT.replacen('{', r#"{"restartPolicy":"Never","#, 1);
    for (name, scene, phase) in [
        ("one ended, one waits", scene(two).ended("c", 0, 0), "Pending"),
        (
            "the same, for good",
            scene(two).ended("c", 0, 0).stage(Stage::Terminated),
            "Failed",
        ),
        (
            "ended, and nothing was decided",
            scene(NEVER).ended("c", 0, 0),
            "Running",
        ),
        (
            "is being ended",
            scene(NEVER).ended("c", 0, 0).stage(Stage::Terminating),
            "Succeeded",
        ),
        (
            "the sidecar still runs",
            scene(sidecar)
                .running("s", 0)
                .ended("c", 0, 0)
                .stage(Stage::Terminating),
            "Running",
        ),
        (
            "its sidecar has ended",
            scene(sidecar)
                .ended("s", 0, 1)
                .ended("c", 0, 0)
                .stage(Stage::Terminating),
            "Succeeded",
        ),
        (
            "would be restarted",
            scene(own).ended("c", 0, 1).stage(Stage::Terminating),
            "Running",
        ),
        (
            "would not be",
            scene(other).ended("c", 0, 1).stage(Stage::Terminating),
            "Failed",
        ),
        (
            "the init container failed for good",
            scene(never_init).ended("i", 0, 1),
            "Failed",
        ),
        ("it comes back", scene(WITH_INIT).ended("i", 0, 1), "Pending"),
        (
            "it would come back",
            scene(WITH_INIT).ended("i", 0, 1).stage(Stage::Terminated),
            "Failed",
        ),
        (
            "its turn never came",
            scene(WITH_INIT).stage(Stage::Terminated),
            "Failed",
        ),
        (
            "a sidecar has not started",
            scene(WITH_INIT).ended("i", 0, 0).running("s", 0).ended("c", 0, 0),
            "Running",
        ),
        (
            "all is well, and yet it failed",
            scene(NEVER)
                .ended("c", 0, 0)
                .failure("Evicted")
                .stage(Stage::Terminated),
            "Failed",
        ),
        (
            "it has failed, and ends",
            scene(NEVER)
                .running("c", 0)
                .failure("Evicted")
                .stage(Stage::Terminating),
            "Running",
        ),
    ] {
        assert_eq!(scene.phase(), phase, "{name}");
    }
}

#[test]
fn a_phase_does_not_go_back() {
    let of = |phase: &str| PodStatus {
        phase: Some(phase.into()),
        ..PodStatus::default()
    };
    let waits = scene(ONE);
    let good = scene(NEVER).ended("c", 0, 0).stage(Stage::Terminated);
    let bad = scene(NEVER).ended("c", 0, 1).stage(Stage::Terminated);
    for (before, now, phase) in [
        ("Pending", &waits, "Pending"),
        ("Running", &waits, "Running"),
        ("Succeeded", &bad, "Succeeded"),
        ("Succeeded", &waits, "Succeeded"),
        ("Failed", &good, "Failed"),
        ("Failed", &waits, "Failed"),
    ] {
        assert_eq!(phase_of(&now.after(&of(before))), phase, "{before}");
    }
}

#[test]
fn conditions_of_a_pod_that_has_ended() {
    let gated = |code| {
        scene(&NEVER.replacen('{', r#"{"readinessGates":[{"conditionType":"y"}],"#, 1))
            .ended("c", 0, code)
            .stage(Stage::Terminated)
    };
    for (code, reason) in [(0, "PodCompleted"), (3, "PodFailed")] {
        // Its sandbox may be there still.
        let status = gated(code).status();
        for kind in ["Ready", "ContainersReady"] {
            assert_eq!(condition(&status, kind), expect("False", reason, ""), "{kind}");
        }
        assert_eq!(condition(&status, "PodReadyToStartContainers").0, "False");
    }
    let running = scene(ONE).running("c", 0);
    assert_eq!(
        condition(&running.status(), "PodReadyToStartContainers").0,
        "True"
    );
    assert_eq!(
        condition(&running.without_sandbox().status(), "PodReadyToStartContainers").0,
        "False"
    );
}

const RULED: &str = r#"{"containers":[{"name":"a","image":"i:1","restartPolicy":"Never","restartPolicyRules":[
    {"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[42]}}]},{"name":"b","image":"i:1"}]}"#;

#[test]
fn a_pod_says_that_all_of_it_is_restarted() {
    let kind = "AllContainersRestarting";
    let began = scene(RULED).ended("a", 0, 42).running("b", 0);
    assert_eq!(
        condition(&began.status(), kind),
        expect(
            "True",
            "RestartAllContainersStarted",
            "container exited with restart policy rule"
        )
    );
    // Nothing of the pod as it was is ready, or its state.
    let waits = scene(RULED).ended("b", 0, 143).ended("a", 0, 42).status();
    for name in ["a", "b"] {
        let shown = of(&waits, name);
        assert_eq!(
            (state_of(shown).as_str(), shown.ready),
            ("waiting ContainerCreating", false),
            "{name}"
        );
        assert!(shown.last_state.as_ref().unwrap().terminated.is_some());
    }
    let still_runs = began.status();
    assert!(!of(&still_runs, "b").ready, "it is of the round before");
    let again = scene(RULED)
        .running("a", 1)
        .with(|record| record.config.annotations = [(ROUND.to_owned(), "1".to_owned())].into());
    assert_eq!(condition(&again.status(), kind), expect("False", "", ""));
    assert!(of(&again.status(), "a").ready);
    for (code, reason) in [(0, "PodCompleted"), (1, "PodFailed")] {
        let over = scene(RULED)
            .ended("a", 0, code)
            .ended("b", 0, 0)
            .stage(Stage::Terminated);
        assert_eq!(condition(&over.status(), kind), expect("False", reason, ""));
    }
}

#[test]
fn initialized_is_what_let_the_main_containers_begin() {
    let initialized = |scene: Scene| condition(&scene.status(), "Initialized").0;
    // A sidecar that has started may be unready, or crash later.
    let ready_later = WITH_INIT.replacen(
        r#""startupProbe""#,
        r#""readinessProbe":{"exec":{"command":["x"]}},"startupProbe""#,
        1,
    );
    let begun = scene(&ready_later).ended("i", 0, 0).running("s", 0);
    assert_eq!(initialized(begun.probes("s0", started())), "True");
    let begun = scene(&ready_later).ended("i", 0, 0).running("s", 0);
    assert_eq!(initialized(begun), "False");
    assert_eq!(
        initialized(scene(WITH_INIT).ended("i", 0, 0).ended("s", 0, 1).running("c", 0)),
        "True"
    );
    let crashed = scene(WITH_INIT).ended("s", 0, 1).ended("c", 0, 1);
    assert_eq!(
        initialized(crashed.waiting("c", Reason::CrashLoopBackOff, "")),
        "True"
    );
    assert_eq!(initialized(scene(WITH_INIT).ended("s", 0, 1)), "False");
}

#[test]
fn a_condition_of_the_annotation_keeps_its_time() {
    let mut scene = scene(ONE).running("c", 0);
    let mut pod = scene.desired.pod.as_ref().clone();
    pod.metadata.annotations = Some([("berth.dev/conditions".to_owned(), "y=True".to_owned())].into());
    scene.desired.pod = Arc::new(pod);
    let before = scene.status();
    assert_eq!(scene.after(&before), before);
}

/// That a resize can't be had yet was found at that time, and is said only of a pod that goes on.
#[test]
fn conditions_of_a_resize() {
    let pending = |infeasible, message: &str, generation| {
        let mut scene = scene(ONE).running("c", 0);
        let mut pod = scene.desired.pod.as_ref().clone();
        pod.metadata.generation = Some(generation);
        scene.desired.pod = Arc::new(pod);
        scene.plan.resize = Resize {
            pending: Some(crate::plan::Pending {
                infeasible,
                message: message.into(),
            }),
            in_progress: Some(InProgress::default()),
            ..Resize::default()
        };
        scene
    };
    let times = |status: &PodStatus| {
        let mut all = status.conditions.iter().flatten();
        let found = all.find(|condition| condition.type_ == "PodResizePending")?;
        let second = |time: &Option<Time>| time.as_ref().unwrap().0.as_second();
        Some((
            second(&found.last_probe_time),
            second(&found.last_transition_time),
        ))
    };
    let before = pending(false, "no room", 1).status();
    assert_eq!(times(&before), Some((9, 9)));
    assert_eq!(
        condition(&before, "PodResizePending"),
        expect("True", "Deferred", "no room")
    );
    for (name, now, expected) in [
        ("the same", pending(false, "no room", 1), (9, 9)),
        ("says something else", pending(false, "less room", 1), (20, 9)),
        ("of another wish", pending(false, "no room", 2), (20, 9)),
        ("for another reason", pending(true, "no room", 1), (20, 20)),
    ] {
        assert_eq!(times(&now.after(&before)), Some(expected), "{name}");
    }
    let ends = pending(false, "no room", 1)
        .stage(Stage::Terminating)
        .after(&before);
    let kinds: Vec<&str> = ends
        .conditions
        .iter()
        .flatten()
        .map(|one| one.type_.as_str())
        .collect();
    assert!(
        !kinds.iter().any(|kind| kind.starts_with("PodResize")),
        "{kinds:?}"
    );
}

#[test]
fn a_container_shows_its_end_until_it_has_to_wait() {
    let shown = |scene: Scene| state_of(&first(&scene.status()));
    let crashed = || scene(ONE).ended("c", 0, 1);
    assert_eq!(
        shown(crashed().waiting("c", Reason::ContainerCreating, "")),
        "terminated 1 Error"
    );
    assert_eq!(
        shown(crashed().waiting("c", Reason::PodInitializing, "")),
        "terminated 1 Error"
    );
    assert_eq!(
        shown(crashed().waiting("c", Reason::ErrImagePull, "")),
        "waiting ErrImagePull"
    );
    // One that never runs again waits for nothing.
    let done = scene(NEVER)
        .ended("c", 0, 1)
        .waiting("c", Reason::ErrImagePull, "");
    assert_eq!(shown(done), "terminated 1 Error");
    // One that nobody saw end failed, whatever the engine says of its code.
    let on_failure = NEVER.replace("Never", "OnFailure");
    let unseen = |code| scene(&on_failure).record("c", 0, ContainerState::Unknown, code);
    assert_eq!(
        shown(unseen(0).waiting("c", Reason::CrashLoopBackOff, "")),
        "waiting CrashLoopBackOff"
    );
    assert_eq!(shown(unseen(255)), "terminated 137 ContainerStatusUnknown");
}

#[test]
fn a_hook_says_nothing_of_a_container_that_ends() {
    let shown = |scene: Scene| {
        let status = first(&scene.status());
        (state_of(&status), status.ready, status.started)
    };
    let waits = |reason: &str| (format!("waiting {reason}"), false, Some(false));
    assert_eq!(shown(scene(HOOKED).running("c", 0)), waits("ContainerCreating"));
    let failed = || {
        scene(HOOKED)
            .running("c", 0)
            .hook("c0", HookOutcome::Failed("no".into()))
    };
    assert_eq!(shown(failed()), waits("PostStartHookError"));
    let runs = ("running".to_owned(), false, Some(false));
    assert_eq!(
        shown(scene(HOOKED).running("c", 0).stage(Stage::Terminating)),
        runs
    );
    assert_eq!(shown(failed().stage(Stage::Terminating)), runs);
}

#[test]
fn what_an_end_has_to_say() {
    let message = |written: Option<&str>, engine: &str| {
        let mut scene = scene(NEVER)
            .ended("c", 0, 127)
            .with(|record| record.message = engine.into());
        if let Some(written) = written {
            let id = ContainerId("c0".into());
            scene.observed.termination_messages.insert(id, written.into());
        }
        first(&scene.status()).state.unwrap().terminated.unwrap().message
    };
    assert_eq!(message(None, ""), None);
    assert_eq!(message(Some(""), ""), None);
    assert_eq!(
        message(Some(""), "no such program").as_deref(),
        Some("no such program")
    );
    assert_eq!(message(Some("bye"), "no such program").as_deref(), Some("bye"));
}

#[test]
fn an_image_is_shown_by_its_tag_and_digest() {
    let mut scene = scene(r#"{"containers":[{"name":"c","image":"i"}]}"#)
        .running("c", 0)
        .with(|record| record.config.user_specified_image = "i".into());
    let image = |id: &str| Image {
        id: ImageId(id.into()),
        repo_tags: vec!["registry.example/i:latest".into()],
        repo_digests: vec!["registry.example/i@sha256:2".into()],
        size: 1,
        user: String::new(),
        pinned: false,
    };
    for (id, shown) in [
        ("sha256:1", "registry.example/i@sha256:2"),
        // The tag has become another image since.
        ("sha256:3", "sha256:1"),
    ] {
        let state = ImageState {
            present: Some(image(id)),
            pulled_at: 0,
        };
        scene.observed.images.insert("i".into(), state);
        let status = first(&scene.status());
        assert_eq!(
            (status.image.as_str(), status.image_id.as_str()),
            ("registry.example/i:latest", shown)
        );
    }
    scene.observed.images.clear();
    let status = first(&scene.status());
    assert_eq!(
        (status.image.as_str(), status.image_id.as_str()),
        ("i", "sha256:1")
    );
}

#[test]
fn a_mount_says_what_became_of_its_wish() {
    let spec = r#"{"volumes":[{"name":"v","emptyDir":{}}],"containers":[{"name":"c","image":"i:1","volumeMounts":[
        {"name":"v","mountPath":"/w"},{"name":"v","mountPath":"/r","readOnly":true},
        {"name":"v","mountPath":"/a","readOnly":true,"recursiveReadOnly":"IfPossible"}]}]}"#;
    let scene = scene(spec).running("c", 0).with(|record| {
        let made = |path: &str, recursive_read_only| Mount {
            container_path: path.into(),
            recursive_read_only,
            ..Mount::default()
        };
        record.config.mounts = vec![made("/w", false), made("/r", false), made("/a", true)];
    });
    let mounts = first(&scene.status()).volume_mounts.unwrap();
    let words: Vec<_> = mounts
        .iter()
        .map(|mount| mount.recursive_read_only.as_deref())
        .collect();
    assert_eq!(words, [None, Some("Disabled"), Some("Enabled")]);
}

#[test]
fn addresses_are_those_of_the_pod_and_stay() {
    let mut two = scene(ONE).running("c", 0);
    let mut node = two.desired.node.as_ref().clone();
    node.host_ips = vec![[10, 0, 0, 1].into(), "fd00::1".parse().unwrap()];
    two.desired.node = Arc::new(node);
    two.observed.sandboxes[0].ips = vec![[10, 1, 0, 2].into(), "fd01::2".parse().unwrap()];
    let addresses = |status: &PodStatus| {
        let hosts: Vec<String> = status.host_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        let own: Vec<String> = status.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect();
        (status.host_ip.clone().unwrap(), hosts, status.pod_ip.clone(), own)
    };
    let before = two.status();
    let expected = (
        "10.0.0.1".to_owned(),
        vec!["10.0.0.1".to_owned(), "fd00::1".to_owned()],
        Some("10.1.0.2".to_owned()),
        vec!["10.1.0.2".to_owned(), "fd01::2".to_owned()],
    );
    assert_eq!(addresses(&before), expected);
    assert_eq!(addresses(&two.without_sandbox().after(&before)), expected);
}

#[test]
fn an_ephemeral_container_is_never_ready() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1"}],"ephemeralContainers":[{"name":"e","image":"i:1"}]}"#;
    let status = scene(spec).running("c", 0).running("e", 0).status();
    let ephemeral = &status.ephemeral_container_statuses.unwrap()[0];
    assert_eq!(
        (state_of(ephemeral).as_str(), ephemeral.ready),
        ("running", false)
    );
}

/// Whose turn had come, of a pod of which nothing is left but what its status says.
#[test]
fn turns_that_had_come_are_known_by_what_ran() {
    let lost = |scene: Scene| {
        let status = scene.stage(Stage::Terminated).status();
        let lost = |name: &&str| state_of(of(&status, name)) == "terminated 137 ContainerStatusUnknown";
        let names: Vec<&str> = ["i", "s", "c"].into_iter().filter(lost).collect();
        names.join(" ")
    };
    // Nothing tells that the second one's turn had come.
    assert_eq!(lost(scene(WITH_INIT).ended("i", 0, 0)), "");
    // The sidecar had started, so the main container's had.
    assert_eq!(
        lost(
            scene(WITH_INIT)
                .ended("i", 0, 0)
                .running("s", 0)
                .probes("s0", started())
        ),
        "s c"
    );
    // Another main container has run.
    let two = WITH_INIT.replace(r#"{"name":"c""#, r#"{"name":"d","image":"i:1"},{"name":"c""#);
    assert_eq!(lost(scene(&two).ended("d", 0, 0)), "i c");
    // It has done its work once.
    let one = r#"{"initContainers":[{"name":"i","image":"i:1"},{"name":"s","image":"i:1"}],"containers":[{"name":"c","image":"i:1"}]}"#;
    let again = scene(one)
        .ended("s", 0, 0)
        .record("s", 1, ContainerState::Created, 0);
    assert_eq!(lost(again), "i s c");
}

#[test]
fn the_pod_s_limits_are_those_of_its_group_while_it_is_resized() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","resources":{"limits":{"cpu":"1","memory":"40Mi"}}}]}"#;
    let limits = |spec: &str, group: LinuxContainerResources| {
        let mut scene = scene(spec).running("c", 0);
        scene.observed.sizes = Some(Sizes {
            allocated: crate::sizes::Allocation::of(&scene.desired.pod),
            group,
            ..Sizes::default()
        });
        let limits = scene.status().resources.and_then(|resources| resources.limits);
        let limits = limits.unwrap_or_default().into_iter();
        limits
            .map(|(name, quantity)| (name, quantity.0))
            .collect::<BTreeMap<_, _>>()
    };
    let group = LinuxContainerResources {
        cpu_period: Some(100_000),
        cpu_quota: Some(200_000),
        memory_limit: Some(80 << 20),
        ..LinuxContainerResources::default()
    };
    let expected = [
        ("cpu".to_owned(), "2".to_owned()),
        ("memory".to_owned(), "80Mi".to_owned()),
    ];
    assert_eq!(limits(spec, group.clone()), BTreeMap::from(expected));
    // A limit that nobody asks for any more is none of the pod's.
    let requests = spec.replace("limits", "requests");
    assert_eq!(limits(&requests, group), BTreeMap::new());
}
