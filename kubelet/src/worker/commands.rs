//! What a worker is told to do with its pod.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_cri::{ContainerState, ContainerStatus};
use k8s_openapi::api::core::v1::{EphemeralContainer, Pod};
use tokio::task::AbortHandle;

use super::event::EventReason;
use super::pod::Worker;
use crate::plan::{Deletion, StepKey};
use crate::{annotations, spec};

impl Worker {
    pub(super) fn delete(&mut self, grace: Option<Duration>) {
        let now = self.node.clock.now();
        let deletion = match self.desired.deletion {
            None => Deletion {
                requested_at: now,
                grace,
            },
            Some(last) => last.asked_again(grace, &self.desired.pod),
        };
        self.desired.deletion = Some(deletion);
        self.record.set_deletion(Some(deletion));
        self.save();
    }

    /// Whoever asks for a restart means the containers that run now, or are just being started.
    pub(super) fn note_restarts(&mut self, containers: &[ContainerStatus]) {
        if self.restart_asked.is_empty() && self.memory.restarts.keys().eq(&self.record.restarts) {
            return;
        }
        let being_started = |name: &String| {
            let starts =
                |key: &StepKey| matches!(key, StepKey::StartContainer(started, _) if started == name);
            self.tasks.keys().iter().any(starts)
        };
        let asked = std::mem::take(&mut self.restart_asked);
        self.restart_asked = asked.iter().filter(|name| being_started(name)).cloned().collect();
        let meant = containers
            .iter()
            .filter(|c| c.state == ContainerState::Running && asked.contains(&c.config.name));
        let now = self.node.clock.now();
        for container in meant {
            self.memory.restarts.entry(container.id.clone()).or_insert(now);
        }
        self.keep_restarts();
    }

    /// Enters into the record which containers are to be started anew.
    pub(super) fn keep_restarts(&mut self) {
        if !self.memory.restarts.keys().eq(&self.record.restarts) {
            self.record.restarts = self.memory.to_restart();
            self.save();
        }
    }

    pub(super) fn change(&mut self, pod: Arc<Pod>) {
        let image = |pod: &Pod, name: &str| spec::container(pod, name).and_then(|(c, _)| c.image.clone());
        for (container, _) in spec::all_containers(&pod) {
            if image(&self.desired.pod, &container.name) != container.image {
                self.restart_asked.insert(container.name.clone());
            }
        }
        if annotations::probe_periods_differ(&self.desired.pod, &pod) {
            // They begin anew, with what they have said so far.
            std::mem::take(&mut self.probes)
                .values()
                .for_each(AbortHandle::abort);
        }
        let was_gated = spec::is_gated(&self.desired.pod);
        let gates_differ = !spec::scheduling_gates(&self.desired.pod).eq(spec::scheduling_gates(&pod));
        if !was_gated {
            self.note_wish(&pod);
        }
        self.record.pod = pod.as_ref().clone();
        self.desired.pod = pod;
        if was_gated && gates_differ {
            self.go_through_gates();
        }
        self.save();
    }

    /// Brings the files of ConfigMaps, Secrets and of what the pod says of itself up to date, beside the plan: containers
    /// need not wait for it.
    pub(super) fn refresh_volumes(&mut self) {
        self.refresh_due = !self.memory.volumes_ready;
        if self.refresh_due || self.desired.deletion.is_some() {
            return;
        }
        let (desired, node, dir) = (self.desired.clone(), Arc::clone(&self.node), self.dir.clone());
        let (latest, reporter) = (Arc::clone(&self.refreshes), self.reporter.clone());
        let number = latest.fetch_add(1, Ordering::SeqCst) + 1;
        tokio::task::spawn_blocking(move || {
            let context = super::execute::context(&desired, &node, &dir);
            let is_latest = || latest.load(Ordering::SeqCst) == number;
            if let Err(error) = crate::volumes::refresh(&context, is_latest) {
                reporter.pod(EventReason::FailedMount, error.to_string());
            }
        });
    }

    pub(super) fn add_ephemeral(&mut self, container: EphemeralContainer) {
        let name = container.name.clone();
        let mut pod = self.desired.pod.as_ref().clone();
        if spec::container(&pod, &name).is_some() || spec::is_ephemeral(&pod, &name) {
            let message = format!("the pod has a container {name:?} already");
            return self.reporter.container(EventReason::Failed, &name, message);
        }
        if let Some(spec) = &mut pod.spec {
            spec.ephemeral_containers.get_or_insert_default().push(container);
        }
        self.change(Arc::new(pod));
    }
}
