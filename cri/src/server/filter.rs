//! Which objects a list request asks for: those for which every criterion holds.

use std::collections::{BTreeMap, HashMap};

use crate::types::{ContainerStatus, PodSandboxStatus};
use crate::v1;

/// Whether a sandbox is asked for.
pub(super) fn sandbox(filter: Option<&v1::PodSandboxFilter>, sandbox: &PodSandboxStatus) -> bool {
    let Some(filter) = filter else { return true };
    let ready = filter
        .state
        .as_ref()
        .map(|wanted| wanted.state() == v1::PodSandboxState::SandboxReady);
    sandbox.id.0.starts_with(&filter.id)
        && ready.is_none_or(|ready| ready == sandbox.ready)
        && has_labels(&filter.label_selector, &sandbox.config.labels)
}

/// Whether a container is asked for.
pub(super) fn container(filter: Option<&v1::ContainerFilter>, container: &ContainerStatus) -> bool {
    let Some(filter) = filter else { return true };
    let state = filter.state.as_ref().map(v1::ContainerStateValue::state);
    container.id.0.starts_with(&filter.id)
        && container.sandbox.0.starts_with(&filter.pod_sandbox_id)
        && state.is_none_or(|state| state == super::view::container_state(container.state))
        && has_labels(&filter.label_selector, &container.config.labels)
}

/// Whether a container's stats are asked for.
pub(super) fn container_stats(
    filter: Option<&v1::ContainerStatsFilter>,
    container: &ContainerStatus,
) -> bool {
    let Some(filter) = filter else { return true };
    container.id.0.starts_with(&filter.id)
        && container.sandbox.0.starts_with(&filter.pod_sandbox_id)
        && has_labels(&filter.label_selector, &container.config.labels)
}

/// Whether a sandbox's stats are asked for.
pub(super) fn sandbox_stats(filter: Option<&v1::PodSandboxStatsFilter>, sandbox: &PodSandboxStatus) -> bool {
    let Some(filter) = filter else { return true };
    sandbox.id.0.starts_with(&filter.id) && has_labels(&filter.label_selector, &sandbox.config.labels)
}

fn has_labels(wanted: &HashMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{PodSandboxConfig, SandboxId};

    fn web() -> PodSandboxStatus {
        PodSandboxStatus {
            id: SandboxId("abc".into()),
            config: PodSandboxConfig {
                labels: BTreeMap::from([("app".into(), "web".into()), ("tier".into(), "front".into())]),
                ..Default::default()
            },
            ready: true,
            created_at: 1,
            ips: Vec::new(),
        }
    }

    #[test]
    fn every_criterion_has_to_hold() {
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect::<HashMap<_, _>>()
        };
        let state = |state: v1::PodSandboxState| Some(v1::PodSandboxStateValue { state: state.into() });
        let table = [
            ("", None, labels(&[]), true),
            ("ab", None, labels(&[]), true),
            ("b", None, labels(&[]), false),
            (
                "",
                state(v1::PodSandboxState::SandboxReady),
                labels(&[("app", "web")]),
                true,
            ),
            (
                "",
                state(v1::PodSandboxState::SandboxNotready),
                labels(&[]),
                false,
            ),
            ("", None, labels(&[("app", "web"), ("tier", "back")]), false),
            ("", None, labels(&[("other", "")]), false),
        ];
        for (id, state, label_selector, expected) in table {
            let filter = v1::PodSandboxFilter {
                id: id.into(),
                state,
                label_selector,
            };
            assert_eq!(sandbox(Some(&filter), &web()), expected, "{filter:?}");
        }
        assert!(sandbox(None, &web()));
    }
}
