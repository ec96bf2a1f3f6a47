//! Pods that wait for their scheduling gates.

use super::*;

/// All of the node that there is.
const WHOLE: &str = r#""activeDeadlineSeconds":100,"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"}}}]"#;

fn with_gates(names: &[&str]) -> String {
    let gates: Vec<String> = names
        .iter()
        .map(|name| format!(r#"{{"name":"{name}"}}"#))
        .collect();
    format!(r#"{{"schedulingGates":[{}],{WHOLE}}}"#, gates.join(","))
}

fn bench() -> Bench {
    let mut bench = Bench::new();
    let node = Arc::get_mut(&mut bench.node).unwrap();
    Arc::get_mut(&mut node.facts).unwrap().cpu_capacity = 1000;
    bench
}

impl Running {
    /// Has other gates from now on.
    fn gate(&self, names: &[&str]) {
        let mut pod = self.handle.state.borrow().pod.as_ref().clone();
        pod.spec = crate::testing::pod(&with_gates(names)).spec;
        self.handle
            .control()
            .change(Arc::new(pod), Arc::new(Objects::default()));
    }

    fn status(&self) -> PodStatus {
        self.handle.state.borrow().status.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_has_nothing_of_the_node_until_the_last_gate_is_lifted() {
    let bench = bench();
    let mut pod = bench.spawn_as("gated", &with_gates(&["a", "b"]));
    let said = pod.event(EventReason::SchedulingGated, "").await.message;
    assert!(
        said.starts_with("Scheduling is blocked due to non-empty scheduling gates (a, b)"),
        "{said}"
    );
    // Its deadline does not run, and whoever wants the node has it.
    sleep(Duration::from_secs(1000)).await;
    let mut other = bench.spawn_as("other", &with_gates(&[]));
    other.event(EventReason::Started, "c").await;
    other.handle.delete(None);
    other.gone().await;
    let status = pod.status();
    let condition = &status.conditions.unwrap()[0];
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(
        (
            condition.type_.as_str(),
            condition.status.as_str(),
            condition.reason.as_deref()
        ),
        ("PodScheduled", "False", Some("SchedulingGated"))
    );
    pod.gate(&["b"]);
    let said = pod.event(EventReason::SchedulingGated, "").await.message;
    assert!(said.contains("(b)"), "{said}");
    assert_eq!(bench.engine.seconds_of("start c").len(), 1, "the other pod's");
    // An earlier daemon's pod waits as before.
    pod.handle.break_off().await;
    let mut pod = bench.spawn_as("gated", &with_gates(&["b"]));
    pod.event(EventReason::SchedulingGated, "").await;
    let lifted = Instant::now();
    pod.gate(&[]);
    pod.event(EventReason::Started, "c").await;
    let late = bench.spawn_as("late", &with_gates(&[]));
    bench
        .until("no room", |_| late.status().phase.as_deref() == Some("Failed"))
        .await;
    assert_eq!(late.status().reason.as_deref(), Some("OutOfcpu"));
    late.handle.delete(None);
    late.gone().await;
    // Where another daemon goes on, the deadline does, too.
    sleep(Duration::from_secs(50)).await;
    pod.handle.break_off().await;
    let mut pod = bench.spawn_as("gated", &with_gates(&[]));
    pod.event(EventReason::Adopted, "c").await;
    bench
        .until("over", |_| {
            pod.status().reason.as_deref() == Some("DeadlineExceeded")
        })
        .await;
    assert_eq!(lifted.elapsed().as_secs(), 100);
    bench.end(pod).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_through_the_gate_too_late_is_rejected() {
    let bench = bench();
    let mut pod = bench.spawn_as("gated", &with_gates(&["a"]));
    pod.event(EventReason::SchedulingGated, "").await;
    let mut other = bench.spawn_as("other", &with_gates(&[]));
    other.event(EventReason::Started, "c").await;
    pod.gate(&[]);
    pod.event(EventReason::Rejected("OutOfcpu".into()), "").await;
    bench
        .until("rejected", |_| pod.status().phase.as_deref() == Some("Failed"))
        .await;
    // So it stays.
    pod.handle.break_off().await;
    let pod = bench.spawn_as("gated", &with_gates(&[]));
    bench
        .until("still rejected", |_| {
            pod.status().reason.as_deref() == Some("OutOfcpu")
        })
        .await;
    pod.handle.delete(None);
    pod.gone().await;
    other.handle.delete(None);
    other.gone().await;
    bench.assert_clean();
}

#[tokio::test(start_paused = true)]
async fn a_gated_pod_can_be_deleted() {
    let bench = bench();
    let mut pod = bench.spawn_as("gated", &with_gates(&["a"]));
    pod.event(EventReason::SchedulingGated, "").await;
    pod.handle.delete(None);
    let last = pod.gone().await;
    assert_eq!(last.status.phase.as_deref(), Some("Pending"));
    bench.assert_clean();
}

/// A daemon that was not there when the gates were taken out of the file.
#[tokio::test(start_paused = true)]
async fn gates_that_are_gone_when_a_daemon_comes_are_lifted() {
    let bench = bench();
    let mut pod = bench.spawn_as("gated", &with_gates(&["a"]));
    pod.event(EventReason::SchedulingGated, "").await;
    pod.handle.break_off().await;
    let mut other = bench.spawn_as("other", &with_gates(&[]));
    other.event(EventReason::Started, "c").await;
    let mut pod = bench.spawn_as("gated", &with_gates(&[]));
    pod.event(EventReason::Rejected("OutOfcpu".into()), "").await;
    pod.handle.delete(None);
    pod.gone().await;
    bench.end(other).await;
}
