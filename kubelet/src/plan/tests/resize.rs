//! Other resources for a pod that runs.

use k8s_openapi::api::core::v1::PodCondition;

use super::simulator::{Disturbance, Run, SECOND, Simulator};
use crate::plan::{NodeFacts, Stage};

/// A container with 1 CPU and 10 MiB, and one with as much that is started anew when its memory changes.
const PAIR: &str = r#"{"containers":[
    {"name":"a","image":"i:1","resources":{"limits":{"cpu":"1","memory":"10Mi"}}},
    {"name":"b","image":"i:1","resources":{"limits":{"cpu":"1","memory":"10Mi"}},
     "resizePolicy":[{"resourceName":"memory","restartPolicy":"RestartContainer"}]}]}"#;

const ONE: &str =
    r#"{"containers":[{"name":"a","image":"i:1","resources":{"limits":{"cpu":"1","memory":"10Mi"}}}]}"#;

fn condition(node: &Simulator, kind: &str) -> Option<PodCondition> {
    let status = node.status.as_ref()?;
    let mut all = status.conditions.iter().flatten();
    all.find(|condition| condition.type_ == kind).cloned()
}

fn mebibytes(count: i64) -> String {
    format!("Some({})", count << 20)
}

#[test]
fn the_group_grows_before_its_container_and_shrinks_after_it() {
    let mut node = Simulator::new(ONE)
        .disturb(10, Disturbance::Resize(20))
        .disturb(20, Disturbance::Resize(5));
    node.run(100);
    assert_eq!(
        node.order_of(&["start", "group", "resize", "stop"]),
        [
            "start a 0".to_owned(),
            format!("group Some(200000) {}", mebibytes(20)),
            format!("resize a Some(200000) {}", mebibytes(20)),
            format!("resize a Some(50000) {}", mebibytes(5)),
            format!("group Some(50000) {}", mebibytes(5)),
        ]
    );
    let status = node.status.as_ref().unwrap();
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(container.allocated_resources.as_ref().unwrap()["memory"].0, "5Mi");
    let actual = container.resources.as_ref().unwrap();
    assert_eq!(actual.limits.as_ref().unwrap()["cpu"].0, "500m");
    assert_eq!(condition(&node, "PodResizeInProgress"), None);
}

#[test]
fn a_container_is_started_anew_where_its_policy_says_so() {
    let mut node = Simulator::new(PAIR).disturb(10, Disturbance::Resize(20));
    let plan = node.run(100);
    assert_eq!(
        node.order_of(&["start", "resize", "stop"]),
        [
            "start a 0".to_owned(),
            "start b 0".to_owned(),
            format!("resize a Some(200000) {}", mebibytes(20)),
            "stop b".to_owned(),
            "start b 1".to_owned(),
        ]
    );
    assert_eq!((plan.stage, plan.resize.in_progress), (Stage::Syncing, None));
    assert_eq!(
        node.observed.sizes.as_ref().unwrap().group.memory_limit,
        Some(40 << 20)
    );
}

#[test]
fn a_resize_is_in_progress_until_what_is_started_anew_for_it_runs() {
    let mut node = Simulator::new(PAIR).disturb(40, Disturbance::Resize(20));
    node.durations = vec![3];
    node.run(42);
    // The one is ended, and the group is not wide enough for its successor yet.
    assert_eq!(node.running(), ["a"]);
    assert!(condition(&node, "PodResizeInProgress").is_some());
    node.run(45);
    assert_eq!(node.running(), ["a"]);
    assert!(condition(&node, "PodResizeInProgress").is_some());
    node.run(100);
    assert_eq!(node.running(), ["a", "b"]);
    assert_eq!(condition(&node, "PodResizeInProgress"), None);
}

#[test]
fn a_sandbox_is_not_made_while_the_group_is_being_given_something_else() {
    let mut node = Simulator::new(ONE)
        .disturb(20, Disturbance::Resize(20))
        .disturb(21, Disturbance::LoseSandbox);
    node.durations = vec![5];
    node.run(100);
    let second = |wanted: &str| {
        let found = node.log.iter().find(|(_, entry)| entry.starts_with(wanted));
        found.map(|(second, _)| *second)
    };
    assert_eq!((second("group"), second("sandbox 1")), (Some(25), Some(30)));
}

