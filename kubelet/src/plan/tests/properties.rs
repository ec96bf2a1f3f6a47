//! Rules for any pod; the simulator holds those of order, number and status at every step.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::simulator::{Disturbance, Run, Simulator};
use crate::plan::Stage;

#[derive(Clone, Debug)]
struct Container {
    kind: u8,
    startup_probe: bool,
    readiness_probe: bool,
    liveness_probe: bool,
    post_start: bool,
    pre_stop: bool,
    always_pull: bool,
    sized: u8,
    rule: Option<(&'static str, &'static str, i32)>,
    runs: Vec<Run>,
}

fn run() -> impl Strategy<Value = Run> {
    let ends = prop_oneof![
        2 => Just(None),
        3 => (0_u64..20, prop_oneof![Just(0), Just(1), Just(137)]).prop_map(Some),
        1 => Just(Some((700, 1))),
    ];
    let liveness = prop_oneof![4 => Just(None), 1 => (3_u64..20).prop_map(Some)];
    (
        ends,
        0_u64..40,
        prop::bool::weighted(0.9),
        liveness,
        prop::bool::weighted(0.9),
    )
        .prop_map(
            |(ends, stops_in, starts, liveness_fails_after, hook_succeeds)| Run {
                ends,
                stops_in,
                starts,
                liveness_fails_after,
                hook_succeeds,
            },
        )
}

fn container() -> impl Strategy<Value = Container> {
    let flags = prop::array::uniform6(prop::bool::weighted(0.3));
    let action = prop_oneof![2 => Just("Restart"), 1 => Just("RestartAllContainers")];
    let operator = prop_oneof![2 => Just("In"), 1 => Just("NotIn")];
    let code = prop_oneof![Just(0), Just(1), Just(137)];
    let rule = prop::option::weighted(0.3, (action, operator, code));
    let shape = (0_u8..3, 0_u8..5);
    (shape, flags, rule, prop::collection::vec(run(), 1..4)).prop_map(|((kind, sized), flags, rule, runs)| {
        Container {
            sized,
            rule,
            kind,
            startup_probe: flags[0],
            readiness_probe: flags[1],
            liveness_probe: flags[2],
            post_start: flags[3],
            pre_stop: flags[4],
            always_pull: flags[5],
            runs,
        }
    })
}

/// Most happens while a pod starts.
fn time() -> impl Strategy<Value = u64> {
    prop_oneof![2 => 0_u64..15, 1 => 0_u64..120]
}

fn disturbance() -> impl Strategy<Value = (u64, Disturbance)> {
    let kind = prop_oneof![
        2 => prop::option::of(0_u64..40).prop_map(Disturbance::Delete),
        3 => Just(Disturbance::RestartDaemon),
        2 => Just(Disturbance::LoseSandbox),
        2 => (-400_i64..400).prop_map(Disturbance::ClockJump),
        3 => (1_u32..50).prop_map(Disturbance::Resize),
        1 => Just(Disturbance::Restart),
        1 => any::<bool>().prop_map(Disturbance::Readiness),
    ];
    (time(), kind)
}

fn to_json(index: usize, of: &Container) -> Value {
    let image = if of.always_pull { "i" } else { "i:1" };
    let mut one = json!({"name": format!("c{index}"), "image": image});
    let fields = one.as_object_mut().unwrap();
    let exec = json!({"exec": {"command": ["x"]}});
    let mut lifecycle = serde_json::Map::new();
    let plain_init = of.kind == 0;
    if of.kind == 1 {
        fields.insert("restartPolicy".into(), json!("Always"));
    }
    if let Some((action, operator, code)) = of.rule {
        fields
            .entry("restartPolicy")
            .or_insert(json!(if index.is_multiple_of(2) {
                "Never"
            } else {
                "OnFailure"
            }));
        let codes = json!({ "operator": operator, "values": [code] });
        fields.insert(
            "restartPolicyRules".into(),
            json!([{ "action": action, "exitCodes": codes }]),
        );
    }
    if of.sized > 1 {
        fields.insert(
            "resources".into(),
            json!({"limits": {"cpu": "2", "memory": "20Mi"}}),
        );
    }
    if of.sized > 2 {
        let resource = if of.sized == 3 { "cpu" } else { "memory" };
        fields.insert(
            "resizePolicy".into(),
            json!([{"resourceName": resource, "restartPolicy": "RestartContainer"}]),
        );
    }
    for (wanted, name) in [
        (of.startup_probe, "startupProbe"),
        (of.readiness_probe, "readinessProbe"),
        (of.liveness_probe, "livenessProbe"),
    ] {
        if wanted && !plain_init {
            fields.insert(name.into(), exec.clone());
        }
    }
    for (wanted, name) in [(of.post_start, "postStart"), (of.pre_stop, "preStop")] {
        if wanted && !plain_init {
            lifecycle.insert(name.into(), exec.clone());
        }
    }
    if !lifecycle.is_empty() {
        fields.insert("lifecycle".into(), lifecycle.into());
    }
    one
}

