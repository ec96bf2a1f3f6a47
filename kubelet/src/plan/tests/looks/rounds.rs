//! Whose turn it is, in a sandbox and in a round.

use super::*;

#[test]
fn a_sandbox_replaces_what_was_before_it() {
    let look = Look::new(&policy("Always")).sandbox(0, false);
    assert_eq!(look.steps(5), ["sandbox 1 for s0"]);
    // It shows before it is ready.
    let look = look.sandbox(1, false).in_flight(StepKey::RunSandbox(1));
    assert_eq!(look.steps(5), ["sandbox 1 for s0"]);
}

#[test]
fn earlier_sandboxes_go_when_nothing_is_in_them() {
    let look = |look: Look| look.sandbox(0, false).sandbox(1, true);
    let c = r#"{"restartPolicy":"OnFailure","containers":[{"name":"c","image":"i:1"},{"name":"d","image":"i:1"}]}"#;
    let in_new = |look: Look| {
        look.running("d", 1)
            .with(|record| record.sandbox = SandboxId("s1".into()))
    };
    // What is done is not done again in the new one.
    let done = in_new(look(Look::new(c).ended("c", 0, 0, 2)));
    assert_eq!(done.steps(5), NOTHING);
    let empty = in_new(look(Look::new(c)));
    assert_eq!(empty.steps(5), ["remove-sandbox s0", "start c 0 in s1"]);
    // What still runs in the old one is ended with it, and not looked after.
    let left = in_new(look(Look::new(c).running("c", 0)));
    assert_eq!(left.steps(5), ["stop-sandbox s0"]);
    assert_eq!(left.at(5).spared, [id("d", 1)]);
    // Of two that are ready, the newer one counts.
    let two = Look::new(c).sandbox(1, true);
    assert_eq!(
        two.steps(5),
        ["stop-sandbox s0", "start c 0 in s1", "start d 0 in s1"]
    );
}

/// `a` ended with what restarts all, `b` is beside it.
fn restarting_all() -> Look {
    let spec = r#"{"containers":[{"name":"a","image":"i:1","restartPolicy":"Never","restartPolicyRules":[
            {"action":"RestartAllContainers","exitCodes":{"operator":"In","values":[42]}}]},
        {"name":"b","image":"i:1"}]}"#;
    Look::new(spec).ended("a", 0, 42, 2)
}

#[test]
fn a_round_begins_when_nothing_is_left_of_the_last() {
    let both = ["start a 1 in s0", "start b 1 in s0"];
    let over = || restarting_all().ended("b", 0, 143, 3);
    assert_eq!(over().steps(5), both);
    assert_eq!(over().running("x", 0).steps(5), ["stop x-0 2"], "whatever it is");
    // It may still come to run: with a record, and before there is one.
    let starting = over().in_flight(start_of("b", 1));
    assert_eq!(starting.steps(5), NOTHING);
    let starting = starting.record("b", 1, ContainerState::Created);
    assert_eq!(starting.steps(5), NOTHING);
    // One that never ran goes, and its successor has another number.
    let never = restarting_all().record("b", 0, ContainerState::Created);
    assert_eq!(
        never.steps(5),
        ["remove b-0", "start a 1 in s0", "start b 1 in s0"]
    );
}

#[test]
fn only_an_end_that_was_seen_and_that_nobody_asked_for_restarts_all() {
    let unseen = restarting_all().with(|record| record.state = ContainerState::Unknown);
    assert_eq!(unseen.running("b", 0).steps(5), ["start a 1 in s0"]);
    let asked = restarting_all().asked_anew(id("a", 0), 1).running("b", 0);
    assert_eq!(asked.steps(5), ["start a 1 in s0"]);
    // Of the round before, it has done so already.
    let again = restarting_all().running("b", 1).annotated(ROUND, "1");
    assert_eq!(again.steps(5), ["start a 1 in s0"]);
}

/// One that is ended for another's sake keeps the pauses that it has earned, without one for this end.
#[test]
fn pauses_outlive_a_restart_of_all() {
    let look = restarting_all()
        .ended("b", 0, 143, 3)
        .annotated(RESTARTS_IN_A_ROW, "4");
    assert_eq!(
        started_with(&look.at(5), "b")
            .get(RESTARTS_IN_A_ROW)
            .map(String::as_str),
        Some("4")
    );
}

const INITS: &str = r#"{"initContainers":[{"name":"i","image":"i:1"},{"name":"j","image":"i:1"}],
    "containers":[{"name":"c","image":"i:1"}]}"#;

/// Somebody may have removed what is left of an init container.
#[test]
fn init_containers_whose_part_is_done_do_not_run_again() {
    assert_eq!(Look::new(INITS).running("c", 0).steps(5), NOTHING);
    assert_eq!(Look::new(INITS).running("j", 0).steps(5), NOTHING);
    assert_eq!(Look::new(INITS).ended("i", 0, 0, 2).steps(5), ["start j 0 in s0"]);
}

#[test]
fn what_waits_in_a_pod_with_init_containers_waits_for_them() {
    let plan = Look::new(INITS).at(5);
    for name in ["i", "j", "c"] {
        assert_eq!(plan.waiting[name].reason, Reason::PodInitializing, "{name}");
    }
    let plan = Look::new(&policy("Always")).at(5);
    assert_eq!(plan.waiting["c"].reason, Reason::ContainerCreating);
}

#[test]
fn an_ephemeral_container_waits_for_the_one_that_it_is_to_see() {
    let spec = r#"{"containers":[{"name":"a","image":"i:1"}],"ephemeralContainers":[
        {"name":"look","image":"i:1","targetContainerName":"a"}]}"#;
    let look = Look::new(spec).record("a", 0, ContainerState::Created);
    assert_eq!(look.steps(5), ["start a 0 in s0"]);
    assert_eq!(Look::new(spec).running("a", 0).steps(5), ["start look 0 in s0"]);
}
