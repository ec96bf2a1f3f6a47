//! The conditions, and since when they hold.

use super::*;

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
