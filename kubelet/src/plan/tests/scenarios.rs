//! What comes in which order, and when.

use super::simulator::{Disturbance, Run, Simulator};
use crate::plan::{KillReason, Reason, Stage};

const ONE: &str = r#"{"containers":[{"name":"c","image":"i:1"}]}"#;

fn policy(policy: &str) -> String {
    format!(r#"{{"restartPolicy":"{policy}","containers":[{{"name":"c","image":"i:1"}}]}}"#)
}

#[test]
fn a_pod_starts_and_is_removed() {
    let mut node = Simulator::new(ONE);
    let plan = node.run(100);
    assert_eq!((plan.stage, node.phase()), (Stage::Syncing, "Running"));
    assert_eq!(
        node.order_of(&["pull", "sandbox", "start"]),
        ["pull i:1", "sandbox 0", "start c 0"]
    );
    let mut node = node.disturb(10, Disturbance::Delete(None));
    let plan = node.run(100);
    assert_eq!((plan.stage, plan.steps.len()), (Stage::Gone, 0));
    assert_eq!(
        node.order_of(&["stop", "stop-sandbox"]),
        ["stop c", "stop-sandbox s0"]
    );
    assert!(!node.observed.cgroup_exists && !node.observed.directory_exists);
    assert_eq!(node.phase(), "Failed");
}

#[test]
fn an_init_container_that_somebody_starts_anew_does_not_fail_its_pod() {
    let spec = r#"{"restartPolicy":"Never","initContainers":[{"name":"i","image":"i:1"}],
        "containers":[{"name":"c","image":"i:1"}]}"#;
    let mut node = Simulator::new(spec)
        .runs("i", &[Run::ends(700, 1), Run::ends(1, 0)])
        .disturb(5, Disturbance::Restart);
    node.run(1000);
    assert_eq!(node.order_of(&["start"]), ["start i 0", "start i 1", "start c 0"]);
    assert_eq!(node.phase(), "Running");
}

#[test]
fn an_init_container_that_ends_well_while_it_is_started_anew_holds_up_the_next() {
    let spec = r#"{"initContainers":[{"name":"i","image":"i:1"}],"containers":[{"name":"c","image":"i:1"}]}"#;
    let stops_well = Run {
        stops_in: 3,
        ..Run::ends(7, 0)
    };
    let mut node = Simulator::new(spec)
        .runs("i", &[stops_well])
        .disturb(5, Disturbance::Restart);
    node.run(100);
    assert_eq!(node.seconds_of("start i"), [0, 7]);
    assert_eq!(node.seconds_of("start c"), [14]);
}

#[test]
fn crash_pauses_double() {
    let mut node = Simulator::new(&policy("Always")).runs("c", &[Run::ends(0, 1)]);
    let plan = node.run(1200);
    assert_eq!(node.seconds_of("start c"), [0, 0, 10, 30, 70, 150, 310, 610, 910]);
    let waiting = &plan.waiting["c"];
    assert_eq!(waiting.reason, Reason::CrashLoopBackOff);
    assert_eq!(
        waiting.message,
        "back-off 5m0s restarting failed container=c pod=p_default(uid)"
    );
    assert_eq!(node.phase(), "Running");
    assert_eq!(
        node.observed.containers.len(),
        1,
        "only one ended container is kept"
    );
}

#[test]
fn a_pause_outlives_the_daemon() {
    let mut node = Simulator::new(&policy("Always")).runs("c", &[Run::ends(0, 1)]);
    for second in [5, 15, 35, 100] {
        node = node.disturb(second, Disturbance::RestartDaemon);
    }
    node.run(400);
    assert_eq!(node.seconds_of("start c"), [0, 0, 10, 30, 70, 150, 310]);
}

