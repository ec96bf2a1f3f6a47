//! What is there of a pod: in the engine, in its directory and in its cgroup.

use std::net::IpAddr;

use berth_cri::{ContainerState, ContainerStatus, EngineError, PodSandboxStatus};

use super::event::EventReason;
use super::pod::Worker;
use crate::plan::{self, Observed, StepKey};
use crate::volumes::{env_files, termination_message};
use crate::{qos, spec};

impl Worker {
    pub(super) async fn observe(&mut self) -> Result<Observed, EngineError> {
        let uid = &self.desired.uid.0;
        let sandboxes = self.node.engine.list_pod_sandboxes(Some(uid)).await?;
        let mut containers = self.node.engine.list_containers(Some(uid)).await?;
        let in_flight = self.tasks.keys();
        for container in &mut containers {
            // Only the answer to its start tells whether it ended or never ran, and why. One that can't be made is shown
            // until nothing is left of it.
            let start = StepKey::StartContainer(container.config.name.clone(), container.config.attempt);
            let ended = matches!(container.state, ContainerState::Exited | ContainerState::Unknown);
            if ended && in_flight.contains(&start) {
                container.state = ContainerState::Created;
            }
        }
        if !self.adopted {
            self.adopted = true;
            self.memory.adopt(&containers, self.record.post_started.as_ref());
            self.announcer.adopt(&self.reporter, &sandboxes, &containers);
        }
        self.memory.retain(&containers);
        if let Some(all) = &mut self.record.post_started {
            all.retain(|id| containers.iter().any(|container| container.id == *id));
        }
        self.announcer.containers(&self.reporter, &containers);
        self.note_restarts(&containers);
        self.read_termination_messages(&containers);
        self.look_up_images().await;
        let mut observed = self.memory.observed(sandboxes, containers);
        observed.in_flight = in_flight;
        observed.directory_exists = self.dir.exists();
        if observed.volumes_ready {
            observed.env_files = env_files(&self.desired.pod, &self.dir);
        }
        observed.others = self.others();
        let class = qos::qos_class(&self.given());
        let cgroup = qos::pod_cgroup(&self.desired.node.cgroup_root, class, &self.desired.uid);
        observed.cgroup_exists = self.node.cgroups.exists(&cgroup);
        Ok(observed)
    }

    pub(super) fn read_termination_messages(&mut self, containers: &[ContainerStatus]) {
        let ended =
            |c: &&ContainerStatus| matches!(c.state, ContainerState::Exited | ContainerState::Unknown);
        for container in containers.iter().filter(ended) {
            if self.memory.termination_messages.contains_key(&container.id) {
                continue;
            }
            let found = spec::container(&self.desired.pod, &container.config.name);
            let policy = found.and_then(|(container, _)| container.termination_message_policy.as_deref());
            let message = termination_message(&self.dir, container, policy == Some("FallbackToLogsOnError"));
            self.memory
                .termination_messages
                .insert(container.id.clone(), message);
        }
    }

    pub(super) async fn look_up_images(&mut self) {
        let mut images = spec::images(&self.desired.pod);
        let ephemeral = spec::ephemeral_containers(&self.desired.pod);
        images.extend(ephemeral.into_iter().filter_map(|(container, _)| container.image));
        for image in &images {
            let known = self.memory.images.get(image);
            if known.is_some() && !self.doubtful_images.remove(image) {
                continue;
            }
            // An engine that can't say has said that it is not there: the pull tells why.
            let present = self.node.engine.image_status(image).await.ok().flatten();
            if present.is_some() && known.is_none() && !self.is_always_pulled(image) {
                let message = format!("Container image \"{image}\" already present on machine");
                self.reporter.pod(EventReason::Pulled, message);
            }
            let pulled_at = known.map_or(0, |known| known.pulled_at);
            self.memory
                .images
                .insert(image.clone(), plan::ImageState { present, pulled_at });
        }
    }

    /// That it is here settles nothing for such an image: what the registry has is asked for all the same.
    fn is_always_pulled(&self, image: &str) -> bool {
        let ephemeral = spec::ephemeral_containers(&self.desired.pod);
        let ephemeral = ephemeral.iter().map(|(container, _)| container);
        let mut all = spec::all_containers(&self.desired.pod)
            .map(|(container, _)| container)
            .chain(ephemeral);
        all.any(|container| {
            container.image.as_deref() == Some(image)
                && container.image_pull_policy.as_deref() == Some("Always")
        })
    }
}

/// The pod's address: that of its newest ready sandbox, or the node's on the host's network.
pub(super) fn pod_ip(observed: &Observed, host_ips: &[IpAddr]) -> Option<IpAddr> {
    let ready = observed.sandboxes.iter().filter(|sandbox| sandbox.ready);
    let newest: &PodSandboxStatus = ready.max_by_key(|sandbox| sandbox.config.attempt)?;
    if newest.config.namespaces.host_network {
        return host_ips.first().copied();
    }
    newest.ips.first().copied()
}

#[cfg(test)]
mod tests {
    use berth_cri::{PodSandboxConfig, SandboxId};

    use super::*;

    #[test]
    fn a_pod_is_asked_at_the_address_of_its_newest_sandbox() {
        let sandbox = |attempt: u32, ready: bool, host_network: bool| {
            let mut config = PodSandboxConfig {
                attempt,
                ..PodSandboxConfig::default()
            };
            config.namespaces.host_network = host_network;
            PodSandboxStatus {
                id: SandboxId(attempt.to_string()),
                config,
                ready,
                created_at: 0,
                ips: vec![IpAddr::from([10, 0, 0, u8::try_from(attempt).unwrap()])],
            }
        };
        let hosts = [IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2])];
        for (sandboxes, expected) in [
            (vec![], None),
            (vec![sandbox(1, false, false)], None),
            (
                vec![sandbox(1, true, false), sandbox(2, false, false)],
                Some([10, 0, 0, 1]),
            ),
            (
                vec![sandbox(2, true, false), sandbox(1, true, false)],
                Some([10, 0, 0, 2]),
            ),
            (vec![sandbox(1, true, true)], Some([192, 0, 2, 1])),
        ] {
            let observed = Observed {
                sandboxes,
                ..Observed::default()
            };
            assert_eq!(
                pod_ip(&observed, &hosts),
                expected.map(IpAddr::from),
                "{observed:?}"
            );
        }
    }
}
