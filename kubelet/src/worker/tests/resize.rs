//! Other resources for a pod that runs.

use super::*;

const SIZED: &str = r#"{"containers":[
    {"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"10Mi"}}},
    {"name":"d","image":"i","resources":{"limits":{"cpu":"1","memory":"10Mi"}},
     "resizePolicy":[{"resourceName":"cpu","restartPolicy":"RestartContainer"}]}]}"#;

fn resize(pod: &Running, spec: &str) {
    let mut changed: Pod = crate::testing::pod(spec);
    let before = Arc::clone(&pod.handle.state.borrow().pod);
    changed.metadata.uid.clone_from(&before.metadata.uid);
    changed.metadata.generation = before.metadata.generation.map(|generation| generation + 1);
    pod.handle.control().change(Arc::new(changed), Arc::default());
}

#[tokio::test(start_paused = true)]
async fn other_resources_come_in_place_or_with_a_restart_and_outlive_the_daemon() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    resize(&pod, &SIZED.replace("10Mi", "20Mi"));
    pod.event(EventReason::ResizeStarted, "").await;
    pod.event(EventReason::ResizeCompleted, "").await;
    let mib = |count: i64| count << 20;
    // In whatever order: the group is wide enough for both.
    let mut updates = bench.engine.order_of(&["update", "stop"]);
    updates.sort();
    assert_eq!(
        updates,
        [
            format!("update c-0 100000 {}", mib(20)),
            format!("update d-0 100000 {}", mib(20))
        ]
    );
    assert_eq!(bench.cgroups.memory_limits(), [Some(mib(20)), Some(mib(40))]);
    // Another daemon finds it done.
    pod.handle.break_off().await;
    let mut pod = bench.spawn(&SIZED.replace("10Mi", "20Mi"));
    pod.event(EventReason::Adopted, "d").await;
    sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.engine.order_of(&["update", "stop"]).len(), 2);
    // CPU in place for the one; the other is started anew.
    resize(
        &pod,
        &SIZED
            .replace("10Mi", "20Mi")
            .replace(r#""cpu":"1""#, r#""cpu":"2""#),
    );
    bench
        .until("d again", |engine| engine.seconds_of("start d").len() == 2)
        .await;
    bench
        .until("c has it", |engine| engine.order_of(&["update"]).len() == 3)
        .await;
    assert_eq!(bench.engine.seconds_of("start c").len(), 1);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_limit_below_what_is_in_use_is_refused_until_it_is_not() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    bench.engine.use_memory(8 << 20);
    resize(&pod, &SIZED.replace("10Mi", "5Mi"));
    let error = pod.event(EventReason::ResizeError, "").await;
    assert_eq!(
        error.message,
        "cannot decrease memory limits: [attempting to set container \"c\" memory limit (5242880) below current usage (8388608), \
         attempting to set container \"d\" memory limit (5242880) below current usage (8388608)]"
    );
    assert!(bench.engine.order_of(&["update"]).is_empty());
    let status = pod.handle.state.borrow().status.clone();
    let progress = status
        .conditions
        .iter()
        .flatten()
        .find(|c| c.type_ == "PodResizeInProgress");
    assert_eq!(progress.and_then(|c| c.reason.as_deref()), Some("Error"));
    bench.engine.use_memory(1 << 20);
    pod.event(EventReason::ResizeCompleted, "").await;
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    assert_eq!(bench.cgroups.memory_limits().last(), Some(&Some(10 << 20)));
    bench.end(pod).await;
}

/// What was being tried fails when something else is asked for already: that is no answer to it.
#[tokio::test(start_paused = true)]
async fn a_resize_that_something_else_came_after_does_not_fail_that() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    bench.engine.use_memory(8 << 20);
    bench.engine.take_for_statistics(Duration::from_secs(5));
    resize(&pod, &SIZED.replace("10Mi", "5Mi"));
    pod.event(EventReason::ResizeStarted, "").await;
    sleep(Duration::from_secs(1)).await;
    resize(&pod, &SIZED.replace("10Mi", "9Mi"));
    loop {
        let event = pod.events.recv().await.expect("the worker is gone");
        assert_ne!(event.reason, EventReason::ResizeError, "{}", event.message);
        if event.reason == EventReason::ResizeCompleted {
            break;
        }
    }
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_waits_until_other_pods_leave_room() {
    let mut bench = Bench::new();
    let node = Arc::get_mut(&mut bench.node).unwrap();
    let facts = node.facts.as_ref().clone();
    node.facts = Arc::new(NodeFacts {
        memory_capacity: 64 << 20,
        cpu_capacity: 8000,
        ..facts
    });
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    let mut other: Pod = crate::testing::pod(&SIZED.replace("10Mi", "20Mi"));
    other.metadata.uid = Some("other".to_owned());
    other.metadata.name = Some("other".to_owned());
    let records = Records::new(&bench.node.kubelet_root);
    records
        .save(&PodRecord::new(other, 1, std::path::PathBuf::new()))
        .unwrap();
    resize(&pod, &SIZED.replace("10Mi", "30Mi"));
    let deferred = pod.event(EventReason::ResizeDeferred, "").await;
    assert!(
        deferred
            .message
            .contains("memory, requested: 62914560, used: 41943040"),
        "{}",
        deferred.message
    );
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.order_of(&["update"]).is_empty());
    records.remove(&PodUid("other".into())).unwrap();
    pod.event(EventReason::ResizeCompleted, "").await;
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_can_t_be_resized_whole_keeps_all_that_it_has() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    bench.engine.use_memory(8 << 20);
    // One is to have less than it uses, the other more than it has.
    let (first, second) = SIZED.split_once("\"d\"").unwrap();
    let wish = format!(
        "{}\"d\"{}",
        first.replace("10Mi", "5Mi"),
        second.replace("10Mi", "20Mi")
    );
    resize(&pod, &wish);
    let error = pod.event(EventReason::ResizeError, "").await;
    assert_eq!(
        error.message,
        "cannot decrease memory limits: attempting to set container \"c\" memory limit (5242880) below current usage (8388608)"
    );
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.order_of(&["update", "stop"]).is_empty());
    bench.engine.use_memory(1 << 20);
    pod.event(EventReason::ResizeCompleted, "").await;
    assert_eq!(bench.engine.order_of(&["update"]).len(), 2);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_resize_that_is_given_up_with_its_pod_is_not_completed() {
    let bench = Bench::new();
    let mut pod = bench.spawn(SIZED);
    bench
        .until("d runs", |engine| engine.running("d").is_some())
        .await;
    bench.engine.use_memory(8 << 20);
    resize(&pod, &SIZED.replace("10Mi", "5Mi"));
    pod.event(EventReason::ResizeError, "").await;
    let conditions = |pod: &Running| {
        let status = pod.handle.state.borrow().status.clone();
        let all = status.conditions.into_iter().flatten();
        all.filter(|condition| condition.type_.starts_with("PodResize"))
            .count()
    };
    assert_eq!(conditions(&pod), 1);
    pod.handle.delete(None);
    while let Some(event) = pod.events.recv().await {
        assert_ne!(event.reason, EventReason::ResizeCompleted);
    }
    assert_eq!(conditions(&pod), 0);
    pod.gone().await;
    bench.assert_clean();
}
