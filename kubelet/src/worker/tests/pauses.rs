//! How long a worker waits before it tries again.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_crash_loop_waits_longer_and_longer() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(0, 1));
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench
        .until("nine starts", |engine| engine.seconds_of("start c").len() >= 9)
        .await;
    let starts = bench.engine.seconds_of("start c");
    assert_eq!(starts, [0, 0, 10, 30, 70, 150, 310, 610, 910]);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ran_long_is_restarted_at_once() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(601, 1));
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench
        .until("three starts", |engine| engine.seconds_of("start c").len() >= 3)
        .await;
    assert_eq!(bench.engine.seconds_of("start c"), [0, 601, 1202]);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_tried_again_after_longer_and_longer_pauses() {
    let bench = Bench::new();
    let mut pod =
        bench.spawn(r#"{"containers":[{"name":"c","image":"missing","imagePullPolicy":"IfNotPresent"}]}"#);
    pod.event(EventReason::BackOff, "c").await;
    bench
        .until("four pulls", |engine| engine.seconds_of("pull").len() >= 4)
        .await;
    assert_eq!(bench.engine.seconds_of("pull"), [0, 10, 30, 70]);
    bench.end(pod).await;
}
