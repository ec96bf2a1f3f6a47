//! Steps that take the place of others, and when to look again.

use super::*;

#[test]
fn the_next_look_is_the_earliest_that_is_wanted() {
    for (first, second) in [(5, 9), (9, 5)] {
        let mut plan = Plan::default();
        crate::plan::termination::wake(&mut plan, first);
        crate::plan::termination::wake(&mut plan, second);
        assert_eq!(plan.wake_at, Some(5));
    }
}

#[test]
fn a_step_is_superseded_by_one_with_less_time() {
    let hook = |deadline| Step::RunHook {
        id: id("c", 0),
        name: "c".into(),
        kind: HookKind::PreStop,
        handler: Default::default(),
        deadline,
    };
    let stop = |deadline| Step::StopContainer {
        id: id("c", 0),
        name: "c".into(),
        timeout: Duration::ZERO,
        deadline,
        reason: KillReason::PodDeleted,
    };
    // A hook's deadline of 0 is never.
    for (new, old, expected) in [
        (5, 9, true),
        (9, 5, false),
        (5, 5, false),
        (5, 0, true),
        (0, 5, false),
        (0, 0, false),
    ] {
        assert_eq!(hook(new).supersedes(&hook(old)), expected, "{new} {old}");
    }
    for (new, old, expected) in [(5, 9, true), (9, 5, false), (5, 5, false)] {
        assert_eq!(stop(new).supersedes(&stop(old)), expected, "{new} {old}");
    }
    assert!(!Step::SetUpVolumes.supersedes(&Step::SetUpVolumes));
}

/// All else is left to come to its end: half of it would have to be found and undone.
#[test]
fn only_pulls_and_hooks_are_broken_off() {
    let sandbox = || SandboxId("s0".into());
    for (key, expected) in [
        (StepKey::PullImage("i".into()), true),
        (StepKey::RunHook(id("c", 0), HookKind::PostStart), true),
        (StepKey::RunHook(id("c", 0), HookKind::PreStop), true),
        (StepKey::SetUpVolumes, false),
        (StepKey::RunSandbox(0), false),
        (StepKey::StopSandbox(sandbox()), false),
        (StepKey::RemoveSandbox(sandbox()), false),
        (start_of("c", 0), false),
        (StepKey::StopContainer(id("c", 0)), false),
        (StepKey::RemoveContainer(id("c", 0)), false),
        (StepKey::ResizePod, false),
        (StepKey::TearDownVolumes, false),
        (StepKey::RemoveCgroup, false),
    ] {
        assert_eq!(key.is_cancellable(), expected, "{key:?}");
    }
}
