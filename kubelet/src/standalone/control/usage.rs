//! What pods use, as the engine reads it from the kernel.

use std::iter::repeat;

use berth_cri::{ContainerState, ContainerStatus, SandboxId, v1};

use super::owned::Owned;
use super::protocol::{ContainerUsage, PodUsage, Refusal};
use crate::identity::PodUid;
use crate::spec;

/// What these pods use. Pods of others are left out.
pub(super) async fn of(owned: &Owned, uids: &[PodUid]) -> Result<Vec<PodUsage>, Refusal> {
    let mut all = Vec::new();
    for uid in uids {
        if let Ok(pod) = owned.pod(uid) {
            let mut usage = of_pod(owned, uid).await?;
            spec::namespace(&pod).clone_into(&mut usage.namespace);
            spec::name(&pod).clone_into(&mut usage.name);
            all.push(usage);
        }
    }
    Ok(all)
}

async fn of_pod(owned: &Owned, uid: &PodUid) -> Result<PodUsage, Refusal> {
    let engine = &owned.node.engine;
    let mut containers = engine.list_containers(Some(&uid.0)).await?;
    containers.retain(|container| container.state == ContainerState::Running);
    let ids: Vec<_> = containers.iter().map(|container| container.id.clone()).collect();
    let stats = engine.container_stats(&ids).await?;
    let processes = engine.container_processes(&ids).await?;
    let sandboxes = engine.list_pod_sandboxes(Some(&uid.0)).await?;
    let ready: Vec<SandboxId> = sandboxes
        .into_iter()
        .filter(|sandbox| sandbox.ready)
        .map(|sandbox| sandbox.id)
        .collect();
    let of_sandbox = engine.pod_sandbox_stats(&ready).await?.pop();
    let linux = of_sandbox.and_then(|stats| stats.linux).unwrap_or_default();
    let network = linux.network.and_then(|network| network.default_interface);
    let of_pod = linux.process.and_then(|process| process.process_count);
    Ok(PodUsage {
        received: network.as_ref().and_then(|network| number(network.rx_bytes)),
        sent: network.as_ref().and_then(|network| number(network.tx_bytes)),
        processes: number(of_pod),
        containers: containers
            .iter()
            .zip(processes.into_iter().chain(repeat(None)))
            .map(|(container, processes)| ContainerUsage {
                processes,
                ..of_container(container, &stats)
            })
            .collect(),
        ..PodUsage::default()
    })
}

fn of_container(container: &ContainerStatus, all: &[v1::ContainerStats]) -> ContainerUsage {
    let is_its = |stats: &&v1::ContainerStats| {
        stats
            .attributes
            .as_ref()
            .is_some_and(|attributes| attributes.id == container.id.0)
    };
    let stats = all.iter().find(is_its).cloned().unwrap_or_default();
    let memory = stats.memory.unwrap_or_default();
    ContainerUsage {
        name: container.config.name.clone(),
        id: container.id.0.clone(),
        at: stats.cpu.as_ref().map_or(0, |cpu| cpu.timestamp),
        cpu: stats.cpu.and_then(|cpu| number(cpu.usage_core_nano_seconds)),
        working_set: number(memory.working_set_bytes),
        memory: number(memory.usage_bytes),
        memory_limit: container.config.resources.memory_limit.filter(|limit| *limit > 0),
        layer: stats.writable_layer.and_then(|layer| number(layer.used_bytes)),
        processes: None,
    }
}

fn number(value: Option<v1::UInt64Value>) -> Option<u64> {
    value.map(|value| value.value)
}
