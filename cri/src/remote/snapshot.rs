//! What there was in a runtime when it was last looked at, and what two looks say has happened between them.

use std::collections::BTreeMap;

use crate::types::{ContainerId, ContainerState, EngineEventKind, SandboxId};

/// A sandbox as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SandboxSeen {
    pub(super) pod_uid: String,
    pub(super) ready: bool,
}

/// A container as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContainerSeen {
    pub(super) sandbox: SandboxId,
    pub(super) state: ContainerState,
}

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Snapshot {
    pub(super) sandboxes: BTreeMap<SandboxId, SandboxSeen>,
    pub(super) containers: BTreeMap<ContainerId, ContainerSeen>,
}

/// Something that happened in a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Happened {
    pub(super) pod_uid: String,
    pub(super) sandbox: SandboxId,
    pub(super) kind: EngineEventKind,
}

fn has_ended(state: ContainerState) -> bool {
    matches!(state, ContainerState::Exited | ContainerState::Unknown)
}

/// The events of a container that was in one state (`None`: not there) and is in another.
fn steps(id: &ContainerId, before: Option<ContainerState>, after: ContainerState) -> Vec<EngineEventKind> {
    let mut steps = Vec::new();
    if before.is_none() {
        steps.push(EngineEventKind::ContainerCreated(id.clone()));
    }
    let waiting = before.is_none_or(|state| state == ContainerState::Created);
    if waiting && after == ContainerState::Running {
        steps.push(EngineEventKind::ContainerStarted(id.clone()));
    }
    if !before.is_some_and(has_ended) && has_ended(after) {
        steps.push(EngineEventKind::ContainerExited(id.clone()));
    }
    steps
}

impl Snapshot {
    fn uid(&self, sandbox: &SandboxId) -> String {
        self.sandboxes
            .get(sandbox)
            .map_or_else(String::new, |seen| seen.pod_uid.clone())
    }

    /// Takes over what was seen later. What has happened comes in an order in which it can have happened: sandboxes that
    /// were there before those that are new, a sandbox before what is in it, and its end after all of that.
    pub(super) fn advance(&mut self, later: Snapshot) -> Vec<Happened> {
        let before = std::mem::replace(self, later);
        let mut happened = Vec::new();
        let old = before.sandboxes.keys();
        let new = self
            .sandboxes
            .keys()
            .filter(|id| !before.sandboxes.contains_key(*id));
        for id in old.chain(new) {
            let pod_uid = match before.sandboxes.get(id) {
                Some(seen) => seen.pod_uid.clone(),
                None => self.uid(id),
            };
            let mut tell = |kind| {
                happened.push(Happened {
                    pod_uid: pod_uid.clone(),
                    sandbox: id.clone(),
                    kind,
                });
            };
            let was = before.sandboxes.get(id).map(|seen| seen.ready);
            let is = self.sandboxes.get(id).map(|seen| seen.ready);
            if was != Some(true) && is == Some(true) {
                tell(EngineEventKind::SandboxStarted);
            }
            for (container, seen) in before.containers.iter().filter(|(_, seen)| seen.sandbox == *id) {
                match self.containers.get(container) {
                    Some(now) => steps(container, Some(seen.state), now.state)
                        .into_iter()
                        .for_each(&mut tell),
                    None => {
                        if !has_ended(seen.state) {
                            tell(EngineEventKind::ContainerExited(container.clone()));
                        }
                        tell(EngineEventKind::ContainerRemoved(container.clone()));
                    }
                }
            }
            let added = self.containers.iter().filter(|(container, seen)| {
                seen.sandbox == *id && !before.containers.contains_key(*container)
            });
            for (container, seen) in added {
                steps(container, None, seen.state).into_iter().for_each(&mut tell);
            }
            if was == Some(true) && is != Some(true) {
                tell(EngineEventKind::SandboxStopped);
            }
            if was.is_some() && is.is_none() {
                tell(EngineEventKind::SandboxRemoved);
            }
        }
        happened
    }

    /// Takes over that a container is in that state now. Nothing has happened if it was known, or is told too late.
    pub(super) fn container_is(
        &mut self,
        id: &ContainerId,
        sandbox: &SandboxId,
        state: ContainerState,
    ) -> Vec<Happened> {
        let before = self.containers.get(id).map(|seen| seen.state);
        let known = before.is_some_and(|before| rank(before) >= rank(state));
        if known {
            return Vec::new();
        }
        let seen = ContainerSeen {
            sandbox: sandbox.clone(),
            state,
        };
        self.containers.insert(id.clone(), seen);
        let pod_uid = self.uid(sandbox);
        steps(id, before, state)
            .into_iter()
            .map(|kind| Happened {
                pod_uid: pod_uid.clone(),
                sandbox: sandbox.clone(),
                kind,
            })
            .collect()
    }

    /// Takes over that a container is gone.
    pub(super) fn container_is_gone(&mut self, id: &ContainerId) -> Vec<Happened> {
        let mut later = self.clone();
        later.containers.remove(id);
        self.advance(later)
    }

