//! How containers and pods end.

use super::*;

/// Two containers that are never started again, and a sidecar.
const BOTH: &str = r#"{"restartPolicy":"Never","initContainers":[{"name":"s","image":"i:1","restartPolicy":"Always"}],
    "containers":[{"name":"c","image":"i:1"},{"name":"d","image":"i:1"}]}"#;

#[test]
fn an_end_that_nobody_saw_is_a_failure() {
    let unseen = |spec: &str, name: &str| {
        let look = Look::new(spec).record(name, 0, ContainerState::Unknown);
        look.with(|record| record.finished_at = record.started_at)
    };
    let again = unseen(&policy("OnFailure"), "c");
    assert_eq!(again.steps(5), ["start c 1 in s0"]);
    let over = unseen(&policy("Never"), "c").at(5);
    assert_eq!(over.stage, Stage::Terminating);
    let spec = r#"{"restartPolicy":"Never","initContainers":[{"name":"i","image":"i:1"}],
        "containers":[{"name":"c","image":"i:1"}]}"#;
    let over = unseen(spec, "i").at(5);
    assert_eq!(over.stage, Stage::Terminating, "{over:#?}");
}

/// The grace period of what is left counts from the last end.
#[test]
fn a_pod_s_work_is_over_with_its_last_end() {
    let look = Look::new(BOTH)
        .running("s", 0)
        .ended("c", 0, 0, 20)
        .ended("d", 0, 0, 5);
    assert_eq!(look.at(25).over_since, Some(look.second(20)));
    assert_eq!(look.steps(25), ["stop s-0 25"]);
    // However late it is, there is a little time.
    assert_eq!(look.steps(100), ["stop s-0 2"]);
}

#[test]
fn a_pod_that_never_restarts_is_over_when_its_sandbox_is_lost() {
    let lost = |look: Look, second| {
        let plan = look.sandbox(0, false).at(second);
        plan.failure.map(|failure| failure.reason)
    };
    let look = || Look::new(BOTH).ended("c", 0, 137, 7);
    assert_eq!(lost(look(), 30).as_deref(), Some("PodSandboxLost"));
    assert_eq!(look().sandbox(0, false).at(30).over_since, Some(look().second(7)));
    assert_eq!(
        lost(look().running("d", 0), 30),
        None,
        "the engine is still ending it"
    );
    assert_eq!(
        lost(Look::new(BOTH).ended("s", 0, 137, 7), 30),
        None,
        "its work had not begun"
    );
    // Its record may be gone as well.
    let mut without = look();
    without.observed.sandboxes.clear();
    assert!(without.at(30).failure.is_some());
}

#[test]
fn a_pod_that_failed_ends_from_that_moment_on() {
    let failed = |grace: Option<u64>| {
        let mut look = Look::new(&policy("Always")).running("c", 0);
        let failure = PodFailure {
            reason: "Evicted".into(),
            message: String::new(),
            grace: grace.map(Duration::from_secs),
        };
        look.observed.failed = Some((look.second(10), failure));
        look
    };
    assert_eq!(failed(None).steps(15), ["stop c-0 25"]);
    assert_eq!(failed(None).steps(60), ["stop c-0 2"]);
    assert_eq!(failed(Some(1)).steps(10), ["stop c-0 1"]);
    assert_eq!(failed(Some(1)).steps(15), ["stop c-0 0"]);
}

/// Whatever the clock says: here it was set back since the end was asked for.
#[test]
fn what_is_to_be_killed_at_once_is_killed_at_once() {
    let spec = r#"{"initContainers":[{"name":"s","image":"i:1","restartPolicy":"Always"}],
        "containers":[{"name":"c","image":"i:1","lifecycle":{"preStop":{"exec":{"command":["x"]}}}}]}"#;
    for second in [50, 100, 150] {
        let look = Look::new(spec)
            .running("s", 0)
            .running("c", 0)
            .deleted(100, Some(0));
        assert_eq!(look.steps(second), ["stop c-0 0", "stop s-0 0"], "{second}");
    }
}

#[test]
fn sidecars_wait_for_what_they_may_serve_until_the_time_is_over() {
    let look = Look::new(BOTH).running("s", 0).running("x", 0).deleted(10, None);
    assert_eq!(look.steps(10), ["stop x-0 30"], "nobody knows what it is");
    // A stop that takes longer than it may.
    let look = look.in_flight(StepKey::StopContainer(id("x", 0)));
    assert_eq!(look.at(20).wake_at, Some(look.second(40)));
    assert_eq!(look.steps(40), ["stop x-0 2", "stop s-0 2"]);
}

/// Its container has been told to end; that the hook would have time again, as another end is wanted, does not matter.
#[test]
fn a_hook_does_not_come_after_the_signal() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"preStop":{"exec":{"command":["x"]}}}}]}"#;
    let look = Look::new(spec).running("c", 0).deleted(10, None);
    assert_eq!(look.steps(12), ["PreStop c-0"]);
    let look = look.in_flight(StepKey::StopContainer(id("c", 0)));
    assert_eq!(look.steps(12), ["stop c-0 28"]);
}

