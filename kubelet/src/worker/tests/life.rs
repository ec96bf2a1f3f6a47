//! The life of a pod: order, signals, probes, ends.

use super::*;

#[tokio::test(start_paused = true)]
async fn init_containers_and_sidecars_come_in_order_and_go_in_reverse() {
    let bench = Bench::new();
    bench.engine.behave("first", exits(2, 0));
    bench.engine.behave("second", exits(2, 0));
    bench.engine.behave(
        "side1",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    let pod = bench.spawn(WITH_SIDECARS);
    bench
        .until("side1", |engine| engine.running("side1").is_some())
        .await;
    sleep(Duration::from_secs(5)).await;
    assert!(
        bench.engine.seconds_of("start second").is_empty(),
        "the startup probe has not succeeded"
    );
    bench.engine.behave("side1", Behaviour::default());
    bench
        .until("other", |e| {
            e.running("other").is_some() && e.running("main").is_some()
        })
        .await;
    let starts = bench.engine.order_of(&["start"]);
    assert_eq!(
        starts[..4],
        [
            "start first-0",
            "start side1-0",
            "start second-0",
            "start side2-0"
        ]
    );
    pod.handle.delete(None);
    pod.gone().await;
    let stops = bench.engine.order_of(&["stop"]);
    let names: Vec<_> = stops
        .iter()
        .map(|call| call.split([' ', '-']).nth(1).unwrap())
        .collect();
    assert_eq!(names[2..], ["side2", "side1"], "{stops:?}");
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ignores_its_signal_is_killed_when_its_time_is_over() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            stops_after: None,
            ..Behaviour::default()
        },
    );
    let pod = bench.spawn(
        r#"{"terminationGracePeriodSeconds":20,"containers":[{"name":"c","image":"i",
            "lifecycle":{"preStop":{"exec":{"command":["bye"]}}}}]}"#,
    );
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let begun = Instant::now();
    pod.handle.delete(None);
    pod.gone().await;
    assert_eq!(begun.elapsed().as_secs(), 20);
    let calls = bench.engine.order_of(&["exec", "stop"]);
    assert_eq!(calls[0], "exec c-0 bye");
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_second_wish_with_no_grace_kills_at_once() {
    let bench = Bench::new();
    bench.engine.behave(
        "c",
        Behaviour {
            stops_after: None,
            ..Behaviour::default()
        },
    );
    let pod =
        bench.spawn(r#"{"terminationGracePeriodSeconds":1000,"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let begun = Instant::now();
    pod.handle.delete(None);
    sleep(Duration::from_secs(5)).await;
    pod.handle.delete(Some(Duration::ZERO));
    pod.gone().await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?} {:?}",
        begun.elapsed(),
        bench.engine.calls()
    );
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn readiness_flips_with_its_probe_and_liveness_restarts() {
    let bench = Bench::new();
    let mut pod = bench.spawn(
        r#"{"terminationGracePeriodSeconds":1,"containers":[{"name":"c","image":"i",
            "readinessProbe":{"exec":{"command":["r"]},"periodSeconds":1,"failureThreshold":2}},
          {"name":"d","image":"i",
            "livenessProbe":{"exec":{"command":["l"]},"periodSeconds":1,"failureThreshold":3}}]}"#,
    );
    pod.event(EventReason::Ready, "c").await;
    bench.engine.behave(
        "c",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    pod.event(EventReason::NotReady, "c").await;
    bench.engine.behave("c", Behaviour::default());
    pod.event(EventReason::Ready, "c").await;
    assert_eq!(bench.engine.order_of(&["start"]).len(), 2);

    bench.engine.behave(
        "d",
        Behaviour {
            exec_code: 1,
            ..Behaviour::default()
        },
    );
    pod.event(EventReason::Killing, "d").await;
    bench.engine.behave("d", Behaviour::default());
    bench
        .until("d again", |engine| engine.seconds_of("start d").len() == 2)
        .await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.engine.seconds_of("start d").len(), 2);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_has_done_its_work_stays_until_it_is_deleted() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(3, 0));
    let mut pod = bench.spawn(r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}"#);
    let ended = async {
        while pod.handle.state.borrow_and_update().stage < Stage::Terminated {
            pod.handle.state.changed().await.unwrap();
        }
    };
    timeout(Duration::from_secs(60), ended).await.unwrap();
    assert_eq!(
        pod.handle.state.borrow().status.phase.as_deref(),
        Some("Succeeded")
    );
    assert_eq!(bench.engine.seconds_of("start c"), [0]);
    pod.handle.delete(None);
    let last = pod.gone().await;
    assert_eq!(last.status.phase.as_deref(), Some("Succeeded"));
    // What is said of it at the end is how it ended, although nothing of it is left.
    let container = last.status.container_statuses.unwrap().remove(0);
    let end = container.state.unwrap().terminated.unwrap();
    assert_eq!((end.exit_code, end.reason.as_deref()), (0, Some("Completed")));
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_lost_sandbox_is_made_anew() {
    let bench = Bench::new();
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    bench.engine.lose_sandbox();
    bench
        .until("c again", |engine| engine.running("c").is_some())
        .await;
    let order = bench.engine.order_of(&["sandbox", "stop-sandbox"]);
    assert_eq!(order[..3], ["sandbox 0", "stop-sandbox sandbox-0", "sandbox 1"]);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_waits_for_no_pull_and_no_post_start_hook() {
    let hook = r#""lifecycle":{"postStart":{"sleep":{"seconds":50000}}}"#;
    for container in [r#""image":"slow""#.to_owned(), format!(r#""image":"i",{hook}"#)] {
        let bench = Bench::new();
        let pod = bench.spawn(&format!(r#"{{"containers":[{{"name":"c",{container}}}]}}"#));
        bench
            .until("begun", |engine| !engine.seconds_of("sandbox").is_empty())
            .await;
        sleep(Duration::from_secs(5)).await;
        bench.end(pod).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_takes_more_than_it_may_is_evicted() {
    let bench = Bench::new();
    let deaf = Behaviour {
        stops_after: None,
        ..Behaviour::default()
    };
    bench.engine.behave("c", deaf);
    let mut pod = bench.spawn(
        r#"{"restartPolicy":"Always","volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Mi"}}],
            "containers":[{"name":"c","image":"i"}]}"#,
    );
    pod.event(EventReason::Started, "c").await;
    let volume = bench
        .node
        .kubelet_root
        .join("pods/uid/volumes/kubernetes.io~empty-dir/v");
    std::fs::write(volume.join("some"), vec![1; 900_000]).unwrap();
    sleep(Duration::from_secs(60)).await;
    assert!(bench.engine.running("c").is_some(), "it may take that much");
    let before = bench.engine.calls().len();
    std::fs::write(volume.join("more"), vec![1; 900_000]).unwrap();
    let said = pod.event(EventReason::Evicted, "").await.message;
    assert_eq!(said, "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\".");
    pod.event(EventReason::Phase, "").await;
    let (_, stop) = bench.engine.calls().remove(before);
    assert_eq!(
        stop, "stop c-0 1",
        "it has a second, however long the pod's grace period is"
    );
    let state = pod.handle.state.borrow().clone();
    assert_eq!(
        (state.status.phase.as_deref(), state.status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
    // A daemon that comes later does not bring it to life again.
    pod.handle.break_off().await;
    let again = bench.spawn(
        r#"{"restartPolicy":"Always","volumes":[{"name":"v","emptyDir":{"sizeLimit":"1Mi"}}],
            "containers":[{"name":"c","image":"i"}]}"#,
    );
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.engine.seconds_of("start c").len(), 1);
    bench.end(again).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_says_nothing_new_makes_nobody_look() {
    let bench = Bench::new();
    let mut pod = bench.spawn(
        r#"{"containers":[{"name":"c","image":"i","readinessProbe":{"exec":{"command":["check"]},
            "periodSeconds":1,"timeoutSeconds":1,"successThreshold":1,"failureThreshold":3}}]}"#,
    );
    pod.event(EventReason::Ready, "").await;
    sleep(Duration::from_secs(1)).await;
    let (looks, probes) = (bench.engine.looks(), bench.engine.seconds_of("exec").len());
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.seconds_of("exec").len() >= probes + 99);
    assert_eq!(bench.engine.looks(), looks);
    let failing = Behaviour {
        exec_code: 1,
        ..Behaviour::default()
    };
    bench.engine.behave("c", failing);
    pod.event(EventReason::NotReady, "").await;
    assert!(bench.engine.looks() > looks);
    bench.end(pod).await;
}

