//! What containers and sandboxes use: CRI's stats, from cgroup files and the pods' network namespaces.
//!
//! Everything is read when it is asked for, from the groups' files by way of their paths: a group's descriptors on a v1 host
//! would be nine of them a container, and opening costs little beside what the kernel does to sum up `memory.stat`.
//! Nothing is sampled in the background; the only thing that is kept are the two last readings of the processor time,
//! with their container. What vanishes while it is read is left out: a list never fails because of one container.

mod layer;
mod links;
mod message;
pub(super) mod metrics;
mod rate;
mod reading;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) use layer::Meter;

use super::records::SandboxPhase;
use super::{Container, Inner, RunState, Sandbox, cgroups, lock, now};
use crate::engine::EngineError;
use crate::types::{ContainerId, SandboxId, UnixNanos};
use crate::v1;
use reading::Reading;

/// What a container or a sandbox remembers of its use.
#[derive(Debug, Default)]
pub(super) struct Kept {
    rate: Mutex<rate::Rate>,
    layer: Mutex<layer::Known>,
}

impl Kept {
    /// Processor time per second; `began` is when the counter was zero.
    fn rate(&self, used: u64, began: Option<UnixNanos>) -> Option<u64> {
        let age = began.map(|began| Duration::from_nanos(now().saturating_sub(began)));
        lock(&self.rate).take(Instant::now(), used, age)
    }
}

/// What containers use. One that has ended uses nothing but its writable layer.
pub(super) async fn containers(
    inner: &Arc<Inner>,
    ids: &[ContainerId],
) -> Result<Vec<v1::ContainerStats>, EngineError> {
    let found = find(inner, ids);
    count_layers(inner, &found).await;
    let home = inner.config.lib_dir.join("sandboxes");
    blocking(move || {
        found
            .iter()
            .filter_map(|(sandbox, container)| Some(of_container(&home, sandbox, container, false)?.0))
            .collect()
    })
    .await
}

/// How many processes containers have; `None` of one that does not run.
pub(super) async fn processes(
    inner: &Arc<Inner>,
    ids: &[ContainerId],
) -> Result<Vec<Option<u64>>, EngineError> {
    let found: Vec<_> = ids.iter().map(|id| inner.container(id).ok()).collect();
    let count = |(sandbox, container): Pair| {
        let runs = matches!(*container.run.borrow(), RunState::Running { .. });
        let place = runs.then(|| sandbox.place_of(&container.id).path)?;
        Reading::of(&place, true)?.processes
    };
    blocking(move || found.into_iter().map(|pair| pair.and_then(count)).collect()).await
}

/// What sandboxes use, of those that are ready: others use nothing.
pub(super) async fn sandboxes(
    inner: &Arc<Inner>,
    ids: &[SandboxId],
) -> Result<Vec<v1::PodSandboxStats>, EngineError> {
    let all = inner.sandboxes_of(None);
    let shared = shared_parents(all.iter().map(|sandbox| sandbox.cgroup_parent()).collect());
    let wanted: HashSet<&SandboxId> = ids.iter().collect();
    let found: Vec<_> = all
        .into_iter()
        .filter(|sandbox| wanted.contains(&sandbox.id))
        .collect();
    let of_all: Vec<_> = found
        .iter()
        .flat_map(|sandbox| pairs(sandbox, sandbox.all_containers()))
        .collect();
    count_layers(inner, &of_all).await;
    let home = inner.config.lib_dir.join("sandboxes");
    blocking(move || {
        found
            .iter()
            .filter_map(|sandbox| of_sandbox(&home, sandbox, &shared))
            .collect()
    })
    .await
}

type Pair = (Arc<Sandbox>, Arc<Container>);

fn pairs(sandbox: &Arc<Sandbox>, containers: Vec<Arc<Container>>) -> impl Iterator<Item = Pair> {
    let sandbox = Arc::clone(sandbox);
    containers
        .into_iter()
        .map(move |container| (Arc::clone(&sandbox), container))
}

/// The containers of those ids that there still are, in the order of the ids.
fn find(inner: &Inner, ids: &[ContainerId]) -> Vec<Pair> {
    if let [id] = ids {
        return inner.container(id).into_iter().collect();
    }
    let sandboxes = lock(&inner.sandboxes).all();
    let mut all: HashMap<ContainerId, Pair> = sandboxes
        .iter()
        .flat_map(|sandbox| pairs(sandbox, sandbox.all_containers()))
        .map(|pair| (pair.1.id.clone(), pair))
        .collect();
    ids.iter().filter_map(|id| all.remove(id)).collect()
}

async fn count_layers(inner: &Inner, containers: &[Pair]) {
    let layers = containers.iter().map(|(sandbox, container)| {
        let ended_at = match &*container.run.borrow() {
            RunState::Exited(exit) => Some(exit.finished_at),
            RunState::Unknown { since } => Some(*since),
            RunState::Created { .. } | RunState::Running { .. } | RunState::Unheard => None,
        };
        let upper = sandbox.dirs.container(&container.id).join("upper");
        (upper, ended_at, Arc::clone(container))
    });
    inner.meter.refresh(layers).await;
}

/// Reads files away from the tasks that answer calls.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EngineError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| EngineError::Internal(format!("The engine failed: {error}.")))
}