#[test]
fn a_long_run_resets_the_pause() {
    let crash = Run::ends(0, 1);
    let mut node =
        Simulator::new(&policy("Always")).runs("c", &[crash, crash, crash, Run::ends(601, 1), crash]);
    node.run(700);
    assert_eq!(node.seconds_of("start c"), [0, 0, 10, 30, 631, 641, 661]);
}

#[test]
fn restart_policies() {
    for (name, code, starts, phase) in [
        ("Never", 0, 1, "Succeeded"),
        ("Never", 3, 1, "Failed"),
        ("OnFailure", 0, 1, "Succeeded"),
        ("OnFailure", 3, 2, "Succeeded"),
        ("Always", 0, 2, "Running"),
    ] {
        let mut node = Simulator::new(&policy(name)).runs("c", &[Run::ends(1, code), Run::ends(1, 0)]);
        let plan = node.run(4);
        assert_eq!((node.starts["c"], node.phase()), (starts, phase), "{name} {code}");
        assert_eq!(
            plan.stage == Stage::Terminated,
            phase != "Running",
            "{name} {code}"
        );
    }
}

const SIDECARS: &str = r#"{"restartPolicy":"Never","initContainers":[
    {"name":"first","image":"i:1"},
    {"name":"s1","image":"i:1","restartPolicy":"Always","startupProbe":{"exec":{"command":["x"]}}},
    {"name":"second","image":"i:1"},
    {"name":"s2","image":"i:1","restartPolicy":"Always","lifecycle":{"preStop":{"sleep":{"seconds":1}}}}],
  "containers":[{"name":"c","image":"i:1"},{"name":"d","image":"i:1"}]}"#;

#[test]
fn init_containers_and_sidecars_have_their_order() {
    let mut node = Simulator::new(SIDECARS)
        .runs("first", &[Run::ends(2, 0)])
        .runs("second", &[Run::ends(3, 0)])
        .runs("c", &[Run::ends(5, 0)])
        .runs("d", &[Run::ends(1, 0)]);
    let plan = node.run(100);
    let starts = node.order_of(&["start"]);
    assert_eq!(
        starts,
        [
            "start first 0",
            "start s1 0",
            "start second 0",
            "start s2 0",
            "start c 0",
            "start d 0"
        ]
    );
    // s1 is up after its probe, one second later.
    assert_eq!(node.seconds_of("start second"), [3]);
    assert_eq!(
        node.order_of(&["stop", "PreStop", "stop-sandbox"]),
        ["PreStop s2", "stop s2", "stop s1", "stop-sandbox s0"]
    );
    assert_eq!((plan.stage, node.phase()), (Stage::Terminated, "Succeeded"));
}

#[test]
fn a_crashed_sidecar_comes_back() {
    let mut node = Simulator::new(SIDECARS)
        .runs("first", &[Run::ends(0, 0)])
        .runs("s1", &[Run::ends(10, 1), Run::default()])
        .runs("second", &[Run::ends(0, 0)])
        .runs("c", &[Run::ends(60, 0)])
        .runs("d", &[Run::ends(60, 0)]);
    node.run(30);
    assert_eq!(node.seconds_of("start s1"), [0, 10]);
    assert_eq!(
        (node.starts["first"], node.starts["second"], node.starts["c"]),
        (1, 1, 1)
    );
}

#[test]
fn a_failed_init_container() {
    let spec = |policy: &str| {
        format!(
            r#"{{"restartPolicy":"{policy}","initContainers":[{{"name":"i","image":"i:1"}}],"containers":[{{"name":"c","image":"i:1"}}]}}"#
        )
    };
    let mut node = Simulator::new(&spec("Never")).runs("i", &[Run::ends(1, 7)]);
    let plan = node.run(100);
    assert_eq!(
        (plan.stage, node.phase(), node.starts.get("c")),
        (Stage::Terminated, "Failed", None)
    );
    let mut node =
        Simulator::new(&spec("Always")).runs("i", &[Run::ends(1, 7), Run::ends(1, 7), Run::ends(1, 0)]);
    node.run(100);
    assert_eq!(
        (node.seconds_of("start i"), node.seconds_of("start c")),
        (vec![0, 1, 12], vec![13])
    );
    assert_eq!(node.phase(), "Running");
}

