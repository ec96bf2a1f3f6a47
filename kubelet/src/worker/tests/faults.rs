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