/// A container's stats, and what they were made from; `None` if it was removed meanwhile.
fn of_container(
    home: &Path,
    sandbox: &Sandbox,
    container: &Container,
    count_processes: bool,
) -> Option<(v1::ContainerStats, Option<Reading>)> {
    let runs = matches!(*container.run.borrow(), RunState::Running { .. });
    let reading = runs
        .then(|| Reading::of(&sandbox.place_of(&container.id).path, count_processes))
        .flatten();
    // A container that was removed while its group was read is not told half.
    if reading.is_none() && !lock(&sandbox.containers).contains_key(&container.id) {
        return None;
    }
    let record = lock(&container.record);
    let mut stats = v1::ContainerStats {
        attributes: Some(message::container_attributes(&record)),
        writable_layer: lock(&container.usage.layer)
            .last()
            .map(|count| message::layer(&count, home)),
        ..Default::default()
    };
    if let Some(reading) = &reading {
        let began = (record.started_at > 0).then_some(record.started_at);
        let rate = reading
            .cpu_ns()
            .and_then(|used| container.usage.rate(used, began));
        stats.cpu = message::cpu(reading, rate);
        stats.memory = message::memory(reading);
        stats.swap = message::swap(reading);
        stats.io = message::io(reading);
    }
    Some((stats, reading))
}

/// A sandbox's stats; `None` if it is not ready, or was removed meanwhile.
fn of_sandbox(home: &Path, sandbox: &Sandbox, shared: &HashSet<PathBuf>) -> Option<v1::PodSandboxStats> {
    if !sandbox.is_ready() {
        return None;
    }
    let parent = sandbox.cgroup_parent();
    let is_shared = shared.contains(&parent);
    let (containers, readings): (Vec<_>, Vec<_>) = sandbox
        .all_containers()
        .iter()
        .filter_map(|container| of_container(home, sandbox, container, is_shared))
        .unzip();
    // After the containers: the whole is never less than its parts.
    let whole = (!is_shared).then(|| Reading::of(&parent, true)).flatten();
    // The group is not this pod's alone: what is known of the pod is what its own groups use.
    let reading = whole.or_else(|| {
        let own = Reading::of(&sandbox.place().path, true);
        let all = readings.into_iter().chain([own]).flatten();
        all.reduce(Reading::plus)
    })?;
    let rate = reading.cpu_ns().and_then(|used| sandbox.usage.rate(used, None));
    let linux = v1::LinuxPodSandboxStats {
        cpu: message::cpu(&reading, rate),
        memory: message::memory(&reading),
        network: network(sandbox),
        process: reading.processes.map(|processes| v1::ProcessUsage {
            timestamp: message::nanos(reading.at),
            process_count: Some(message::number(processes)),
        }),
        io: message::io(&reading),
        containers,
    };
    Some(v1::PodSandboxStats {
        attributes: Some(message::sandbox_attributes(&lock(&sandbox.record))),
        linux: Some(linux),
        windows: None,
    })
}

/// What went over a pod's interfaces; nothing for a pod that has the host's.
fn network(sandbox: &Sandbox) -> Option<v1::NetworkUsage> {
    let at = now();
    Some(message::network(at, &links(sandbox)?))
}

fn links(sandbox: &Sandbox) -> Option<Vec<links::Link>> {
    if lock(&sandbox.record).config.namespaces.host_network {
        return None;
    }
    let pause = |sandbox: &Sandbox| lock(&sandbox.shim).as_ref()?.pause_pid;
    let pid = pause(sandbox)?;
    let links = links::of(pid).ok()?;
    // The number may have become another process's while the file was read.
    (pause(sandbox) == Some(pid)).then_some(links)
}

/// The parents that hold more than one pod: named by several, above another, or one that berth puts any pod into.
fn shared_parents(mut parents: Vec<PathBuf>) -> HashSet<PathBuf> {
    parents.sort();
    let mut shared: HashSet<PathBuf> = parents
        .windows(2)
        .filter(|pair| matches!(pair, [first, second] if second.starts_with(first)))
        .filter_map(|pair| pair.first().cloned())
        .collect();
    // The root is empty for systemd's driver.
    let usual = [cgroups::DEFAULT_PARENT, cgroups::DEFAULT_SLICE, "/", ""];
    shared.extend(usual.map(PathBuf::from));
    shared
}

impl Sandbox {
    /// The group that the caller made for the pod, or for several.
    fn cgroup_parent(&self) -> PathBuf {
        lock(&self.record).config.cgroup_parent.clone()
    }

    fn is_ready(&self) -> bool {
        let alive = lock(&self.shim)
            .as_ref()
            .is_some_and(|shim| shim.pause_pid.is_some());
        alive && lock(&self.record).phase == SandboxPhase::Ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_several_pods() {
        let paths = |of: &[&str]| of.iter().map(PathBuf::from).collect::<Vec<_>>();
        let shared = shared_parents(paths(&[
            "/k/pod1", "/k/pod10", "/test", "/x/y", "/test", "/x", "/k/pod2",
        ]));
        let mut found: Vec<_> = shared.into_iter().collect();
        found.sort();
        assert_eq!(found, paths(&["", "/", "/test", "/x", "berth", "system.slice"]));
    }
}
