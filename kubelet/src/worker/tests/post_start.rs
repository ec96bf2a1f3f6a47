//! postStart hooks, and what is wanted of their container while they run.

use super::*;

/// A pod whose container has a hook that takes so long.
fn with_hook(seconds: u64) -> String {
    format!(
        r#"{{"terminationGracePeriodSeconds":30,"containers":[{{"name":"c","image":"i",
            "lifecycle":{{"postStart":{{"exec":{{"command":["hook"]}}}}}},
            "resources":{{"limits":{{"cpu":"{seconds}","memory":"10Mi"}}}},
            "resizePolicy":[{{"resourceName":"cpu","restartPolicy":"RestartContainer"}}]}}]}}"#
    )
}

/// A bench whose pod is in such a hook, five seconds after its container's start.
async fn in_hook(seconds: u64) -> (Bench, Running) {
    let bench = Bench::new();
    let slow = Behaviour {
        exec_takes: Duration::from_secs(seconds),
        ..Behaviour::default()
    };
    bench.engine.behave("c", slow);
    let pod = bench.spawn(&with_hook(1));
    bench
        .until("the hook", |engine| !engine.seconds_of("exec").is_empty())
        .await;
    sleep(Duration::from_secs(5)).await;
    (bench, pod)
}

/// When its first container was told to end, counted from the start of the hook, once there is a second one.
async fn stopped_after(bench: &Bench) -> u64 {
    bench
        .until("c again", |engine| {
            engine.running("c").as_ref().is_some_and(|id| id.0 == "c-1")
        })
        .await;
    bench.engine.seconds_of("stop c-0")[0] - bench.engine.seconds_of("exec")[0]
}

#[tokio::test(start_paused = true)]
async fn a_restart_lets_the_hook_come_to_its_end() {
    let (bench, pod) = in_hook(20).await;
    pod.handle.control().restart(vec!["c".into()]);
    let after = stopped_after(&bench).await;
    assert!((20..25).contains(&after), "{:?}", bench.engine.calls());
    assert_eq!(bench.engine.order_of(&["stop"]).len(), 1);
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_a_hook_that_hangs_as_long_as_for_an_end() {
    let (bench, mut pod) = in_hook(100_000).await;
    pod.handle.control().restart(vec!["c".into()]);
    let failed = pod.event(EventReason::FailedPostStartHook, "c").await;
    assert!(
        failed.message.contains("did not end within the grace period"),
        "{}",
        failed.message
    );
    let after = stopped_after(&bench).await;
    assert!((35..40).contains(&after), "{:?}", bench.engine.calls());
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn other_resources_wait_for_the_hook_however_long_it_takes() {
    let (bench, pod) = in_hook(500).await;
    let mut changed: Pod = crate::testing::pod(&with_hook(2));
    let before = Arc::clone(&pod.handle.state.borrow().pod);
    changed.metadata.uid.clone_from(&before.metadata.uid);
    changed.metadata.generation = before.metadata.generation.map(|generation| generation + 1);
    pod.handle.control().change(Arc::new(changed), Arc::default());
    let after = stopped_after(&bench).await;
    assert!((500..505).contains(&after), "{:?}", bench.engine.calls());
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    bench.assert_clean();
}