#[test]
fn images_back_off() {
    let mut node = Simulator::new(ONE).fail("PullImage", 4);
    let plan = node.run(2);
    assert_eq!(plan.waiting["c"].reason, Reason::ErrImagePull);
    let plan = node.run(6);
    assert_eq!(plan.waiting["c"].reason, Reason::ImagePullBackOff);
    assert_eq!(
        plan.waiting["c"].message,
        "Back-off pulling image \"i:1\": ErrImagePull: it failed"
    );
    node.run(1000);
    assert_eq!(node.seconds_of("failed PullImage"), [0, 10, 30, 70]);
    assert_eq!(node.seconds_of("start c"), [150]);
}

#[test]
fn an_image_that_is_never_pulled() {
    let mut node = Simulator::new(r#"{"containers":[{"name":"c","image":"i:1","imagePullPolicy":"Never"}]}"#);
    let plan = node.run(100);
    assert_eq!(plan.waiting["c"].reason, Reason::ErrImageNeverPull);
    assert_eq!(
        plan.waiting["c"].message,
        "Container image \"i:1\" is not present with pull policy of Never"
    );
    assert_eq!(node.seconds_of("pull"), [0; 0]);
}

#[test]
fn an_image_that_is_always_pulled() {
    let mut node = Simulator::new(r#"{"containers":[{"name":"c","image":"i"}]}"#)
        .runs("c", &[Run::ends(5, 1), Run::default()]);
    node.run(100);
    assert_eq!(node.seconds_of("pull i"), [0, 5]);
    assert_eq!(node.seconds_of("start c"), [0, 5]);
}

#[test]
fn other_failures_are_tried_again_after_ten_seconds() {
    // The second start that fails leaves a container that ended, and the first restart of one comes at once.
    for (step, begins) in [("SetUpVolumes", 20), ("RunSandbox", 20), ("StartContainer", 10)] {
        let mut node = Simulator::new(ONE).fail(step, 2);
        node.run(100);
        assert_eq!(node.seconds_of("failed"), [0, 10], "{step}");
        assert_eq!(node.seconds_of("start c"), [begins], "{step}");
        assert_eq!(node.phase(), "Running");
    }
}

#[test]
fn what_is_missing_is_a_configuration_error() {
    let spec = r#"{"containers":[{"name":"c","image":"i:1","envFrom":[{"configMapRef":{"name":"none"}}]},{"name":"d","image":"i:1"}]}"#;
    let mut node = Simulator::new(spec);
    let plan = node.run(100);
    assert_eq!(plan.waiting["c"].reason, Reason::CreateContainerConfigError);
    assert_eq!(plan.waiting["c"].message, "configmap \"none\" not found");
    assert_eq!((node.phase(), node.running()), ("Pending", vec!["d"]));
}

#[test]
fn probes_end_containers() {
    let spec = r#"{"containers":[{"name":"c","image":"i:1","livenessProbe":{"exec":{"command":["x"]},"terminationGracePeriodSeconds":3},
        "startupProbe":{"exec":{"command":["x"]}}}]}"#;
    let stubborn = Run {
        liveness_fails_after: Some(10),
        stops_in: 60,
        ..Run::default()
    };
    let mut node = Simulator::new(spec).runs(
        "c",
        &[
            Run {
                starts: false,
                ..Run::default()
            },
            stubborn,
            Run::default(),
        ],
    );
    node.run(100);
    assert_eq!(
        node.order_of(&["stop", "end"]),
        ["stop c", "end c 143", "stop c", "end c 137"]
    );
    // Startup fails at 1 and it stops at 2; liveness fails at 12, and 3 seconds of grace end at 15.
    assert_eq!(node.seconds_of("start c"), [0, 2, 25]);
}