/// A pod of these containers (kind 0: init, 1: sidecar, 2: main), with at least one main one.
fn simulator(containers: &[Container], policy: &str, deadline: Option<u64>, grace: u64) -> Simulator {
    let mut lists = (Vec::new(), Vec::new());
    let mut all = containers.to_vec();
    if let Some(last) = all.last_mut() {
        last.kind = 2;
    }
    for (index, one) in all.iter().enumerate() {
        let list = if one.kind == 2 { &mut lists.1 } else { &mut lists.0 };
        list.push(to_json(index, one));
    }
    let mut spec = json!({"restartPolicy": policy, "initContainers": lists.0, "containers": lists.1});
    spec["terminationGracePeriodSeconds"] = json!(grace);
    if let Some(deadline) = deadline {
        spec["activeDeadlineSeconds"] = json!(deadline);
    }
    let mut simulator = Simulator::new(&spec.to_string());
    for (index, one) in all.iter().enumerate() {
        simulator.runs.insert(format!("c{index}"), one.runs.clone());
    }
    simulator
}

fn policies() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")]
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_time: 20_000, ..ProptestConfig::with_cases(400) })]

    /// Whatever happens, every rule holds all the way, and a deleted pod leaves nothing.
    #[test]
    fn every_pod_ends_clean(
        containers in prop::collection::vec(container(), 1..6),
        policy in policies(),
        deadline in prop::option::weighted(0.3, 1_u64..100),
        disturbances in prop::collection::vec(disturbance(), 0..5),
        durations in prop::collection::vec(0_u64..4, 1..5),
        (hooks_hang, grace) in (any::<bool>(), prop_oneof![Just(30_u64), 0_u64..40]),
        failing in prop::collection::btree_map(
            prop_oneof![
                Just("SetUpVolumes"), Just("PullImage"), Just("RunSandbox"), Just("StartContainer"), Just("StopContainer"),
                Just("ResizePod"), Just("ResizeContainer"), Just("StopSandbox"), Just("RemoveSandbox"), Just("RemoveContainer"), Just("TearDownVolumes"), Just("RemoveCgroup"),
            ].prop_map(str::to_owned),
            1_u32..4,
            0..3,
        ),
        failed_starts in 0_u32..3,
    ) {
        let mut node = simulator(&containers, policy, deadline, grace);
        node.disturbances = disturbances;
        node.hooks_hang = hooks_hang;
        node.durations = durations;
        node.failing = failing;
        node.failed_starts = failed_starts;
        node.run(2_000);
        node.disturbances.push((node.second() + 1, Disturbance::Delete(None)));
        let plan = node.run(1_000_000);
        prop_assert_eq!(plan.stage, Stage::Gone);
        prop_assert!(plan.steps.is_empty() && plan.wake_at.is_none());
        prop_assert!(node.observed.containers.is_empty() && node.observed.sandboxes.is_empty());
        prop_assert!(!node.observed.directory_exists && !node.observed.cgroup_exists);
    }

    /// A pod whose containers come to run for good, or end for good, comes to rest.
    #[test]
    fn every_pod_comes_to_rest(
        containers in prop::collection::vec(container(), 1..6),
        policy in policies(),
        disturbances in prop::collection::vec((time(), prop_oneof![
            Just(Disturbance::RestartDaemon),
            Just(Disturbance::LoseSandbox),
            (-400_i64..400).prop_map(Disturbance::ClockJump),
            (1_u32..50).prop_map(Disturbance::Resize),
            Just(Disturbance::Restart),
            any::<bool>().prop_map(Disturbance::Readiness),
        ]), 0..4),
        durations in prop::collection::vec(0_u64..4, 1..5),
        hooks_hang in any::<bool>(),
    ) {
        let mut containers = containers;
        for one in &mut containers {
            // A rule may start it again for ever.
            one.rule = None;
            // The last run is a good one: plain init containers end, others go on.
            if one.kind == 0 {
                one.runs.iter_mut().for_each(|run| run.ends = run.ends.or(Some((2, 1))));
            }
            let good = Run { ends: (one.kind == 0).then_some((1, 0)), ..Run::default() };
            one.runs.push(good);
        }
        let mut node = simulator(&containers, policy, None, 30);
        node.hooks_hang = hooks_hang;
        if let Some(main) = containers.len().checked_sub(1) {
            node.runs.get_mut(&format!("c{main}")).unwrap().last_mut().unwrap().ends = None;
        }
        node.disturbances = disturbances;
        node.durations = durations;
        let plan = node.run(1_000_000);
        prop_assert!(plan.steps.is_empty(), "{:#?}", plan);
        prop_assert!(plan.wake_at.is_none(), "{:#?}", plan);
        prop_assert!(plan.stage != Stage::Syncing || plan.resize.in_progress.is_none(), "{:#?}", plan);
        prop_assert_eq!(node.stale(), Vec::<String>::new());
        match node.phase() {
            "Running" => prop_assert!(plan.stage == Stage::Syncing && !node.running().is_empty()),
            "Succeeded" | "Failed" => {
                prop_assert!(plan.stage == Stage::Terminated && node.running().is_empty() && policy != "Always");
            }
            other => prop_assert!(false, "{other}"),
        }
    }
}
