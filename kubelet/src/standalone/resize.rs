//! Other limits for a pod that runs.

use berth_cri::{ContainerState, LinuxContainerResources};
use k8s_openapi::api::core::v1::Pod;

use crate::identity::PodUid;
use crate::plan::PodCgroup;
use crate::qos;
use crate::resources::{pod_milli_cpu, pod_resources};
use crate::spec;
use crate::worker::Node;

/// Gives the pod's group and its running containers the limits of `after`. The pod's own limits are widened before the
/// containers' are and narrowed after them, since no container may have more than its pod.
///
/// # Errors
/// A sentence: the kernel refused, for instance a limit of memory below what is used.
pub(super) async fn change(
    node: &Node,
    uid: &PodUid,
    before: &Pod,
    after: &Pod,
    resources_of: impl Fn(&str) -> Option<LinuxContainerResources>,
) -> Result<(), String> {
    let differs = |name: &str| {
        let resources =
            |pod| spec::container(pod, name).and_then(|(container, _)| container.resources.clone());
        resources(before) != resources(after)
    };
    let changed: Vec<&str> = spec::all_containers(after)
        .map(|(container, _)| container.name.as_str())
        .filter(|name| differs(name))
        .collect();
    if changed.is_empty() {
        return Ok(());
    }
    let group = |pod: &Pod| PodCgroup {
        path: qos::pod_cgroup(&node.facts.cgroup_root, qos::qos_class(pod), uid),
        resources: pod_resources(pod, &node.facts),
        milli_cpu: pod_milli_cpu(pod),
    };
    let set = |group: PodCgroup| {
        node.cgroups
            .ensure(&group)
            .map_err(|error| format!("The pod's limits can't be changed: {error}."))
    };
    set(wider(group(before), &group(after)))?;
    let containers = node.engine.list_containers(Some(&uid.0)).await;
    let containers = containers.map_err(|error| error.to_string())?;
    let running = containers.iter().filter(|container| {
        container.state == ContainerState::Running && changed.contains(&container.config.name.as_str())
    });
    for container in running {
        if let Some(resources) = resources_of(&container.config.name) {
            let updated = node
                .engine
                .update_container_resources(&container.id, resources)
                .await;
            updated.map_err(|error| {
                format!(
                    "The limits of container {} can't be changed: {error}",
                    container.config.name
                )
            })?;
        }
    }
    set(group(after))
}

/// The limits that hold both.
fn wider(mut one: PodCgroup, other: &PodCgroup) -> PodCgroup {
    let most = |one: Option<i64>, other: Option<i64>| Some(one?.max(other?));
    let (mine, theirs) = (&mut one.resources, &other.resources);
    mine.memory_limit = most(mine.memory_limit, theirs.memory_limit);
    mine.cpu_quota = most(mine.cpu_quota, theirs.cpu_quota);
    one
}