/// The container has ended before its start has failed.
#[tokio::test(start_paused = true)]
async fn a_program_that_is_missing_never_looks_like_one_that_ran() {
    let bench = Bench::new();
    let missing = Behaviour {
        cannot_run: true,
        ..Behaviour::default()
    };
    bench.engine.behave("c", missing);
    let pod = bench.spawn(r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"}]}"#);
    let mut states = pod.handle.state.clone();
    let reason = loop {
        states.changed().await.unwrap();
        let status = states.borrow_and_update().status.clone();
        let container = status.container_statuses.into_iter().flatten().next();
        let terminated = container.and_then(|status| status.state?.terminated);
        if let Some(terminated) = terminated {
            break terminated.reason;
        }
    };
    assert_eq!(reason.as_deref(), Some("ContainerCannotRun"));
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_asked_for_anyway_is_not_said_to_be_here() {
    for (policy, said) in [
        ("Always", "Successfully pulled image"),
        ("IfNotPresent", "already present on machine"),
    ] {
        let bench = Bench::new();
        let spec = format!(r#"{{"containers":[{{"name":"c","image":"i","imagePullPolicy":"{policy}"}}]}}"#);
        let mut pod = bench.spawn(&spec);
        let first = pod.event(EventReason::Pulled, "").await;
        assert!(first.message.contains(said), "{policy}: {}", first.message);
        bench.end(pod).await;
    }
}
