//! What is changed of a pod that runs.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_ephemeral_container_is_added_to_a_pod_that_runs() {
    let bench = Bench::new();
    let pod = bench.spawn(r#"{"containers":[{"name":"c","image":"i"}]}"#);
    bench.until("c", |engine| engine.running("c").is_some()).await;
    let look = |name: &str| k8s_openapi::api::core::v1::EphemeralContainer {
        name: name.into(),
        image: Some("i".into()),
        target_container_name: Some("c".into()),
        ..Default::default()
    };
    pod.handle.control().debug(look("look"));
    bench
        .until("look", |engine| engine.running("look").is_some())
        .await;
    // Neither a name that there is, nor the same one again, makes another one.
    pod.handle.control().debug(look("c"));
    pod.handle.control().debug(look("look"));
    pod.handle.control().debug(look("other"));
    bench
        .until("other", |engine| engine.running("other").is_some())
        .await;
    for name in ["start c", "start look"] {
        assert_eq!(bench.engine.seconds_of(name).len(), 1, "{name}");
    }
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_restart_gets_one_whatever_the_policy_says() {
    let bench = Bench::new();
    let pod = bench.spawn(
        r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i"},{"name":"d","image":"i"}]}"#,
    );
    bench
        .until("both", |engine| {
            engine.running("c").is_some() && engine.running("d").is_some()
        })
        .await;
    for round in 2..5 {
        pod.handle.control().restart(vec!["c".into()]);
        bench
            .until("c again", |engine| engine.seconds_of("start c").len() == round)
            .await;
        bench
            .until("c runs", |engine| engine.running("c").is_some())
            .await;
    }
    let starts = bench.engine.seconds_of("start c");
    assert!(starts[3] < 60, "no back-off: {starts:?}");
    assert_eq!(bench.engine.seconds_of("start d").len(), 1);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn another_image_starts_its_container_anew_and_labels_start_none() {
    let bench = Bench::new();
    let spec = |image: &str| {
        format!(r#"{{"containers":[{{"name":"c","image":"{image}"}},{{"name":"d","image":"i"}}]}}"#)
    };
    let pod = bench.spawn(&spec("i"));
    bench
        .until("both", |engine| {
            engine.running("c").is_some() && engine.running("d").is_some()
        })
        .await;
    let uid = pod.handle.state.borrow().pod.metadata.uid.clone();
    let mut changed: Pod = crate::testing::pod(&spec("j"));
    changed.metadata.uid = uid;
    changed.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
    pod.handle.control().change(Arc::new(changed), Arc::default());
    bench
        .until("c again", |engine| engine.seconds_of("start c").len() == 2)
        .await;
    bench
        .until("c runs", |engine| engine.running("c").is_some())
        .await;
    assert_eq!(bench.engine.seconds_of("start d").len(), 1);
    assert!(pod.handle.state.borrow().pod.metadata.labels.is_some());
    let mut again: Pod = crate::testing::pod(&spec("k"));
    again.metadata.uid = pod.handle.state.borrow().pod.metadata.uid.clone();
    pod.handle.control().change(Arc::new(again), Arc::default());
    bench
        .until("c with the last image", |engine| {
            engine.running("c").is_some() && engine.image_of("c").as_deref() == Some("k")
        })
        .await;
    bench.end(pod).await;
}