#[test]
fn a_pod_that_ends_waits_for_what_was_begun() {
    for key in [
        StepKey::RunSandbox(1),
        start_of("c", 0),
        StepKey::SetUpVolumes,
        StepKey::StopContainer(id("c", 0)),
        StepKey::StopSandbox(SandboxId("s0".into())),
    ] {
        for ready in [true, false] {
            let look = Look::new(&policy("Always")).sandbox(0, ready).deleted(1, None);
            let plan = look.in_flight(key.clone()).at(5);
            assert_eq!(
                (plan.stage, plan.steps),
                (Stage::Terminating, vec![]),
                "{key:?} {ready}"
            );
        }
    }
    let ended = Look::new(&policy("Always")).deleted(1, None);
    assert_eq!(ended.steps(5), ["stop-sandbox s0"]);
    let ended = ended.sandbox(0, false);
    assert_eq!(
        (ended.at(5).stage, ended.steps(5)),
        (Stage::Removing, vec!["remove-sandbox s0".into()])
    );
    // What failed is done again, and until then nothing has ended.
    let stop = StepKey::StopSandbox(SandboxId("s0".into()));
    let plan = ended.sandbox(0, true).failed(stop, 3, Reason::FailedSync).at(5);
    assert_eq!((plan.stage, plan.steps), (Stage::Terminating, vec![]));
}

#[test]
fn what_is_left_of_a_pod_goes_in_order() {
    let removing = |look: &Look| {
        assert_eq!(look.at(5).stage, Stage::Removing);
        look.steps(5)
    };
    let mut look = Look::new(&policy("Always")).ended("c", 0, 0, 2).deleted(1, None);
    look.observed.sandboxes.clear();
    // One whose sandbox is gone goes by itself.
    assert_eq!(removing(&look), ["remove c-0"]);
    look.observed.containers.clear();
    for key in [
        StepKey::RemoveContainer(id("c", 0)),
        StepKey::RemoveSandbox(SandboxId("s0".into())),
    ] {
        look.observed.in_flight = [key].into();
        assert_eq!(
            removing(&look),
            NOTHING,
            "the engine has not said that it is gone"
        );
    }
    look.observed.in_flight.clear();
    assert_eq!(removing(&look), ["tear-down"]);
    look.observed.directory_exists = false;
    look.observed.in_flight = [StepKey::TearDownVolumes].into();
    assert_eq!(removing(&look), NOTHING, "something may still be mounted");
    look.observed.in_flight.clear();
    assert_eq!(removing(&look), ["remove-cgroup"]);
    look.observed.cgroup_exists = false;
    assert_eq!((look.at(5).stage, look.steps(5)), (Stage::Gone, vec![]));
}

#[test]
fn a_stop_that_failed_is_tried_again_after_ten_seconds() {
    let stop = StepKey::StopContainer(id("c", 0));
    let look = Look::new(&policy("Always")).running("c", 0).deleted(1, None);
    let look = look.failed(stop, 3, Reason::FailedSync);
    assert_eq!(
        (look.steps(5), look.at(5).wake_at),
        (vec![], Some(look.second(13)))
    );
    assert_eq!(look.steps(13), ["stop c-0 18"]);
}

#[test]
fn a_container_that_is_not_of_the_pod_is_ended() {
    let look = Look::new(&policy("Always")).running("c", 0).running("x", 3);
    assert_eq!(look.steps(5), ["stop x-3 30"]);
}

const HOOKED: &str = r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"postStart":{"exec":{"command":["x"]}}},
    "readinessProbe":{"exec":{"command":["x"]}}}]}"#;

#[test]
fn a_restart_waits_for_a_post_start_hook_no_longer_than_the_grace_period() {
    let hook = StepKey::RunHook(id("c", 0), HookKind::PostStart);
    let look = || Look::new(HOOKED).running("c", 0).asked_anew(id("c", 0), 10);
    let in_hook = look().in_flight(hook.clone());
    assert_eq!(
        (in_hook.steps(20), in_hook.at(20).wake_at),
        (vec!["PostStart c-0".into()], Some(in_hook.second(40)))
    );
    assert_eq!(in_hook.steps(40), ["stop c-0 30"]);
    let stopping = look()
        .in_flight(hook)
        .in_flight(StepKey::StopContainer(id("c", 0)));
    assert_eq!(stopping.steps(20), ["stop c-0 30"]);
    assert_eq!(
        look().steps(20),
        ["stop c-0 30"],
        "one that does not run is not begun"
    );
}

/// Whoever sends it work wants to know until its end whether it takes any; before it has started it takes none.
#[test]
fn readiness_is_asked_for_until_the_end() {
    let spec = r#"{"containers":[{"name":"c","image":"i:1","readinessProbe":{"exec":{"command":["x"]}},
        "livenessProbe":{"exec":{"command":["x"]}},"startupProbe":{"exec":{"command":["x"]}}}]}"#;
    let kinds = |look: &Look| {
        let plan = look.at(15);
        let kinds: Vec<ProbeKind> = plan.probes.iter().map(|probe| probe.kind).collect();
        kinds
    };
    let results = |startup, liveness| ProbeResults {
        startup,
        liveness,
        ..ProbeResults::default()
    };
    let with = |results| Look::new(spec).running("c", 0).probed(id("c", 0), results);
    let started = results(Some(true), None);
    assert_eq!(kinds(&with(started)), [ProbeKind::Liveness, ProbeKind::Readiness]);
    assert_eq!(kinds(&with(started).deleted(10, None)), [ProbeKind::Readiness]);
    let sick = with(results(Some(true), Some(false)));
    assert_eq!(
        (kinds(&sick), sick.steps(15)),
        (vec![ProbeKind::Readiness], vec!["stop c-0 30".into()])
    );
    assert_eq!(kinds(&with(results(None, None))), [ProbeKind::Startup]);
    assert_eq!(kinds(&with(results(None, None)).deleted(10, None)), []);
    let failed = HookOutcome::Failed("no".into());
    let failed = Look::new(HOOKED)
        .running("c", 0)
        .hook(id("c", 0), HookKind::PostStart, failed);
    assert_eq!(kinds(&failed), []);
}
