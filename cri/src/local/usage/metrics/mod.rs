//! CRI's metrics: what cAdvisor told Prometheus of containers, by the same names (KEP-2371).
//!
//! Values are the kernel's at the time of the call. What the kernel does not count (PSI that is switched off, block devices
//! that a container never touched) is left out, never zero. Values are whole numbers on the wire, so that seconds are
//! whole seconds. Clients of many pods ask for the stream: of the single message's 16 MiB a container takes some 20 KiB.

mod devices;
mod family;
mod group;
mod processes;
mod written;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::{Container, Inner, RunState, Sandbox, adopt, lock, now};
use super::{Pair, blocking, count_layers, links, message, pairs};
use crate::engine::EngineError;
use crate::types::UnixNanos;
use crate::v1;
use devices::{Devices, FileSystem};
use group::Group;
use written::Written;

const NANOS: u64 = 1_000_000_000;

/// What metrics there are.
pub(in crate::local) fn descriptors() -> Vec<v1::MetricDescriptor> {
    family::ALL.iter().map(|family| family.descriptor()).collect()
}

/// The metrics of every sandbox that is ready, and of its containers that run.
pub(in crate::local) async fn all(inner: &Arc<Inner>) -> Result<Vec<v1::PodSandboxMetrics>, EngineError> {
    adopt::adopt(inner, None).await?;
    let mut ready = inner.sandboxes_of(None);
    ready.retain(|sandbox| sandbox.is_ready());
    let running: Vec<Pair> = ready
        .iter()
        .flat_map(|sandbox| pairs(sandbox, sandbox.all_containers()))
        .filter(|(_, container)| pid(container).is_some())
        .collect();
    count_layers(inner, &running).await;
    let home = inner.config.lib_dir.join("sandboxes");
    blocking(move || {
        let mut devices = Devices::default();
        let file_system = FileSystem::of(&home, &mut devices);
        let mut scrape = Scrape { devices, file_system };
        ready.iter().map(|sandbox| scrape.sandbox(sandbox)).collect()
    })
    .await
}

/// The first process of a container that runs.
fn pid(container: &Container) -> Option<i32> {
    match *container.run.borrow() {
        RunState::Running { pid } => Some(pid),
        _ => None,
    }
}

/// One collection of all metrics.
struct Scrape {
    devices: Devices,
    /// Of all writable layers.
    file_system: Option<FileSystem>,
}

impl Scrape {
    fn sandbox(&mut self, sandbox: &Sandbox) -> v1::PodSandboxMetrics {
        let containers = sandbox.all_containers();
        let containers = containers
            .iter()
            .filter_map(|container| self.container(sandbox, container));
        v1::PodSandboxMetrics {
            pod_sandbox_id: sandbox.id.0.clone(),
            metrics: network(sandbox),
            container_metrics: containers.collect(),
        }
    }

    /// `None` if the container does not run, or ends meanwhile.
    fn container(&mut self, sandbox: &Sandbox, container: &Container) -> Option<v1::ContainerMetrics> {
        let pid = pid(container)?;
        let path = sandbox.place_of(&container.id).path;
        let group = Group::of(&path)?;
        let at = now();
        let (name, image, started_at, shares) = {
            let record = lock(&container.record);
            let config = &record.config;
            let image = Some(&config.user_specified_image).filter(|image| !image.is_empty());
            (
                config.name.clone(),
                image.unwrap_or(&config.image).clone(),
                record.started_at,
                config.resources.cpu_shares,
            )
        };
        let mut written = begin(sandbox, at, &name, &path, &image, &container.id.0);
        written.plain(&family::LAST_SEEN, at / NANOS);
        written.plain(&family::START_TIME, started_at / NANOS);
        group.write(shares, &mut self.devices, &mut written);
        self.layer(container, &mut written);
        let descriptors = processes::descriptors(group.pids.iter().copied());
        written.plain(&family::FILE_DESCRIPTORS, descriptors.all);
        written.plain(&family::SOCKETS, descriptors.sockets);
        if let Some(limit) = processes::open_files_limit(pid) {
            written.labelled(&family::ULIMITS_SOFT, &["max_open_files"], limit);
        }
        Some(v1::ContainerMetrics {
            container_id: container.id.0.clone(),
            metrics: written.done(),
        })
    }

    fn layer(&self, container: &Container, written: &mut Written) {
        let Some(file_system) = &self.file_system else {
            return;
        };
        let device = [file_system.device.as_str()];
        if let Some(count) = lock(&container.usage.layer).last() {
            written.labelled(&family::FS_USAGE, &device, count.usage.bytes);
        }
        written.labelled(&family::FS_LIMIT, &device, file_system.bytes);
        written.labelled(&family::FS_INODES, &device, file_system.inodes);
        written.labelled(&family::FS_INODES_FREE, &device, file_system.inodes_free);
    }
}

/// A pod's metrics: those of its interfaces, none with the host's network.
fn network(sandbox: &Sandbox) -> Vec<v1::Metric> {
    let at = now();
    let parent = sandbox.cgroup_parent();
    let mut written = begin(sandbox, at, "", &parent, "", &sandbox.id.0);
    for links::Link { name, received, sent } in super::links(sandbox).unwrap_or_default() {
        for (family, value) in [
            (&family::RECEIVE_BYTES, received.bytes),
            (&family::RECEIVE_PACKETS, received.packets),
            (&family::RECEIVE_DROPPED, received.dropped),
            (&family::RECEIVE_ERRORS, received.errors),
            (&family::TRANSMIT_BYTES, sent.bytes),
            (&family::TRANSMIT_PACKETS, sent.packets),
            (&family::TRANSMIT_DROPPED, sent.dropped),
            (&family::TRANSMIT_ERRORS, sent.errors),
        ] {
            written.labelled(family, &[&name], value);
        }
    }
    written.done()
}

/// Metrics with the labels of [`family::BASE`].
fn begin(sandbox: &Sandbox, at: UnixNanos, container: &str, group: &Path, image: &str, id: &str) -> Written {
    let group = PathBuf::from("/").join(group);
    let labels = {
        let record = lock(&sandbox.record);
        let config = &record.config;
        let group = group.to_string_lossy();
        [container, &group, image, id, &config.namespace, &config.name].map(str::to_owned)
    };
    Written::new(labels.into(), message::nanos(at))
}
