//! When probes begin, what they said to an earlier daemon, and what comes of hooks.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_probe_waits_for_its_container_s_first_seconds_only() {
    let spec = r#"{"containers":[{"name":"c","image":"i","readinessProbe":{"exec":{"command":["r"]},
        "initialDelaySeconds":20,"periodSeconds":5}}]}"#;
    for (second, before, then) in [(10, &[][..], 20), (42, &[20, 25, 30, 35, 40][..], 42)] {
        let bench = Bench::new();
        let pod = bench.spawn(spec);
        sleep(Duration::from_secs(second)).await;
        assert_eq!(bench.engine.seconds_of("exec"), before);
        // For another daemon it runs as long as it does.
        pod.handle.break_off().await;
        let pod = bench.spawn(spec);
        sleep(Duration::from_secs(30)).await;
        assert_eq!(bench.engine.seconds_of("exec")[before.len()], then);
        bench.end(pod).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_daemon_goes_on_with_what_a_probe_has_said() {
    let bench = Bench::new();
    let spec = r#"{"containers":[{"name":"c","image":"i","readinessProbe":{"exec":{"command":["r"]},
        "periodSeconds":5,"failureThreshold":3}}]}"#;
    let mut first = bench.spawn(spec);
    first.event(EventReason::Ready, "").await;
    first.handle.break_off().await;
    let failing = Behaviour {
        exec_code: 1,
        ..Behaviour::default()
    };
    bench.engine.behave("c", failing);
    let begun = Instant::now();
    let mut second = bench.spawn(spec);
    second.event(EventReason::NotReady, "c").await;
    // It has to fail as often as ever: at 0, 5 and 10.
    assert_eq!(begun.elapsed().as_secs(), 10);
    bench.end(second).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_that_is_not_ready_at_first_says_so() {
    let bench = Bench::new();
    let failing = Behaviour {
        exec_code: 1,
        ..Behaviour::default()
    };
    bench.engine.behave("c", failing);
    let mut pod = bench
        .spawn(r#"{"containers":[{"name":"c","image":"i","readinessProbe":{"exec":{"command":["r"]}}}]}"#);
    pod.event(EventReason::NotReady, "c").await;
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_post_start_hook_that_fails_is_told_and_ends_its_container() {
    let bench = Bench::new();
    let failing = Behaviour {
        exec_code: 3,
        ..Behaviour::default()
    };
    bench.engine.behave("c", failing);
    let mut pod = bench.spawn(
        r#"{"containers":[{"name":"c","image":"i","lifecycle":{"postStart":{"exec":{"command":["up","now"]}}}}]}"#,
    );
    let said = pod.event(EventReason::FailedPostStartHook, "c").await.message;
    assert!(said.contains("command 'up now' exited with 3"), "{said}");
    pod.event(EventReason::Killing, "c").await;
    bench.engine.behave("c", Behaviour::default());
    bench
        .until("c again", |engine| engine.seconds_of("start c").len() == 2)
        .await;
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn the_signal_comes_after_the_pre_stop_hook() {
    for (hook, takes, impatient, expected) in [
        (r#"{"sleep":{"seconds":7}}"#, 0, None, 7),
        (r#"{"exec":{"command":["bye"]}}"#, 9, None, 9),
        // Neither goes on when the time is over.
        (r#"{"sleep":{"seconds":70}}"#, 0, None, 30),
        (r#"{"exec":{"command":["bye"]}}"#, 70, None, 30),
        // Somebody asks again, after five seconds, for an end within this time of the first wish.
        (r#"{"sleep":{"seconds":70}}"#, 0, Some(12), 12),
        (r#"{"exec":{"command":["bye"]}}"#, 70, Some(12), 12),
    ] {
        let bench = Bench::new();
        let slow = Behaviour {
            exec_takes: Duration::from_secs(takes),
            ..Behaviour::default()
        };
        bench.engine.behave("c", slow);
        let pod = bench.spawn(&format!(
            r#"{{"containers":[{{"name":"c","image":"i","lifecycle":{{"preStop":{hook}}}}}]}}"#
        ));
        bench.until("c", |engine| engine.running("c").is_some()).await;
        let Running {
            mut handle,
            mut events,
        } = pod;
        handle.delete(None);
        sleep(Duration::from_secs(5)).await;
        if let Some(grace) = impatient {
            handle.delete(Some(Duration::from_secs(grace)));
        }
        timeout(Duration::from_secs(3600), handle.gone()).await.unwrap();
        assert_eq!(
            bench.engine.seconds_of("stop c"),
            [expected],
            "{hook} {impatient:?}"
        );
        let mut late = 0;
        while let Ok(event) = events.try_recv() {
            late += usize::from(event.reason == EventReason::FailedPreStopHook);
        }
        assert_eq!(late, usize::from(expected > 9), "{hook} {impatient:?}");
        bench.assert_clean();
    }
}