#[test]
fn a_container_that_ends_well_when_it_is_resized_is_started_again() {
    let spec = PAIR.replacen('{', r#"{"restartPolicy":"OnFailure","#, 1);
    let mut node = Simulator::new(&spec)
        .runs("a", &[Run::ends(5, 0)])
        .disturb(10, Disturbance::Resize(20));
    node.run(100);
    // The other one had done its work, and stays so.
    assert_eq!(node.order_of(&["start"]), ["start a 0", "start b 0", "start b 1"]);
}

#[test]
fn what_the_node_does_not_have_is_not_given() {
    let facts = |node: &Simulator| NodeFacts {
        memory_capacity: 64 << 20,
        cpu_capacity: 8000,
        ..node.desired.node.as_ref().clone()
    };
    let mut node = Simulator::new(ONE).disturb(10, Disturbance::Resize(65));
    node.desired.node = facts(&node).into();
    let plan = node.run(100);
    let pending = condition(&node, "PodResizePending").unwrap();
    assert_eq!(pending.reason.as_deref(), Some("Infeasible"));
    assert_eq!(
        pending.message.as_deref(),
        Some("Node didn't have enough capacity: memory, requested: 68157440, capacity: 67108864")
    );
    assert_eq!(plan.wake_at, None, "it never will have it");
    assert!(node.order_of(&["resize", "group"]).is_empty());
    let status = node.status.as_ref().unwrap();
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        container.allocated_resources.as_ref().unwrap()["memory"].0,
        "10Mi"
    );

    // Room that other pods have comes with their end.
    let mut node = Simulator::new(ONE).disturb(10, Disturbance::Resize(60));
    node.desired.node = facts(&node).into();
    node.observed.others = Some([("memory", 10 << 20)].into());
    let plan = node.run(30);
    let pending = condition(&node, "PodResizePending").unwrap();
    assert_eq!(pending.reason.as_deref(), Some("Deferred"));
    assert_eq!(
        pending.message.as_deref(),
        Some(
            "Node didn't have enough resource: memory, requested: 62914560, used: 10485760, capacity: 67108864"
        )
    );
    assert_eq!(plan.wake_at, Some(node.now + 30 * SECOND));
    node.observed.others = None;
    node.run(100);
    assert_eq!(condition(&node, "PodResizePending"), None);
    assert_eq!(node.order_of(&["resize"]).len(), 1);
}

/// Who wants less than before may have it, however little room there is.
#[test]
fn less_is_given_on_a_node_that_is_full() {
    let mut node = Simulator::new(ONE).disturb(10, Disturbance::Resize(5));
    node.desired.node = NodeFacts {
        memory_capacity: 64 << 20,
        cpu_capacity: 8000,
        ..node.desired.node.as_ref().clone()
    }
    .into();
    node.observed.others = Some([("memory", 63 << 20), ("cpu", 7900)].into());
    node.run(30);
    assert_eq!(condition(&node, "PodResizePending"), None);
    assert_eq!(node.order_of(&["resize"]).len(), 1);
}

