//! Limits: what they mean on this host, and how they change.

use std::fs;
use std::path::Path;

use berth_runtime::cgroups::Cgroup;
use berth_shim::protocol::Request;
use serde_json::Value;

use super::container::from_shim;
use super::records::ContainerPhase;
use super::{Container, RunState, Sandbox, lock, spec};
use crate::engine::EngineError;
use crate::types::LinuxContainerResources;

/// What of the host decides about limits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Host {
    /// Swap can be limited.
    pub(super) swap: bool,
    /// Huge pages can be limited.
    pub(super) huge_pages: bool,
}

impl Host {
    /// Looks at the control groups' hierarchies.
    pub(super) fn look() -> Self {
        let at = |name: &str| Path::new("/sys/fs/cgroup").join(name);
        let unified = ["cgroup.controllers", "unified/cgroup.controllers"]
            .iter()
            .filter_map(|name| fs::read_to_string(at(name)).ok());
        let mut controllers = unified.flat_map(|names| {
            let names: Vec<String> = names.split_whitespace().map(str::to_owned).collect();
            names
        });
        Self {
            // Version 2 has the limit in every group, or there is no swap to limit.
            swap: !at("memory").exists() || at("memory/memory.memsw.limit_in_bytes").exists(),
            huge_pages: at("hugetlb").exists() || controllers.any(|name| name == "hugetlb"),
        }
    }
}

/// The limits to set. Memory that is limited is not to be had as swap, unless that is asked for, as in containerd. No limit of
/// swap or of huge pages is what there is where they can't be limited.
pub(super) fn effective(asked: &LinuxContainerResources, host: Host) -> LinuxContainerResources {
    let mut limits = asked.clone();
    if limits.memory_swap_limit.is_none() {
        limits.memory_swap_limit = limits.memory_limit;
    }
    if !host.swap && limits.memory_swap_limit == limits.memory_limit {
        limits.memory_swap_limit = None;
    }
    if !host.huge_pages {
        limits.hugepage_limits.retain(|_, limit| *limit != 0);
    }
    limits
}

/// What is not said stays as it is. A new limit of memory is one of swap too, as at the beginning.
fn merge(old: &LinuxContainerResources, new: &LinuxContainerResources) -> LinuxContainerResources {
    let mut merged = old.clone();
    macro_rules! take {
        ($($field:ident)*) => {
            $(if new.$field.is_some() { merged.$field.clone_from(&new.$field); })*
        };
    }
    if new.memory_limit.is_some() {
        merged.memory_swap_limit = None;
    }
    take!(cpu_shares cpu_quota cpu_period memory_limit memory_swap_limit cpuset_cpus cpuset_mems pids_limit);
    if new.oom_score_adj != 0 {
        merged.oom_score_adj = new.oom_score_adj;
    }
    merged.hugepage_limits.extend(new.hugepage_limits.clone());
    merged.unified.extend(new.unified.clone());
    merged
}

/// Changes the limits of a container. Of one that has ended only the record changes.
pub(super) async fn update(
    sandbox: &Sandbox,
    container: &Container,
    new: LinuxContainerResources,
) -> Result<(), EngineError> {
    let _changing = container.limits.lock().await;
    let record = lock(&container.record).clone();
    if record.phase != ContainerPhase::Created {
        return Err(EngineError::FailedPrecondition(format!(
            "The limits of container {} can't be changed: it is being made, or removed.",
            container.id
        )));
    }
    let merged = merge(&record.config.resources, &new);
    let state = container.run.borrow().clone();
    if let RunState::Created { pid } | RunState::Running { pid } = state {
        let limits = spec::limits(&effective(&merged, Host::look()));
        let request = Request::Update {
            container: container.id.0.clone(),
            resources: Value::Object(limits),
        };
        let reply = sandbox.live_shim()?.client.call(request).await;
        // One that ended meanwhile needs no limits.
        if let Err(failure) = reply
            && !container.has_ended()
        {
            return Err(from_shim(&record, "changed", failure));
        }
        if merged.oom_score_adj != record.config.resources.oom_score_adj {
            set_oom_scores(sandbox, container, pid, merged.oom_score_adj)?;
        }
    }
    container.update_record(&sandbox.dirs, |record| record.config.resources = merged)
}