#[test]
fn a_failed_post_start_hook_ends_the_container() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"postStart":{"exec":{"command":["x"]}}}}]}"#;
    let mut node = Simulator::new(spec).runs(
        "c",
        &[
            Run {
                hook_succeeds: false,
                ..Run::default()
            },
            Run::default(),
        ],
    );
    node.run(100);
    assert_eq!(
        node.order_of(&["start", "PostStart", "stop"]),
        ["start c 0", "PostStart c", "stop c", "start c 1", "PostStart c"]
    );
    assert_eq!(node.phase(), "Running");
}

#[test]
fn grace_is_shared_by_hook_and_signal() {
    let spec = r#"{"terminationGracePeriodSeconds":10,"containers":[{"name":"c","image":"i:1","lifecycle":{"preStop":{"sleep":{"seconds":7}}}}]}"#;
    let mut node = Simulator::new(spec).runs(
        "c",
        &[Run {
            stops_in: 60,
            ..Run::default()
        }],
    );
    node.run(1);
    node.durations = vec![7];
    let mut node = node.disturb(5, Disturbance::Delete(None));
    node.run(100);
    // The hook takes 7 of 10 seconds, which leaves 3.
    assert_eq!(
        (node.seconds_of("PreStop"), node.seconds_of("end c 137")),
        (vec![12], vec![15])
    );
}

#[test]
fn a_hook_that_takes_all_the_grace_leaves_two_seconds() {
    let spec = r#"{"terminationGracePeriodSeconds":10,"containers":[{"name":"c","image":"i:1","lifecycle":{"preStop":{"exec":{"command":["x"]}}}}]}"#;
    let mut node = Simulator::new(spec).runs(
        "c",
        &[Run {
            stops_in: 60,
            ..Run::default()
        }],
    );
    node.run(1);
    node.durations = vec![100];
    let mut node = node.disturb(5, Disturbance::Delete(None));
    node.run(1000);
    assert_eq!(node.seconds_of("end c 137"), [17]);
}

#[test]
fn impatience_cuts_the_grace_short() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i:1","lifecycle":{"preStop":{"exec":{"command":["x"]}}}}]}"#;
    let mut node = Simulator::new(spec).runs(
        "c",
        &[Run {
            stops_in: 60,
            ..Run::default()
        }],
    );
    node.run(1);
    node.durations = vec![20];
    let mut node = node
        .disturb(5, Disturbance::Delete(None))
        .disturb(6, Disturbance::Delete(Some(0)));
    let plan = node.run(1000);
    assert_eq!(node.seconds_of("end c 137"), [6]);
    assert_eq!(plan.stage, Stage::Gone);
}

#[test]
fn out_of_time() {
    let spec = r#"{"activeDeadlineSeconds":20,"containers":[{"name":"c","image":"i:1"}]}"#;
    let mut node = Simulator::new(spec);
    let plan = node.run(100);
    assert_eq!(node.seconds_of("stop c"), [21]);
    let status = node.status.clone().unwrap();
    assert_eq!(
        (plan.stage, node.phase(), status.reason.as_deref()),
        (Stage::Terminated, "Failed", Some("DeadlineExceeded"))
    );
    let mut node = Simulator::new(&spec.replace("{\"active", "{\"restartPolicy\":\"Never\",\"active"))
        .runs("c", &[Run::ends(5, 0)]);
    node.run(100);
    assert_eq!(node.phase(), "Succeeded");
}

