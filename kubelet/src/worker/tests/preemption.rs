//! A critical pod and those that make room for it.

use super::*;

const CRITICAL: &str =
    r#"{"priority":2000000000,"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"}}}]}"#;
const VICTIM: &str = r#"{"terminationGracePeriodSeconds":7,
    "containers":[{"name":"v","image":"i","resources":{"requests":{"cpu":"1"}}}]}"#;

/// A node with one processor, and a pod on it that does not end before it is killed.
async fn full() -> (Bench, Running) {
    let mut bench = Bench::new();
    let node = Arc::get_mut(&mut bench.node).unwrap();
    Arc::get_mut(&mut node.facts).unwrap().cpu_capacity = 1000;
    let deaf = Behaviour {
        stops_after: None,
        ..Behaviour::default()
    };
    bench.engine.behave("v", deaf);
    let mut victim = bench.spawn_as("victim", VICTIM);
    victim.event(EventReason::Started, "v").await;
    (bench, victim)
}

#[tokio::test(start_paused = true)]
async fn a_critical_pod_begins_when_others_have_ended_for_it() {
    let (bench, mut victim) = full().await;
    let mut critical = bench.spawn_as("critical", CRITICAL);
    let said = victim.event(EventReason::Preempting, "").await.message;
    assert_eq!(said, "Preempted in order to admit critical pod");
    // Its grace period is its own.
    sleep(Duration::from_secs(6)).await;
    assert!(bench.engine.running("v").is_some());
    assert!(bench.engine.running("c").is_none());
    let waiting = critical.handle.state.borrow().status.clone();
    assert_eq!(waiting.phase.as_deref(), Some("Pending"));
    critical.event(EventReason::Started, "c").await;
    assert!(bench.engine.running("v").is_none());
    let status = victim.handle.state.borrow().status.clone();
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Preempting"))
    );
    let conditions = status.conditions.unwrap();
    let target = conditions
        .iter()
        .find(|condition| condition.type_ == "DisruptionTarget");
    assert_eq!(target.unwrap().reason.as_deref(), Some("TerminationByKubelet"));
    // Neither another critical one nor a usual one has room now.
    for spec in [CRITICAL, VICTIM] {
        let late = bench.spawn_as("late", spec);
        bench
            .until("rejected", |_| {
                late.handle.state.borrow().status.phase.as_deref() == Some("Failed")
            })
            .await;
        late.handle.delete(None);
        late.gone().await;
    }
    critical.handle.delete(None);
    critical.gone().await;
    bench.end(victim).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_waits_for_room_can_be_deleted() {
    let (bench, mut victim) = full().await;
    let critical = bench.spawn_as("critical", CRITICAL);
    victim.event(EventReason::Preempting, "").await;
    critical.handle.delete(None);
    critical.gone().await;
    assert!(bench.engine.running("v").is_some(), "nobody waited for its end");
    bench.end(victim).await;
}