#[test]
fn neither_a_class_nor_a_limit_is_lost() {
    for (without, message) in [
        (r#""cpu":"1""#, "can't be taken away from a pod that runs"),
        (
            r#""requests":{"cpu":"100m"},"limits":{"cpu":"1","memory":"10Mi"}"#,
            "QoS class",
        ),
    ] {
        let mut node = Simulator::new(ONE);
        node.run(5);
        let spec = match without {
            limit if limit.starts_with(r#""cpu"#) => ONE.replace(r#""memory":"10Mi""#, "").replace(",}", "}"),
            resources => ONE.replace(r#""limits":{"cpu":"1","memory":"10Mi"}"#, resources),
        };
        let mut after = crate::testing::pod(&spec);
        crate::defaulting::default_pod(&mut after);
        node.change(|pod| pod.spec = after.spec);
        node.run(20);
        let pending = condition(&node, "PodResizePending").unwrap();
        assert!(
            pending.message.as_deref().unwrap().contains(message),
            "{pending:?}"
        );
        assert!(node.order_of(&["resize", "group"]).is_empty());
    }
}

#[test]
fn a_resize_that_fails_says_so_and_is_tried_again() {
    let mut node = Simulator::new(ONE)
        .fail("ResizeContainer", 2)
        .disturb(10, Disturbance::Resize(20));
    node.run(15);
    let progress = condition(&node, "PodResizeInProgress").unwrap();
    assert_eq!(
        (progress.reason.as_deref(), progress.message.as_deref()),
        (Some("Error"), Some("it failed"))
    );
    let status = node.status.as_ref().unwrap();
    let actual = status.container_statuses.as_ref().unwrap()[0]
        .resources
        .as_ref()
        .unwrap();
    assert_eq!(actual.limits.as_ref().unwrap()["memory"].0, "10Mi");
    node.run(100);
    assert_eq!(node.seconds_of("resize"), [30]);
    assert_eq!(condition(&node, "PodResizeInProgress"), None);
}

#[test]
fn a_resize_outlives_the_daemon() {
    let mut node = Simulator::new(PAIR)
        .fail("ResizePod", 1)
        .disturb(10, Disturbance::Resize(20))
        .disturb(11, Disturbance::RestartDaemon);
    node.run(100);
    assert_eq!(node.order_of(&["resize", "stop"]).len(), 2);
    assert_eq!(condition(&node, "PodResizeInProgress"), None);
}

#[test]
fn containers_without_limits_have_those_of_their_pod() {
    let spec =
        r#"{"resources":{"limits":{"cpu":"1","memory":"10Mi"}},"containers":[{"name":"a","image":"i:1"}]}"#;
    let mut node = Simulator::new(spec)
        .disturb(10, Disturbance::Resize(20))
        .disturb(20, Disturbance::Resize(5));
    node.run(100);
    assert_eq!(
        node.order_of(&["group", "resize"]),
        [
            format!("group Some(200000) {}", mebibytes(20)),
            format!("resize a Some(200000) {}", mebibytes(20)),
            // Its weight, which no container depends on.
            format!("group Some(200000) {}", mebibytes(20)),
            format!("resize a Some(50000) {}", mebibytes(5)),
            format!("group Some(50000) {}", mebibytes(5)),
        ]
    );
    let status = node.status.as_ref().unwrap();
    assert_eq!(status.allocated_resources.as_ref().unwrap()["cpu"].0, "500m");
    let container = &status.container_statuses.as_ref().unwrap()[0];
    assert_eq!(
        container.resources.as_ref().and_then(|own| own.limits.clone()),
        None
    );
}

#[test]
fn a_container_that_is_never_started_again_is_resized_as_it_runs() {
    let spec = PAIR.replacen('{', r#"{"restartPolicy":"Never","#, 1);
    let mut node = Simulator::new(&spec).disturb(10, Disturbance::Resize(20));
    node.run(100);
    assert_eq!(node.order_of(&["start", "stop"]), ["start a 0", "start b 0"]);
    assert_eq!(node.stale(), Vec::<String>::new());
}

#[test]
fn a_status_says_what_the_group_has_and_since_when_it_is_not_what_was_asked_for() {
    let mut node = Simulator::new(ONE)
        .fail("ResizePod", 2)
        .disturb(10, Disturbance::Resize(20));
    let limit = |node: &Simulator| {
        let status = node.status.clone().unwrap();
        status.resources.unwrap().limits.unwrap()["memory"].0.clone()
    };
    node.run(12);
    assert_eq!(limit(&node), "10Mi");
    let first = condition(&node, "PodResizeInProgress").unwrap();
    assert_eq!(first.last_probe_time, first.last_transition_time);
    assert!(first.last_probe_time.is_some());
    node.run(15);
    // It fails again, which is nothing new.
    assert_eq!(condition(&node, "PodResizeInProgress").unwrap(), first);
    node.run(100);
    assert_eq!(limit(&node), "20Mi");
}

#[test]
fn a_wish_that_comes_while_another_is_being_fulfilled_keeps_the_order() {
    // The group is being narrowed when the container is to have more again, and the container widened when it is to have less.
    for (durations, wishes) in [
        (vec![0, 3], [1, 13]),
        (vec![3, 0], [1, 13]),
        (vec![0, 3], [30, 1]),
        (vec![3, 0], [30, 1]),
    ] {
        let [first, then] = wishes.map(Disturbance::Resize);
        let mut node = Simulator::new(ONE).disturb(20, first).disturb(22, then);
        node.durations = durations;
        node.run(100);
        let last = node.observed.sizes.as_ref().unwrap();
        assert_eq!(
            last.group.memory_limit,
            Some(i64::from(wishes[1]) << 20),
            "{wishes:?}"
        );
        assert_eq!(condition(&node, "PodResizeInProgress"), None);
    }
}