#[test]
fn a_lost_sandbox_is_made_anew() {
    let spec = |policy: &str| {
        format!(
            r#"{{"restartPolicy":"{policy}","initContainers":[{{"name":"i","image":"i:1"}}],"containers":[{{"name":"c","image":"i:1"}}]}}"#
        )
    };
    let mut node = Simulator::new(&spec("Always"))
        .runs("i", &[Run::ends(0, 0)])
        .disturb(10, Disturbance::LoseSandbox);
    node.run(100);
    assert_eq!(
        node.order_of(&["sandbox", "start"]),
        [
            "sandbox 0",
            "start i 0",
            "start c 0",
            "sandbox 1",
            "start i 1",
            "start c 1"
        ]
    );
    assert_eq!(node.running(), ["c"]);
    let mut node = Simulator::new(&spec("Never"))
        .runs("i", &[Run::ends(0, 0)])
        .disturb(10, Disturbance::LoseSandbox);
    node.run(100);
    assert_eq!((node.order_of(&["sandbox"]).len(), node.phase()), (1, "Failed"));
}

/// The sandbox of a pod that is deleted goes before its second container was ever made: that is no loss.
#[test]
fn a_deleted_pod_has_not_lost_its_sandbox() {
    let spec = r#"{"restartPolicy":"Never","containers":[{"name":"c","image":"i:1"},
        {"name":"d","image":"j:1","imagePullPolicy":"Never"}]}"#;
    let mut node = Simulator::new(spec)
        .disturb(10, Disturbance::Delete(None))
        .fail("RemoveSandbox", 1);
    let plan = node.run(15);
    assert_eq!((plan.stage, plan.failure), (Stage::Removing, None));
    let status = node.status.clone().unwrap();
    assert_eq!((node.phase(), status.reason), ("Failed", None));
    assert_eq!(node.run(100).stage, Stage::Gone);
}

/// Nothing but the plan ends a hook that hangs, and it does so once the time is over that there was at the beginning.
#[test]
fn a_hook_that_hangs_gets_no_more_time_than_at_the_beginning() {
    let spec = r#"{"terminationGracePeriodSeconds":10,"containers":[{"name":"c","image":"i:1",
        "lifecycle":{"preStop":{"exec":{"command":["x"]}}},"livenessProbe":{"exec":{"command":["x"]}}}]}"#;
    let sick = Run {
        liveness_fails_after: Some(5),
        stops_in: 60,
        ..Run::default()
    };
    let mut node = Simulator::new(spec)
        .runs("c", &[sick, Run::default()])
        .disturb(9, Disturbance::Readiness(false));
    node.hooks_hang = true;
    node.run(100);
    assert_eq!(node.seconds_of("end c 137"), [17]);
}

/// A container that is not to end any more after all gets all of its time, and its hook, when it does.
#[test]
fn a_container_that_was_spared_ends_like_any_other() {
    let spec = r#"{"terminationGracePeriodSeconds":10,"containers":[{"name":"c","image":"i:1",
        "resources":{"limits":{"cpu":"1","memory":"10Mi"}},
        "resizePolicy":[{"resourceName":"memory","restartPolicy":"RestartContainer"}],
        "lifecycle":{"preStop":{"exec":{"command":["x"]}}},"livenessProbe":{"exec":{"command":["x"]}}}]}"#;
    let sick = Run {
        liveness_fails_after: Some(60),
        ..Run::default()
    };
    let mut node = Simulator::new(spec)
        .runs("c", &[sick, Run::default()])
        .disturb(5, Disturbance::Resize(20))
        // It had 1 CPU and 10 MiB.
        .disturb(8, Disturbance::Resize(10));
    node.durations = vec![4];
    node.run(100);
    let (killed, hook) = (node.seconds_of("stop c"), node.seconds_of("PreStop c"));
    assert_eq!((killed.len(), hook.len()), (1, 1), "{:#?}", node.log);
    assert!(killed[0] >= 60);
}

#[test]
fn a_restarted_daemon_touches_nothing() {
    let spec =
        r#"{"containers":[{"name":"c","image":"i","lifecycle":{"postStart":{"exec":{"command":["x"]}}}}]}"#;
    let mut node = Simulator::new(spec).disturb(10, Disturbance::RestartDaemon);
    node.run(100);
    assert_eq!(
        node.order_of(&["start", "stop", "pull", "PostStart"]),
        ["pull i", "start c 0", "PostStart c"]
    );
}

