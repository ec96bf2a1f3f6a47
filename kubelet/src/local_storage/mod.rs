//! What a pod may take on the node's disks, and what it takes: `sizeLimit` of emptyDir volumes, and limits of
//! `ephemeral-storage`. A pod that exceeds one of them is evicted.
//!
//! A file system tells nobody how much a directory holds, so pods that have such limits are measured again and again; others
//! never are.

mod usage;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, Volume};

pub(crate) use usage::measure;

use crate::defaults::SYSTEM_CRITICAL_PRIORITY;
use crate::quantity::{Form, Value, value_of};
use crate::resources::{limit, pod_total};
use crate::{pod_resources, spec};

/// The resource.
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What a pod takes, in bytes on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Of its volumes, those that were measured.
    pub(crate) volumes: BTreeMap<String, u64>,
    /// Of its running containers: their writable layers and their logs.
    pub(crate) containers: BTreeMap<String, u64>,
    /// Of what is the pod's and no container's: `/etc/hosts`.
    pub(crate) own: u64,
}

/// The limits of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Of emptyDir volumes on disk, by their names; in the pod's order.
    volumes: Vec<(String, Limit)>,
    /// Of the pod as a whole.
    pod: Option<Limit>,
    /// Of containers, by their names; in the pod's order.
    containers: Vec<(String, Limit)>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Limit {
    bytes: u64,
    /// As upstream writes it.
    shown: String,
}

impl Limit {
    /// None if it is nothing: zero does not limit.
    fn new(value: Value, form: Form) -> Option<Self> {
        let bytes = u64::try_from(value.as_units()).ok().filter(|bytes| *bytes > 0)?;
        let shown = value.show(form);
        Some(Limit { bytes, shown })
    }

    fn is_exceeded(&self, used: Option<u64>) -> bool {
        used.is_some_and(|used| used > self.bytes)
    }
}

impl Limits {
    /// A pod's limits; `None` if it has none, or is so important that it is not evicted (IsCriticalPod).
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        if spec
            .priority
            .is_some_and(|priority| priority >= SYSTEM_CRITICAL_PRIORITY)
        {
            return None;
        }
        let volumes = spec.volumes.iter().flatten();
        let limits = Limits {
            volumes: volumes
                .filter_map(|volume| Some((volume.name.clone(), of_volume(volume)?)))
                .collect(),
            pod: of_pod(pod),
            containers: spec::all_containers(pod)
                .filter_map(|(container, _)| Some((container.name.clone(), of_container(container)?)))
                .collect(),
        };
        let none = limits.volumes.is_empty() && limits.pod.is_none() && limits.containers.is_empty();
        (!none).then_some(limits)
    }

    /// What the pod exceeds, in upstream's words; the first that upstream would find. `None` if nothing.
    pub(crate) fn exceeded(&self, usage: &Usage) -> Option<String> {
        for (name, limit) in &self.volumes {
            if limit.is_exceeded(usage.volumes.get(name).copied()) {
                let shown = &limit.shown;
                return Some(format!(
                    "Usage of EmptyDir volume \"{name}\" exceeds the limit \"{shown}\". "
                ));
            }
        }
        let parts = usage.volumes.values().chain(usage.containers.values());
        let total = parts.fold(usage.own, |sum, part| sum.saturating_add(*part));
        if let Some(limit) = self.pod.as_ref().filter(|limit| limit.is_exceeded(Some(total))) {
            let shown = &limit.shown;
            return Some(format!(
                "Pod ephemeral local storage usage exceeds the total limit of containers {shown}. "
            ));
        }
        for (name, limit) in &self.containers {
            if limit.is_exceeded(usage.containers.get(name).copied()) {
                let shown = &limit.shown;
                return Some(format!(
                    "Container {name} exceeded its local ephemeral storage limit \"{shown}\". "
                ));
            }
        }
        None
    }

    /// Whether a volume is to be measured.
    fn counts(&self, volume: &str) -> bool {
        self.pod.is_some() || self.volumes.iter().any(|(name, _)| name == volume)
    }

    /// Whether containers are to be measured.
    fn counts_containers(&self) -> bool {
        self.pod.is_some() || !self.containers.is_empty()
    }
}

/// A volume in memory or of huge pages is limited by its file system.
fn of_volume(volume: &Volume) -> Option<Limit> {
    let source = volume.empty_dir.as_ref()?;
    let on_disk = source.medium.as_deref().unwrap_or_default().is_empty();
    let size = source.size_limit.as_ref().filter(|_| on_disk)?;
    Limit::new(value_of(size), Form::of(&size.0))
}

