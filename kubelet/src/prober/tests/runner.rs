//! One probe over its life, and attempts that say nothing.

use berth_cri::ContainerId;
use k8s_openapi::api::core::v1::{Container, Probe};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::runner::{ProbeReport, RunningProbe, run};
use super::*;
use crate::plan::ProbeKind;
use crate::probe::Outcome as Counted;
use crate::testing;
use crate::worker::Clock;
use crate::worker::fake::{Behaviour, FakeEngine};

fn running(kind: ProbeKind, probe: serde_json::Value) -> RunningProbe {
    RunningProbe {
        id: ContainerId("c-0".into()),
        kind,
        probe: serde_json::from_value::<Probe>(probe).unwrap(),
        container: Container {
            name: "c".into(),
            ..Container::default()
        },
        ip: None,
        period: None,
        running_for: Duration::ZERO,
        verdict: None,
    }
}

/// Begins to probe in an engine.
fn begin(probe: RunningProbe, engine: &FakeEngine) -> mpsc::UnboundedReceiver<ProbeReport> {
    let (sender, reports) = mpsc::unbounded_channel();
    tokio::spawn(run(probe, Arc::new(engine.clone()), sender));
    reports
}

#[test]
fn only_answers_count() {
    let text = || "x".to_owned();
    for (outcome, counted) in [
        (Outcome::Success, Some(Counted::Success)),
        (Outcome::Warning(text()), Some(Counted::Success)),
        (Outcome::Failure(text()), Some(Counted::Failure)),
        (Outcome::Error(text()), None),
    ] {
        assert_eq!(outcome.counts_as(), counted, "{outcome:?}");
    }
}

/// A server that is there a moment later is not waited for until the next period.
#[tokio::test]
async fn a_server_that_has_just_come_up_is_found_soon() {
    let port = closed_port().await;
    let probe = serde_json::json!({
        "tcpSocket": { "host": "127.0.0.1", "port": port }, "periodSeconds": 600
    });
    let mut reports = begin(
        running(ProbeKind::Readiness, probe),
        &FakeEngine::new(Clock::system()),
    );
    let first = reports.recv().await.unwrap();
    assert_eq!(first.verdict, Some(false), "{first:?}");
    let _server = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let next = timeout(Duration::from_secs(60), reports.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((next.outcome, next.verdict), (Outcome::Success, Some(true)));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_takes_too_long_is_a_failure() {
    let (engine, _) = testing::engine_with_container().await;
    let slow = Behaviour {
        exec_takes: Duration::from_secs(100),
        ..Behaviour::default()
    };
    engine.behave("c", slow);
    let probe = serde_json::json!({
        "exec": { "command": ["x"] }, "timeoutSeconds": 3, "periodSeconds": 10, "failureThreshold": 2
    });
    let mut reports = begin(running(ProbeKind::Liveness, probe), &engine);
    for verdict in [true, false] {
        let report = reports.recv().await.unwrap();
        assert_eq!(report.verdict, Some(verdict));
        assert_eq!(
            report.outcome,
            Outcome::Failure("command [\"x\"] timed out after 3s".into())
        );
    }
    // It has said what there is to say.
    assert_eq!(reports.recv().await, None);
    assert_eq!(
        engine
            .calls()
            .iter()
            .filter(|(_, call)| call.starts_with("exec"))
            .count(),
        2
    );
}

/// That the engine can't do it says nothing about the container.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_could_not_be_made_counts_for_nothing() {
    let probe = serde_json::json!({ "exec": { "command": ["x"] }, "failureThreshold": 1 });
    let mut reports = begin(
        running(ProbeKind::Startup, probe),
        &FakeEngine::new(Clock::system()),
    );
    for _ in 0..3 {
        let report = reports.recv().await.unwrap();
        assert!(matches!(report.outcome, Outcome::Error(_)), "{report:?}");
        assert_eq!(report.verdict, None);
    }
}