/// What the caller has given the pod's own group, for those who ask.
pub(super) fn update_pod(
    sandbox: &Sandbox,
    overhead: Option<LinuxContainerResources>,
    resources: Option<LinuxContainerResources>,
) -> Result<(), EngineError> {
    sandbox.update_record(|record| {
        record.config.overhead = overhead;
        record.config.resources = resources;
    })
}

/// Of all processes that there are; those to come inherit it. A process that ends meanwhile needs none.
fn set_oom_scores(
    sandbox: &Sandbox,
    container: &Container,
    first: i32,
    value: i32,
) -> Result<(), EngineError> {
    let failed = |error: &dyn std::fmt::Display| {
        EngineError::Internal(format!(
            "The oom_score_adj of container {} can't be set to {value}: {error}",
            container.id
        ))
    };
    let cgroup = sandbox.place_of(&container.id).path;
    let group = Cgroup::open(&cgroup.to_string_lossy()).map_err(|error| failed(&error))?;
    let pids = group.map_or_else(|| Ok(Vec::new()), |group| group.pids());
    let pids = pids.map_err(|error| failed(&error))?;
    for pid in pids.iter().map(|pid| pid.as_raw()).chain([first]) {
        match fs::write(format!("/proc/{pid}/oom_score_adj"), value.to_string()) {
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                // Without CAP_SYS_RESOURCE no lower value than the engine's own can be set, at the start neither.
                tracing::warn!("{}", failed(&error));
                return Ok(());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const ALL: Host = Host {
        swap: true,
        huge_pages: true,
    };

    fn memory(limit: Option<i64>, swap: Option<i64>) -> LinuxContainerResources {
        LinuxContainerResources {
            memory_limit: limit,
            memory_swap_limit: swap,
            ..Default::default()
        }
    }

    #[test]
    fn swap_is_asked_for() {
        let without = Host { swap: false, ..ALL };
        let table = [
            (memory(None, None), ALL, None),
            (memory(Some(5), None), ALL, Some(5)),
            (memory(Some(5), Some(7)), ALL, Some(7)),
            (memory(Some(5), Some(-1)), ALL, Some(-1)),
            (memory(Some(5), None), without, None),
            (memory(Some(5), Some(5)), without, None),
            // This one is the runtime's to refuse.
            (memory(Some(5), Some(7)), without, Some(7)),
        ];
        for (asked, host, swap) in table {
            assert_eq!(
                effective(&asked, host).memory_swap_limit,
                swap,
                "{asked:?} {host:?}"
            );
        }
    }

    #[test]
    fn no_huge_pages_can_always_be_had() {
        let asked = LinuxContainerResources {
            hugepage_limits: BTreeMap::from([("2MB".to_owned(), 0), ("1GB".to_owned(), 1 << 30)]),
            ..Default::default()
        };
        assert_eq!(effective(&asked, ALL).hugepage_limits.len(), 2);
        let without = Host {
            huge_pages: false,
            ..ALL
        };
        let left = effective(&asked, without).hugepage_limits;
        assert_eq!(left.into_keys().collect::<Vec<_>>(), ["1GB"]);
    }

    #[test]
    fn what_is_not_said_stays() {
        let old = LinuxContainerResources {
            cpu_shares: Some(100),
            cpu_quota: Some(1000),
            memory_limit: Some(5),
            memory_swap_limit: Some(6),
            oom_score_adj: 9,
            unified: BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "1".to_owned())]),
            ..Default::default()
        };
        assert_eq!(merge(&old, &LinuxContainerResources::default()), old);
        let new = LinuxContainerResources {
            cpu_quota: Some(-1),
            memory_limit: Some(10),
            cpuset_cpus: Some("0".into()),
            unified: BTreeMap::from([("b".to_owned(), "2".to_owned())]),
            ..Default::default()
        };
        let merged = merge(&old, &new);
        assert_eq!((merged.cpu_shares, merged.cpu_quota), (Some(100), Some(-1)));
        assert_eq!((merged.memory_limit, merged.memory_swap_limit), (Some(10), None));
        assert_eq!(merged.oom_score_adj, 9);
        assert_eq!(
            (merged.unified["a"].as_str(), merged.unified["b"].as_str()),
            ("1", "2")
        );
    }
}
