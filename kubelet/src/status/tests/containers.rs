//! The containers' states, what they wrote at their ends, and what is known of those that are gone.

use super::*;

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