#[test]
fn a_pod_that_is_deleted_while_it_starts() {
    for second in 0..6 {
        let mut node = Simulator::new(SIDECARS).disturb(second, Disturbance::Delete(None));
        node.durations = vec![2, 1, 3];
        let plan = node.run(200);
        assert_eq!(
            (
                plan.stage,
                node.observed.containers.len(),
                node.observed.sandboxes.len()
            ),
            (Stage::Gone, 0, 0),
            "{second}"
        );
    }
}

/// A pod with a rule for its first container `a`, and `b` beside it.
fn ruled(pod_policy: &str, own_policy: &str, rule: &str) -> String {
    format!(
        r#"{{"restartPolicy":"{pod_policy}","containers":[
            {{"name":"a","image":"i:1","restartPolicy":"{own_policy}","restartPolicyRules":[{rule}]}},
            {{"name":"b","image":"i:1","restartPolicy":"Never"}}]}}"#
    )
}

#[test]
fn the_first_rule_that_fits_decides_before_the_policy() {
    let within =
        |codes: &str| format!(r#"{{"action":"Restart","exitCodes":{{"operator":"In","values":[{codes}]}}}}"#);
    let not_in = |codes: &str| {
        format!(r#"{{"action":"Restart","exitCodes":{{"operator":"NotIn","values":[{codes}]}}}}"#)
    };
    for (own, rule, code, restarts) in [
        ("Never", within("42,43"), 43, true),
        ("Never", within("42"), 1, false),
        ("Never", not_in("0,1"), 2, true),
        ("Never", not_in("0,1"), 1, false),
        ("OnFailure", within("0"), 0, true),
        ("OnFailure", within("42"), 1, true),
        ("Always", within("42"), 0, true),
    ] {
        let mut node =
            Simulator::new(&ruled("Never", own, &rule)).runs("a", &[Run::ends(1, code), Run::default()]);
        node.run(5);
        let starts = if restarts { 2 } else { 1 };
        assert_eq!(node.seconds_of("start a").len(), starts, "{own} {rule} {code}");
    }
}

#[test]
fn a_container_s_own_policy_counts_before_the_pod_s() {
    for (own, code, starts) in [
        ("Never", 1, 1),
        ("OnFailure", 1, 2),
        ("OnFailure", 0, 1),
        ("Always", 0, 2),
    ] {
        for of_pod in ["Always", "Never", "OnFailure"] {
            let mut node =
                Simulator::new(&ruled(of_pod, own, "")).runs("a", &[Run::ends(1, code), Run::default()]);
            node.run(5);
            assert_eq!(node.seconds_of("start a").len(), starts, "{own} {of_pod} {code}");
        }
    }
}

const RESTART_ALL: &str = r#"{"restartPolicy":"Never",
    "initContainers":[{"name":"i","image":"i:1"},
        {"name":"s","image":"i:1","restartPolicy":"Always","lifecycle":{"preStop":{"exec":{"command":["x"]}}}}],
    "containers":[{"name":"a","image":"i:1","restartPolicy":"Never","restartPolicyRules":[
            {"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[42]}}]},
        {"name":"b","image":"i:1"},{"name":"c","image":"i:1"}]}"#;

#[test]
fn restart_all_begins_the_pod_anew_in_its_sandbox() {
    let mut node = Simulator::new(RESTART_ALL)
        .runs("i", &[Run::ends(1, 0)])
        .runs("a", &[Run::ends(10, 42), Run::ends(100, 0)])
        .runs("c", &[Run::ends(2, 1), Run::ends(200, 0)]);
    node.run(60);
    let order = node.order_of(&["sandbox", "start", "stop", "end", "PreStop"]);
    let first = [
        "sandbox 0",
        "start i 0",
        "end i 0",
        "start s 0",
        "start a 0",
        "start b 0",
        "start c 0",
        "end c 1",
    ];
    assert_eq!(order[..8], first);
    assert_eq!(order[8], "end a 42");
    // All are stopped at once and without hooks; then the order is that of the beginning.
    let mut stopped = order[9..13].to_vec();
    stopped.sort();
    assert_eq!(stopped, ["end b 143", "end s 143", "stop b", "stop s"]);
    assert_eq!(
        order[13..],
        [
            "start i 1",
            "end i 0",
            "start s 1",
            "start a 1",
            "start b 1",
            "start c 1"
        ]
    );
    assert_eq!(node.phase(), "Running");
    let conditions = node.status.as_ref().unwrap().conditions.as_ref().unwrap();
    let restarting = conditions
        .iter()
        .find(|c| c.type_ == "AllContainersRestarting")
        .unwrap();
    assert_eq!(restarting.status, "False");
}

#[test]
fn restart_all_outlives_the_daemon() {
    for second in 8..20 {
        let mut node = Simulator::new(RESTART_ALL)
            .runs("i", &[Run::ends(1, 0)])
            .runs("a", &[Run::ends(10, 42), Run::default()])
            .runs(
                "b",
                &[Run {
                    stops_in: 2,
                    ..Run::default()
                }],
            )
            .disturb(second, Disturbance::RestartDaemon);
        node.durations = vec![1];
        node.run(60);
        assert_eq!(node.seconds_of("start a").len(), 2, "{second}");
        assert_eq!(node.running(), ["s", "a", "b", "c"], "{second}: {:#?}", node.log);
    }
}

#[test]
fn restart_all_in_a_row_is_held_back() {
    let mut node = Simulator::new(RESTART_ALL)
        .runs("i", &[Run::ends(0, 0)])
        .runs("a", &[Run::ends(1, 42)]);
    node.run(100);
    let starts = node.seconds_of("start a");
    // As a crash of that container: at once, then after 10, 20 and 40 seconds.
    assert_eq!(
        starts
            .windows(2)
            .map(|two| two[1] - two[0] >= 10)
            .collect::<Vec<_>>()[1..3],
        [true, true]
    );
    assert!(starts.len() <= 5, "{starts:?}");
}

/// Pods with a container for a look inside, that sees the processes of `a` or has its own.
const LOOKED_AT: &str = r#"{"restartPolicy":"OnFailure","containers":[{"name":"a","image":"i:1"}],"ephemeralContainers":[
    {"name":"look","image":"tools:1","targetContainerName":"a"},{"name":"own","image":"tools:1"}]}"#;

#[test]
fn ephemeral_containers_run_once_and_hold_nothing_up() {
    let mut node = Simulator::new(LOOKED_AT)
        .runs("a", &[Run::ends(5, 1), Run::ends(60, 0)])
        .runs("own", &[Run::ends(2, 1)]);
    node.run(100);
    assert_eq!(node.seconds_of("start a").len(), 2);
    assert_eq!(node.seconds_of("start own").len(), 1);
    let looked = node.order_of(&["start"]);
    assert!(
        looked.contains(&"start look 0 beside Some(ContainerId(\"a-0\"))".to_owned()),
        "{looked:?}"
    );
    // The pod's end is that of its own containers, and ends what looks at them.
    assert_eq!(node.phase(), "Succeeded");
    assert_eq!(node.running(), [""; 0]);
    let status = node.status.as_ref().unwrap();
    let ephemeral = status.ephemeral_container_statuses.as_ref().unwrap();
    assert_eq!(
        ephemeral
            .iter()
            .map(|one| (one.name.as_str(), one.ready))
            .collect::<Vec<_>>(),
        [("look", false), ("own", false)]
    );
    assert!(ephemeral[1].state.as_ref().unwrap().terminated.is_some());
}

#[test]
fn an_ephemeral_container_outlives_the_daemon_and_goes_with_the_pod() {
    let mut node = Simulator::new(LOOKED_AT)
        .disturb(3, Disturbance::RestartDaemon)
        .disturb(10, Disturbance::Delete(None));
    let plan = node.run(100);
    assert_eq!(plan.stage, Stage::Gone);
    assert_eq!(node.seconds_of("start look").len(), 1);
    assert_eq!(node.seconds_of("stop look"), [11]);
}

#[test]
fn a_clock_that_is_set_back_brings_no_pod_to_life_again() {
    let spec = r#"{"activeDeadlineSeconds":10,"containers":[{"name":"c","image":"i:1"}]}"#;
    let mut node = Simulator::new(spec)
        .disturb(12, Disturbance::ClockJump(-8))
        .disturb(20, Disturbance::RestartDaemon);
    let plan = node.run(100);
    assert_eq!((plan.stage, node.phase()), (Stage::Terminated, "Failed"));
    assert_eq!(node.seconds_of("start c").len(), 1);
}

/// Of two rules that fit, the first one counts: `a` alone is started anew.
#[test]
fn a_later_rule_that_fits_as_well_counts_for_nothing() {
    let rule =
        |action: &str| format!(r#"{{"action":"{action}","exitCodes":{{"operator":"In","values":[1]}}}}"#);
    let rules = format!("{},{}", rule("Restart"), rule("RestartAllContainers"));
    let mut node =
        Simulator::new(&ruled("Never", "Never", &rules)).runs("a", &[Run::ends(1, 1), Run::default()]);
    node.run(30);
    assert_eq!(node.order_of(&["start"]), ["start a 0", "start b 0", "start a 1"]);
}

/// A container that could not be made leaves no record, but was counted.
#[test]
fn a_restart_that_fails_is_counted() {
    let mut node = Simulator::new(&policy("Always")).runs("c", &[Run::ends(5, 1), Run::default()]);
    node.durations = vec![1];
    node.run(5);
    node.failing.insert("StartContainer".to_owned(), 1);
    // The third failure of a start leaves nothing.
    node.failed_starts = 2;
    let count = |node: &Simulator| {
        node.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0].restart_count
    };
    for second in 6..15 {
        node.run(second);
        if second > 8 {
            assert_eq!(count(&node), 1, "{second}: {:#?}", node.log);
        }
    }
    node.run(60);
    assert_eq!((count(&node), node.running()), (1, vec!["c"]));
}

/// One whose end was asked for before its time was over was not too late.
#[test]
fn a_pod_that_is_deleted_in_time_is_not_out_of_time() {
    let spec = r#"{"activeDeadlineSeconds":20,"containers":[{"name":"c","image":"i:1"}]}"#;
    let slow = Run {
        stops_in: 25,
        ..Run::default()
    };
    let mut node = Simulator::new(spec)
        .runs("c", &[slow])
        .disturb(15, Disturbance::Delete(None))
        .fail("RemoveSandbox", 1);
    let plan = node.run(45);
    assert_eq!((plan.stage, plan.failure), (Stage::Removing, None));
}

/// Upstream says of a container that a probe ends whether it comes back, and of an init container only that it is one.
#[test]
fn the_words_for_an_end_are_upstream_s() {
    let pod = crate::testing::pod(
        r#"{"initContainers":[{"name":"s","image":"i","restartPolicy":"Always"}],
            "containers":[{"name":"c","image":"i"},{"name":"n","image":"i","restartPolicy":"Never"}]}"#,
    );
    for (name, words) in [
        ("s", "Init container s failed liveness probe"),
        ("c", "Container c failed liveness probe, will be restarted"),
        ("n", "Container n failed liveness probe"),
    ] {
        assert_eq!(KillReason::LivenessProbe.message(&pod, name), words);
    }
}
