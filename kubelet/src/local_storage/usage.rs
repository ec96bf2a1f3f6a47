//! Measuring what a pod takes.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use berth_cri::{ContainerState, Engine, EngineError, disk_usage};
use k8s_openapi::api::core::v1::Pod;

use super::{Limits, Usage};
use crate::volumes::{self, PodDir};

/// Measures what a pod takes of what it has limits for: volumes and logs by looking through their directories, writable layers by
/// what the engine counted last.
///
/// # Errors
/// The engine can't say, or a file system refuses.
pub(crate) async fn measure(
    engine: &Arc<dyn Engine>,
    pod: &Pod,
    dir: &PodDir,
    limits: &Limits,
) -> Result<Usage, EngineError> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let volumes: Vec<(String, PathBuf)> = volumes
        .filter(|volume| limits.counts(&volume.name))
        .filter_map(|volume| Some((volume.name.clone(), volumes::on_local_disk(dir, volume)?)))
        .collect();
    let mut containers = Vec::new();
    if limits.counts_containers() {
        containers = engine.list_containers(pod.metadata.uid.as_deref()).await?;
    }
    // What has ended counts no more, as upstream: its layer is removed soon.
    containers.retain(|container| container.state == ContainerState::Running);
    let ids: Vec<_> = containers.iter().map(|container| container.id.clone()).collect();
    let layers = match ids.as_slice() {
        [] => Vec::new(),
        ids => engine.container_stats(ids).await?,
    };
    let layers: BTreeMap<String, u64> = layers
        .into_iter()
        .filter_map(|stats| Some((stats.attributes?.id, stats.writable_layer?.used_bytes?.value)))
        .collect();
    let etc_hosts = dir.etc_hosts();
    let look = move || -> io::Result<Usage> {
        let mut usage = Usage::default();
        for (name, path) in volumes {
            usage.volumes.insert(name, disk_usage(&path)?);
        }
        for container in containers {
            let logs = container.log_path.parent().map_or(Ok(0), disk_usage)?;
            let layer = layers.get(&container.id.0).copied().unwrap_or(0);
            usage
                .containers
                .insert(container.config.name, logs.saturating_add(layer));
        }
        // stat(2): blocks of 512 bytes.
        usage.own = etc_hosts.metadata().map_or(0, |file| file.blocks() * 512);
        Ok(usage)
    };
    let looked = tokio::task::spawn_blocking(look).await;
    looked
        .map_err(|error| EngineError::Internal(error.to_string()))?
        .map_err(|error| EngineError::Unavailable(error.to_string()))
}
