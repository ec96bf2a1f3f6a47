//! One probe over its life, and attempts that say nothing.

use berth_cri::{ContainerId, Engine};
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

/// While it goes on succeeding nobody hears of it, whoever runs it; what follows then is as if each attempt had been told.
#[tokio::test(start_paused = true)]
async fn a_command_that_succeeds_is_told_once_and_its_failures_in_their_rhythm() {
    let (engine, id) = testing::engine_with_container().await;
    let behave = |exec_code| {
        let behaviour = Behaviour {
            exec_code,
            ..Behaviour::default()
        };
        engine.behave("c", behaviour);
    };
    let probe = serde_json::json!({
        "exec": { "command": ["x"] }, "periodSeconds": 10, "failureThreshold": 2, "successThreshold": 2
    });
    let mut reports = begin(running(ProbeKind::Readiness, probe), &engine);
    let begun = tokio::time::Instant::now();
    let mut told = async || {
        let report = reports.recv().await.unwrap();
        let good = report
            .outcome
            .counts_as()
            .map(|counted| counted == Counted::Success);
        (begun.elapsed().as_secs(), good, report.verdict)
    };
    assert_eq!(told().await, (0, Some(true), Some(false)));
    assert_eq!(told().await, (10, Some(true), Some(true)));
    assert!(timeout(Duration::from_secs(35), told()).await.is_err());
    behave(1);
    assert_eq!(told().await, (50, Some(false), Some(true)));
    assert_eq!(told().await, (60, Some(false), Some(false)));
    behave(0);
    assert_eq!(told().await, (80, Some(true), Some(true)));
    // The container goes: that is no failure of its, and the next attempt finds it out.
    assert!(timeout(Duration::from_secs(15), told()).await.is_err());
    engine.remove_container(&id).await.unwrap();
    assert_eq!(told().await, (110, None, Some(true)));
    let seconds: Vec<u64> = engine
        .calls()
        .iter()
        .filter(|(_, call)| call.starts_with("exec"))
        .map(|(at, _)| at.as_secs())
        .collect();
    assert_eq!(seconds, [0, 10, 20, 30, 40, 50, 60, 70, 80, 90]);
}

#[tokio::test(start_paused = true)]
async fn nobody_is_probed_for_nobody() {
    let (engine, _) = testing::engine_with_container().await;
    let probe = serde_json::json!({ "exec": { "command": ["x"] }, "periodSeconds": 10 });
    let mut reports = begin(running(ProbeKind::Liveness, probe), &engine);
    reports.recv().await.unwrap();
    tokio::time::sleep(Duration::from_secs(25)).await;
    drop(reports);
    tokio::time::sleep(Duration::from_secs(100)).await;
    let commands = engine
        .calls()
        .iter()
        .filter(|(_, call)| call.starts_with("exec"))
        .count();
    assert!((3..=4).contains(&commands), "{commands}");
}
