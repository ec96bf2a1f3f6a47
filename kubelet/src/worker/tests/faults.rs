//! An engine that fails, is slow, or says what is no longer so.

use super::*;

/// Nothing is known of a container while it is taken back that could not be made: that is no end of it.
#[tokio::test(start_paused = true)]
async fn a_container_that_could_not_be_made_has_not_ended() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            unmakable: 2,
            ..Behaviour::default()
        },
    );
    let mut pod = bench.spawn(r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let status = pod.handle.state.borrow().status.clone();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let told = pod.told();
    assert!(!told.contains(&"Exited c".to_owned()), "{told:?}");
    // It said the same both times.
    assert_eq!(told.iter().filter(|told| *told == "Failed c").count(), 1);
    bench.end(pod).await;
}

const ONE: &str = r#"{"containers":[{"name":"c","image":"i"}]}"#;

/// Calls that begin so go wrong.
fn fault(call: &'static str, times: u32, answer: Answer) -> Fault {
    Fault {
        call,
        times,
        takes: Duration::ZERO,
        answer,
    }
}

fn count(told: &[String], what: &str) -> usize {
    told.iter().filter(|told| *told == what).count()
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_told_once_and_tried_again_after_a_pause() {
    for (call, told_as) in [
        ("sandbox", "FailedCreatePodSandBox "),
        ("create c", "Failed c"),
        ("start c", "Failed c"),
    ] {
        let bench = Bench::new();
        bench.engine.fault(fault(call, 3, Answer::Refused));
        let mut pod = bench.spawn(ONE);
        bench.until("c", |engine| engine.running("c").is_some()).await;
        sleep(Duration::from_secs(100)).await;
        let tries = bench.engine.seconds_of(call);
        assert_eq!(tries.len(), 4, "{call}: {tries:?}");
        assert!(
            tries.windows(2).all(|two| two[1] >= two[0] + 10),
            "{call}: {tries:?}"
        );
        let told = pod.told();
        assert_eq!(count(&told, told_as), 1, "{call}: {told:?}");
        assert_eq!(count(&told, "Started c"), 1, "{call}: {told:?}");
        let status = pod.handle.state.borrow().status.clone();
        assert_eq!(status.container_statuses.unwrap()[0].restart_count, 0, "{call}");
        bench.end(pod).await;
    }
}

/// The engine, which checks it, makes and starts nothing twice, whether or not it has said that it had done it.
#[tokio::test(start_paused = true)]
async fn what_was_done_without_an_answer_is_not_done_again() {
    for call in ["sandbox", "create c", "start c"] {
        let bench = Bench::new();
        bench.engine.fault(fault(call, 1, Answer::Lost));
        let pod = bench.spawn(ONE);
        bench.until("c", |engine| engine.running("c").is_some()).await;
        sleep(Duration::from_secs(100)).await;
        assert_eq!(bench.engine.seconds_of("start c").len(), 1, "{call}");
        assert_eq!(bench.engine.seconds_of("sandbox").len(), 1, "{call}");
        let status = pod.handle.state.borrow().status.clone();
        assert_eq!(status.phase.as_deref(), Some("Running"), "{call}");
        bench.end(pod).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_ends_although_its_end_fails_or_takes_longer_than_it_may() {
    for (call, times, takes, answer) in [
        ("stop c", 3, 0, Answer::Refused),
        ("stop c", 1, 0, Answer::Lost),
        ("stop c", 1, 500, Answer::Right),
        ("stop c", 2, 500, Answer::Refused),
        ("stop-sandbox", 3, 0, Answer::Refused),
        ("stop-sandbox", 1, 500, Answer::Lost),
    ] {
        let bench = Bench::new();
        let fault = Fault {
            takes: Duration::from_secs(takes),
            ..fault(call, times, answer)
        };
        let mut pod = bench.spawn(ONE);
        bench.until("c", |engine| engine.running("c").is_some()).await;
        bench.engine.fault(fault.clone());
        pod.handle.delete(None);
        let gone = timeout(Duration::from_secs(7200), pod.handle.gone()).await;
        assert!(gone.is_ok(), "{fault:?}: {:?}", bench.engine.calls());
        let told = pod.told();
        assert!(count(&told, "FailedSync ") <= 1, "{fault:?}: {told:?}");
        assert_eq!(count(&told, "Exited c"), 1, "{fault:?}: {told:?}");
        bench.assert_clean();
    }
}

/// A wish to end at once does not wait for a stop that hangs.
#[tokio::test(start_paused = true)]
async fn a_stop_that_hangs_is_overtaken() {
    let bench = Bench::new();
    let pod = bench.spawn(ONE);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    bench.engine.fault(Fault {
        takes: Duration::from_secs(3000),
        ..fault("stop c", 1, Answer::Refused)
    });
    let begun = Instant::now();
    pod.handle.delete(None);
    sleep(Duration::from_secs(5)).await;
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_does_not_answer_is_told_of_once() {
    let bench = Bench::new();
    let mut pod = bench.spawn(ONE);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    sleep(Duration::from_secs(5)).await;
    pod.told();
    // A second time, after it has answered.
    for _ in 0..2 {
        bench.engine.fault(fault("list", 20, Answer::Refused));
        bench.engine.noise();
        sleep(Duration::from_secs(60)).await;
        assert_eq!(pod.count("FailedSync "), 1);
    }
    assert_eq!(bench.engine.seconds_of("start c").len(), 1);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_nobody_knows_of_any_more_has_ended_once() {
    let bench = Bench::new();
    let mut pod = bench.spawn(ONE);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    sleep(Duration::from_secs(5)).await;
    for times in 1..3 {
        bench.engine.vanish(&bench.engine.running("c").unwrap());
        bench
            .until("c again", |engine| engine.running("c").is_some())
            .await;
        for _ in 0..5 {
            bench.engine.noise();
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(pod.count("Exited c"), 1);
        let status = pod.handle.state.borrow().status.clone();
        assert_eq!(status.container_statuses.unwrap()[0].restart_count, times);
    }
    // The first time at once, then after a pause, as after any other end.
    assert_eq!(bench.engine.seconds_of("start c"), [0, 5, 20]);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_somebody_else_removed_is_made_anew() {
    let bench = Bench::new();
    let pod = bench.spawn(ONE);
    for round in 1..4 {
        let is_up = |engine: &FakeEngine| {
            engine.running("c").is_some() && engine.seconds_of("sandbox").len() == round
        };
        bench.until("c", is_up).await;
        sleep(Duration::from_secs(5)).await;
        bench.engine.forget_sandboxes();
    }
    bench.until("c", |engine| engine.running("c").is_some()).await;
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn limits_that_are_refused_are_told_of_once_and_set_at_last() {
    for answer in [Answer::Refused, Answer::Lost] {
        let bench = Bench::new();
        let sized = |cpu: &str| {
            format!(
                r#"{{"containers":[{{"name":"c","image":"i","resources":{{"limits":{{"cpu":"{cpu}","memory":"10Mi"}}}}}}]}}"#
            )
        };
        let mut pod = bench.spawn(&sized("1"));
        bench.until("c", |engine| engine.running("c").is_some()).await;
        bench.engine.fault(fault("update c", 3, answer));
        let mut changed: Pod = crate::testing::pod(&sized("2"));
        let before = Arc::clone(&pod.handle.state.borrow().pod);
        changed.metadata.uid.clone_from(&before.metadata.uid);
        pod.handle.control().change(Arc::new(changed), Arc::default());
        sleep(Duration::from_secs(300)).await;
        let told = pod.told();
        assert_eq!(count(&told, "ResizeError "), 1, "{answer:?}: {told:?}");
        assert_eq!(count(&told, "ResizeCompleted "), 1, "{answer:?}: {told:?}");
        assert_eq!(bench.engine.seconds_of("update c").len(), 4, "{answer:?}");
        assert_eq!(bench.engine.seconds_of("start c").len(), 1, "{answer:?}");
        bench.end(pod).await;
    }
}

/// What happened meanwhile is found by the next daemon, and a pod can be deleted all the same.
#[tokio::test(start_paused = true)]
async fn without_events_nothing_is_lost() {
    let mut bench = Bench::new();
    let first = bench.spawn(ONE);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    bench.engine.close_events();
    bench.engine.exit(&bench.engine.running("c").unwrap(), 3);
    first.handle.break_off().await;
    bench.router = EventRouter::start(&bench.engine);
    let mut second = bench.spawn(ONE);
    bench
        .until("c again", |engine| engine.running("c").is_some())
        .await;
    assert_eq!(bench.engine.seconds_of("start c").len(), 2);
    // It ended before this daemon came.
    assert_eq!(second.count("Exited c"), 0);
    bench.engine.close_events();
    bench.end(second).await;
}
