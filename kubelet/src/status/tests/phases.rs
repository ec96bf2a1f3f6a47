//! The phase.

use super::*;

#[test]
fn phases() {
    let never = &ONE.replace("{\"cont", "{\"restartPolicy\":\"Never\",\"cont");
    for (name, scene, phase) in [
        ("nothing yet", scene(ONE), "Pending"),
        ("running", scene(ONE).running("c", 0), "Running"),
        ("crashed, comes back", scene(ONE).ended("c", 0, 1), "Running"),
        (
            "crash loop",
            scene(ONE)
                .ended("c", 1, 1)
                .waiting("c", Reason::CrashLoopBackOff, "x"),
            "Running",
        ),
        (
            "done",
            scene(never).ended("c", 0, 0).stage(Stage::Terminated),
            "Succeeded",
        ),
        (
            "failed",
            scene(never).ended("c", 0, 2).stage(Stage::Terminated),
            "Failed",
        ),
        (
            "deleted",
            scene(ONE).ended("c", 0, 143).stage(Stage::Removing),
            "Failed",
        ),
        ("init runs", scene(WITH_INIT).running("i", 0), "Pending"),
        (
            "init failed, comes back",
            scene(WITH_INIT).ended("i", 0, 1),
            "Pending",
        ),
        (
            "sidecar not up",
            scene(WITH_INIT).ended("i", 0, 0).running("s", 0),
            "Pending",
        ),
        (
            "main waits",
            scene(WITH_INIT).ended("i", 0, 0).running("s", 0).probes(
                "s0",
                ProbeResults {
                    startup: Some(true),
                    ..Default::default()
                },
            ),
            "Pending",
        ),
        (
            "main runs, sidecar crashed",
            scene(WITH_INIT).ended("i", 0, 0).ended("s", 0, 1).running("c", 0),
            "Running",
        ),
    ] {
        assert_eq!(scene.phase(), phase, "{name}");
    }
    let mut late = scene(ONE).ended("c", 0, 143).stage(Stage::Terminated);
    late.plan.failure = Some(PodFailure {
        reason: "DeadlineExceeded".into(),
        message: "late".into(),
        grace: None,
    });
    let status = late.status();
    assert_eq!(
        (
            status.phase.as_deref(),
            status.reason.as_deref(),
            status.message.as_deref()
        ),
        (Some("Failed"), Some("DeadlineExceeded"), Some("late"))
    );
}