fn of_container(container: &Container) -> Option<Limit> {
    Limit::new(limit(container, EPHEMERAL_STORAGE)?, form(container)?)
}

/// The sum of those containers' limits that have one, if any has.
fn of_pod(pod: &Pod) -> Option<Limit> {
    let mains = spec::containers(pod).iter();
    let form = mains.chain(spec::init_containers(pod)).find_map(form)?;
    let sum = pod_total(pod, EPHEMERAL_STORAGE, |container, resource| {
        limit(container, resource).unwrap_or_default()
    });
    Limit::new(sum.plus(pod_resources::overhead(pod, EPHEMERAL_STORAGE)), form)
}

/// How the container's limit is written.
fn form(container: &Container) -> Option<Form> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    Some(Form::of(&limits.get(EPHEMERAL_STORAGE)?.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    const POD: &str = r#"{
        "volumes":[{"name":"free","emptyDir":{}},{"name":"v","emptyDir":{"sizeLimit":"1024Ki"}},
            {"name":"ram","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}],
        "initContainers":[{"name":"i","image":"i","resources":{"limits":{"ephemeral-storage":"2M"}}}],
        "containers":[{"name":"a","image":"i","resources":{"limits":{"ephemeral-storage":"2Mi"}}},
            {"name":"b","image":"i"},
            {"name":"c","image":"i","resources":{"limits":{"ephemeral-storage":"4096Ki"}}}]}"#;

    fn used(volumes: &[(&str, u64)], containers: &[(&str, u64)]) -> Usage {
        let map = |of: &[(&str, u64)]| {
            of.iter()
                .map(|(name, bytes)| ((*name).to_owned(), *bytes))
                .collect()
        };
        Usage {
            volumes: map(volumes),
            containers: map(containers),
            own: 4096,
        }
    }

    #[test]
    fn limits_of_local_storage_are_upstream_s() {
        const MI: u64 = 1 << 20;
        let limits = Limits::of(&pod(POD)).unwrap();
        for (usage, expected) in [
            (Usage::default(), None),
            (used(&[("v", MI)], &[("b", 4 * MI)]), None),
            (
                used(&[("v", MI + 1)], &[("a", 99 * MI)]),
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
            ),
            (
                used(&[("free", 2 * MI)], &[("a", 2 * MI), ("b", 2 * MI)]),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 6Mi. "),
            ),
            (used(&[], &[("a", 2 * MI), ("b", 3 * MI)]), None),
            (
                used(&[], &[("a", 2 * MI + 1)]),
                Some("Container a exceeded its local ephemeral storage limit \"2Mi\". "),
            ),
            (
                used(&[], &[("i", 2_000_001)]),
                Some("Container i exceeded its local ephemeral storage limit \"2M\". "),
            ),
        ] {
            assert_eq!(limits.exceeded(&usage).as_deref(), expected, "{usage:?}");
        }
    }

    #[test]
    fn who_has_no_limit_is_not_measured() {
        for spec in [
            r#"{"containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","emptyDir":{}}]}"#,
            r#"{"containers":[{"name":"c","image":"i","resources":{"limits":{"ephemeral-storage":"0"}}}]}"#,
            r#"{"containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","emptyDir":{"sizeLimit":"0"}}]}"#,
            r#"{"containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","emptyDir":{"medium":"Memory","sizeLimit":"1Mi"}}]}"#,
        ] {
            assert_eq!(Limits::of(&pod(spec)), None, "{spec}");
        }
        let critical = POD.replacen('{', r#"{"priority":2000000000,"#, 1);
        assert_eq!(Limits::of(&pod(&critical)), None);
        let least = POD.replacen('{', r#"{"priority":1999999999,"#, 1);
        assert!(Limits::of(&pod(&least)).is_some());
    }

    #[test]
    fn what_no_limit_is_about_is_not_measured() {
        let one = r#"{"containers":[{"name":"c","image":"i"}],
            "volumes":[{"name":"free","emptyDir":{}},{"name":"v","emptyDir":{"sizeLimit":"1Mi"}}]}"#;
        let limits = Limits::of(&pod(one)).unwrap();
        assert!(limits.counts("v") && !limits.counts("free") && !limits.counts_containers());
        let limits = Limits::of(&pod(POD)).unwrap();
        assert!(limits.counts("free") && limits.counts_containers());
    }
}
