//! What a worker tells and writes down, and what it does not tell twice.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_pause_is_told_once() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(1, 1));
    let mut pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    pod.event(EventReason::BackOff, "c").await;
    for _ in 0..5 {
        bench.engine.noise();
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(pod.count("BackOff c"), 0);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_asked_for_is_told_once() {
    let bench = Bench::new();
    let long = "a".repeat(60);
    let mut pod = bench.spawn(&format!(
        r#"{{"setHostnameAsFQDN":true,"hostname":"{long}","subdomain":"s",
            "containers":[{{"name":"c","image":"i"}},{{"name":"d","image":"missing"}}]}}"#
    ));
    let said = pod.event(EventReason::FailedCreatePodSandBox, "").await.message;
    assert!(
        said.starts_with("Failed to create pod sandbox: Failed to construct FQDN"),
        "{said}"
    );
    // The pulls of the other image are tried again and again, and each time the pod is looked at.
    sleep(Duration::from_secs(600)).await;
    assert!(bench.engine.seconds_of("pull missing").len() > 2);
    assert_eq!(pod.count("FailedCreatePodSandBox "), 0);
    assert!(bench.engine.seconds_of("sandbox").is_empty());
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn an_end_is_told_once_and_is_no_lack_of_readiness() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(3, 0));
    let spec =
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"},{"name":"d","image":"i"}]}"#;
    let mut first = bench.spawn(spec);
    sleep(Duration::from_secs(10)).await;
    let told = first.told();
    let of_c: Vec<&str> = told.iter().filter_map(|told| told.strip_suffix(" c")).collect();
    assert_eq!(of_c, ["Created", "Started", "Ready", "Exited"]);
    // Nor does another daemon tell it.
    first.handle.break_off().await;
    let mut second = bench.spawn(spec);
    sleep(Duration::from_secs(10)).await;
    let told = second.told();
    assert!(told.contains(&"Adopted d".to_owned()), "{told:?}");
    assert!(!told.iter().any(|told| told.ends_with(" c")), "{told:?}");
    bench.end(second).await;
}

#[tokio::test(start_paused = true)]
async fn an_init_container_that_is_done_is_not_said_to_be_ready() {
    let bench = Bench::new();
    bench.engine.behave("i", exits(2, 0));
    let mut pod = bench
        .spawn(r#"{"initContainers":[{"name":"i","image":"i"}],"containers":[{"name":"c","image":"i"}]}"#);
    sleep(Duration::from_secs(10)).await;
    let told = pod.told();
    assert!(told.contains(&"Ready c".to_owned()), "{told:?}");
    assert!(!told.contains(&"Ready i".to_owned()), "{told:?}");
    bench.end(pod).await;
}

/// The time counts from when the pod was taken on, whichever daemon did.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_out_of_time_says_so_and_stays_so() {
    let bench = Bench::new();
    let spec = r#"{"activeDeadlineSeconds":100,"containers":[{"name":"c","image":"i"}]}"#;
    let first = bench.spawn(spec);
    sleep(Duration::from_secs(60)).await;
    let begun = first.handle.state.borrow().status.start_time.clone();
    first.handle.break_off().await;
    let mut second = bench.spawn(spec);
    second.event(EventReason::DeadlineExceeded, "").await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(bench.engine.seconds_of("stop c"), [100]);
    let status = second.handle.state.borrow().status.clone();
    assert_eq!(
        (status.start_time, status.phase.as_deref()),
        (begun, Some("Failed"))
    );
    let record = Records::new(&bench.node.kubelet_root).load(&PodUid("uid".into()));
    let (_, failure) = record.unwrap().unwrap().failed.expect("it is written down");
    assert_eq!(failure.reason, "DeadlineExceeded");
    bench.end(second).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_written_down_and_leaves_ephemeral_containers() {
    let bench = Bench::new();
    let spec = r#"{"containers":[{"name":"c","image":"i"}]}"#;
    let mut pod = bench.spawn(spec);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let look = |name: &str| k8s_openapi::api::core::v1::EphemeralContainer {
        name: name.into(),
        image: Some("i".into()),
        ..Default::default()
    };
    pod.handle.control().debug(look("c"));
    let said = pod.event(EventReason::Failed, "c").await.message;
    assert_eq!(said, r#"the pod has a container "c" already"#);
    pod.handle.control().debug(look("look"));
    bench
        .until("look", |engine| engine.running("look").is_some())
        .await;
    let mut changed: Pod = crate::testing::pod(spec);
    changed.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    pod.handle.control().change(Arc::new(changed), Arc::default());
    sleep(Duration::from_secs(5)).await;
    let written = Records::new(&bench.node.kubelet_root).load(&PodUid("uid".into()));
    for after in [
        written.unwrap().unwrap().pod,
        pod.handle.state.borrow().pod.as_ref().clone(),
    ] {
        assert!(after.metadata.labels.is_some());
        let ephemeral = after.spec.unwrap().ephemeral_containers.unwrap();
        assert_eq!(ephemeral.len(), 1);
    }
    bench.end(pod).await;
}

/// Whoever asks for a restart means what runs.
#[tokio::test(start_paused = true)]
async fn what_has_ended_is_not_started_anew() {
    let bench = Bench::new();
    bench.engine.behave("c", exits(1, 0));
    let pod = bench.spawn(
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"},{"name":"d","image":"i"}]}"#,
    );
    sleep(Duration::from_secs(5)).await;
    pod.handle.control().restart(vec!["c".into()]);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.engine.seconds_of("start c"), [0]);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn logs_stay_until_nobody_reads_them() {
    let bench = Bench::new();
    let mut pod = bench.take_on_with_reader(crate::testing::pod(
        r#"{"containers":[{"name":"c","image":"i"}]}"#,
    ));
    bench.until("c", |engine| engine.running("c").is_some()).await;
    pod.handle.delete(None);
    sleep(Duration::from_secs(100)).await;
    assert!(bench.engine.is_empty());
    let logs = || std::fs::read_dir(bench.root.path().join("logs")).unwrap().count();
    assert_eq!(logs(), 1);
    pod.handle.release_logs();
    pod.gone().await;
    bench.assert_clean();
}