    /// Takes over what a sandbox is now; `None`: it is gone.
    pub(super) fn sandbox_is(&mut self, id: &SandboxId, seen: Option<SandboxSeen>) -> Vec<Happened> {
        let mut later = self.clone();
        match seen {
            Some(seen) => drop(later.sandboxes.insert(id.clone(), seen)),
            None => {
                later.sandboxes.remove(id);
                later.containers.retain(|_, container| container.sandbox != *id);
            }
        }
        self.advance(later)
    }
}

/// A container never goes back.
fn rank(state: ContainerState) -> u8 {
    match state {
        ContainerState::Created => 0,
        ContainerState::Running => 1,
        ContainerState::Exited | ContainerState::Unknown => 2,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use EngineEventKind as Kind;

    fn id(name: &str) -> ContainerId {
        ContainerId(name.into())
    }

    fn seen(sandboxes: &[(&str, bool)], containers: &[(&str, &str, ContainerState)]) -> Snapshot {
        Snapshot {
            sandboxes: sandboxes
                .iter()
                .map(|(id, ready)| {
                    let seen = SandboxSeen {
                        pod_uid: "u".into(),
                        ready: *ready,
                    };
                    (SandboxId((*id).into()), seen)
                })
                .collect(),
            containers: containers
                .iter()
                .map(|(name, sandbox, state)| {
                    let seen = ContainerSeen {
                        sandbox: SandboxId((*sandbox).into()),
                        state: *state,
                    };
                    (id(name), seen)
                })
                .collect(),
        }
    }

    fn kinds(happened: Vec<Happened>) -> Vec<Kind> {
        happened.into_iter().map(|happened| happened.kind).collect()
    }

    #[test]
    fn two_looks_tell_what_happened_between_them_in_order() {
        use ContainerState::{Created, Exited, Running};
        let nothing = seen(&[], &[]);
        let fresh = seen(&[("s", true)], &[("a", "s", Running), ("b", "s", Created)]);
        let later = seen(&[("s", true)], &[("a", "s", Exited), ("b", "s", Running)]);
        let mut snapshot = nothing.clone();
        let first = kinds(snapshot.advance(fresh.clone()));
        let expected = [
            Kind::SandboxStarted,
            Kind::ContainerCreated(id("a")),
            Kind::ContainerStarted(id("a")),
            Kind::ContainerCreated(id("b")),
        ];
        assert_eq!(first, expected);
        let second = kinds(snapshot.advance(later));
        assert_eq!(
            second,
            [Kind::ContainerExited(id("a")), Kind::ContainerStarted(id("b"))]
        );
        let end = kinds(snapshot.advance(nothing));
        let expected = [
            Kind::ContainerRemoved(id("a")),
            Kind::ContainerExited(id("b")),
            Kind::ContainerRemoved(id("b")),
            Kind::SandboxStopped,
            Kind::SandboxRemoved,
        ];
        assert_eq!(end, expected);
    }

    #[test]
    fn what_is_told_twice_or_late_has_happened_once() {
        use ContainerState::{Created, Exited, Running};
        let mut snapshot = seen(&[("s", true)], &[("a", "s", Exited)]);
        let sandbox = SandboxId("s".into());
        for state in [Created, Running, Exited] {
            assert_eq!(snapshot.container_is(&id("a"), &sandbox, state), []);
        }
        let new = kinds(snapshot.container_is(&id("b"), &sandbox, Running));
        assert_eq!(
            new,
            [Kind::ContainerCreated(id("b")), Kind::ContainerStarted(id("b"))]
        );
        assert_eq!(
            kinds(snapshot.container_is_gone(&id("a"))),
            [Kind::ContainerRemoved(id("a"))]
        );
        assert_eq!(kinds(snapshot.container_is_gone(&id("a"))), []);
        let end = kinds(snapshot.sandbox_is(&sandbox, None));
        assert_eq!(end.last(), Some(&Kind::SandboxRemoved));
        assert_eq!(snapshot, seen(&[], &[]));
    }

    proptest! {
        /// However events and looks are mixed, each container is told of once a step, and in order.
        #[test]
        fn no_step_is_told_twice(path in proptest::collection::vec((0_u8..4, any::<bool>()), 0..40)) {
            let sandbox = SandboxId("s".into());
            let mut snapshot = seen(&[("s", true)], &[]);
            let mut told = Vec::new();
            let mut state = 0;
            for (now, by_look) in path {
                // A container goes on; what is told of it may be old.
                state = state.max(now);
                let look = if by_look { state } else { now };
                let states = [None, Some(ContainerState::Created), Some(ContainerState::Running), Some(ContainerState::Exited)];
                let as_it_is = states[usize::from(look)];
                let happened = match (by_look, as_it_is) {
                    (true, Some(it)) => snapshot.advance(seen(&[("s", true)], &[("a", "s", it)])),
                    (false, Some(it)) => snapshot.container_is(&id("a"), &sandbox, it),
                    (_, None) => Vec::new(),
                };
                told.extend(kinds(happened));
            }
            let order: Vec<u8> = told.iter().map(|kind| match kind {
                Kind::ContainerCreated(_) => 1,
                Kind::ContainerStarted(_) => 2,
                Kind::ContainerExited(_) => 3,
                _ => 9,
            }).collect();
            prop_assert!(order.is_sorted_by(|a, b| a < b), "{told:?}");
        }
    }
}
