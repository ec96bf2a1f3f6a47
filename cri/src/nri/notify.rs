//! What plugins are told of, and what they want done about it.

use prost::Message;

use super::NriError;
use super::api::{self, Event, LinuxResources, PodSandbox};
use super::collect::Others;
use super::limits;
use super::notice::Notice;
use super::registry::{Hub, Known, Nri, Phase};

/// How a container ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    /// Nanoseconds since the Unix epoch.
    pub(crate) finished_at: i64,
}

impl Nri {
    /// A pod's sandbox is there, and no container of it yet.
    ///
    /// # Errors
    /// A plugin says no. The others have been told that the pod is gone.
    pub(crate) async fn run_pod(&self, pod: PodSandbox) -> Result<(), NriError> {
        let mut hub = self.hub.lock().await;
        let id = pod.id.clone();
        hub.pods.insert(id.clone(), Known::new(&pod, Phase::Running));
        let told = hub
            .tell(Event::RunPodSandbox, &Notice { pod, container: None })
            .await;
        if told.is_err() {
            hub.stop_pod(&id).await;
            hub.remove_pod(&id).await;
        }
        told
    }

    /// A pod's own limits are to change.
    ///
    /// # Errors
    /// A plugin says no.
    pub(crate) async fn update_pod(
        &self,
        id: &str,
        overhead: Option<LinuxResources>,
        resources: Option<LinuxResources>,
    ) -> Result<(), NriError> {
        let mut hub = self.hub.lock().await;
        let Some(mut pod) = hub.pod(id) else { return Ok(()) };
        let request = api::UpdatePodSandboxRequest {
            pod: Some(pod.clone()),
            overhead_linux_resources: overhead.clone(),
            linux_resources: resources.clone(),
        };
        let payload = request.encode_to_vec();
        for plugin in hub.asked() {
            plugin
                .ask::<api::UpdatePodSandboxResponse>(Event::UpdatePodSandbox, &payload)
                .await?;
        }
        let linux = pod.linux.get_or_insert_default();
        linux.pod_overhead = overhead.or_else(|| linux.pod_overhead.take());
        linux.pod_resources = resources.or_else(|| linux.pod_resources.take());
        hub.keep_pod(&pod);
        Ok(())
    }

    /// A pod's own limits have changed.
    pub(crate) async fn updated_pod(&self, id: &str) {
        let mut hub = self.hub.lock().await;
        if let Some(pod) = hub.pod(id) {
            let notice = Notice { pod, container: None };
            hub.announce(Event::PostUpdatePodSandbox, &notice).await;
        }
    }

    /// A pod's containers have ended, and its sandbox is about to. Told once.
    pub(crate) async fn stop_pod(&self, id: &str) {
        self.hub.lock().await.stop_pod(id).await;
    }

    /// A pod is gone.
    pub(crate) async fn remove_pod(&self, id: &str) {
        self.hub.lock().await.remove_pod(id).await;
    }

    /// A container was made, as plugins wanted it.
    pub(crate) async fn created(&self, id: &str, pid: u32) {
        let mut hub = self.hub.lock().await;
        if let Some(mut container) = hub.container(id) {
            container.pid = pid;
            hub.keep_container(&container);
            let notice = hub.notice(container);
            hub.announce(Event::PostCreateContainer, &notice).await;
        }
    }

    /// A container is about to be started.
    ///
    /// # Errors
    /// A plugin says no.
    pub(crate) async fn start(&self, id: &str) -> Result<(), NriError> {
        let mut hub = self.hub.lock().await;
        let phase = hub.containers.get(id).map(|known| known.phase);
        let (Some(container), Some(Phase::Created)) = (hub.container(id), phase) else {
            return Ok(());
        };
        let notice = hub.notice(container);
        let told = hub.tell(Event::StartContainer, &notice).await;
        if told.is_ok() {
            hub.set_phase(id, Phase::Starting(None));
        }
        told
    }

    /// A container was started, unless `pid` says that it could not be. One that has ended meanwhile is stopped.
    pub(crate) async fn started(&self, id: &str, pid: Option<u32>, at: i64) {
        let mut hub = self.hub.lock().await;
        let ended = match hub.containers.get(id).map(|known| known.phase) {
            Some(Phase::Starting(ended)) => ended,
            _ => return,
        };
        hub.set_phase(id, Phase::Running);
        if let (Some(mut container), Some(pid)) = (hub.container(id), pid) {
            container.set_state(api::ContainerState::ContainerRunning);
            (container.pid, container.started_at) = (pid, at);
            hub.keep_container(&container);
            let notice = hub.notice(container);
            hub.announce(Event::PostStartContainer, &notice).await;
        }
        let others = match ended {
            Some(exit) => hub.stop(id, exit).await,
            None => return,
        };
        drop(hub);
        self.apply(others).await;
    }

    /// A container's limits are to change. Returns what plugins make of that; what they want of others is done.
    ///
    /// # Errors
    /// A plugin says no, or two want different things.
    pub(crate) async fn update(
        &self,
        id: &str,
        mut resources: LinuxResources,
    ) -> Result<LinuxResources, NriError> {
        let mut hub = self.hub.lock().await;
        let Some(container) = hub.container(id) else {
            return Ok(resources);
        };
        let notice = hub.notice(container);
        let mut others = Others::default();
        for plugin in hub.asked() {
            let request = api::UpdateContainerRequest {
                pod: Some(notice.pod.clone()),
                container: notice.container.clone(),
                linux_resources: Some(resources.clone()),
            };
            let reply = plugin
                .ask::<api::UpdateContainerResponse>(Event::UpdateContainer, &request.encode_to_vec())
                .await?
                .unwrap_or_default();
            others.add(reply.update, &plugin.name())?;
            others.evictions.extend(reply.evict);
            if let Some(own) = others.updates.iter().find(|update| update.container_id == id) {
                let wanted = own
                    .linux
                    .clone()
                    .unwrap_or_default()
                    .resources
                    .unwrap_or_default();
                limits::merge(&wanted, &mut resources);
            }
        }
        drop(hub);
        others.updates.retain(|update| update.container_id != id);
        self.apply(others).await;
        Ok(resources)
    }

    /// A container's limits have changed.
    pub(crate) async fn updated(&self, id: &str, resources: &LinuxResources) {
        let mut hub = self.hub.lock().await;
        if let Some(mut container) = hub.container(id) {
            let linux = container.linux.get_or_insert_default();
            limits::merge(resources, linux.resources.get_or_insert_default());
            hub.keep_container(&container);
            let notice = hub.notice(container);
            hub.announce(Event::PostUpdateContainer, &notice).await;
        }
    }

    /// A container has ended. Told once, and not before its start was. What plugins want of others is done.
    pub(crate) async fn stop(&self, id: &str, exit: Exit) {
        let mut hub = self.hub.lock().await;
        if let Some(Known {
            phase: Phase::Starting(ended),
            ..
        }) = hub.containers.get_mut(id)
        {
            *ended = Some(exit);
            return;
        }
        let others = hub.stop(id, exit).await;
        drop(hub);
        self.apply(others).await;
    }

    /// A container is gone. What plugins want of others is done.
    pub(crate) async fn remove(&self, id: &str) {
        let mut hub = self.hub.lock().await;
        let others = hub.stop(id, Exit::default()).await;
        hub.remove(id).await;
        drop(hub);
        self.apply(others).await;
    }

    /// Does what plugins want of containers that are there. Nobody is told of that: it was theirs to say.
    pub(super) async fn apply(&self, others: Others) {
        if !others.evictions.is_empty() {
            self.runtime.evict(others.evictions).await;
        }
        if !others.updates.is_empty() {
            self.update_all(others.updates).await;
        }
    }
}

impl Hub {
    /// Tells every plugin, the first that says no ends it.
    async fn tell(&mut self, event: Event, notice: &Notice) -> Result<(), NriError> {
        for plugin in self.asked() {
            plugin.tell(event, notice).await?;
        }
        Ok(())
    }

    /// Tells every plugin of what has happened already: saying no does not undo it.
    async fn announce(&mut self, event: Event, notice: &Notice) {
        for plugin in self.asked() {
            if let Err(error) = plugin.tell(event, notice).await {
                tracing::warn!("{error}");
            }
        }
    }

    async fn stop_pod(&mut self, id: &str) {
        let (Some(pod), Some(known)) = (self.pod(id), self.pods.get_mut(id)) else {
            return;
        };
        if std::mem::replace(&mut known.phase, Phase::Stopped) != Phase::Stopped {
            let notice = Notice { pod, container: None };
            self.announce(Event::StopPodSandbox, &notice).await;
        }
    }

    async fn remove_pod(&mut self, id: &str) {
        if let Some(pod) = self.pod(id) {
            self.pods.remove(id);
            let notice = Notice { pod, container: None };
            self.announce(Event::RemovePodSandbox, &notice).await;
        }
    }

    pub(super) async fn stop(&mut self, id: &str, exit: Exit) -> Others {
        let mut others = Others::default();
        let (Some(mut container), Some(known)) = (self.container(id), self.containers.get_mut(id)) else {
            return others;
        };
        if known.phase == Phase::Stopped {
            return others;
        }
        container.set_state(api::ContainerState::ContainerStopped);
        (container.exit_code, container.finished_at) = (exit.code, exit.finished_at);
        self.keep_container(&container);
        self.set_phase(id, Phase::Stopped);
        let notice = self.notice(container);
        let request = api::StopContainerRequest {
            pod: Some(notice.pod),
            container: notice.container,
        };
        let payload = request.encode_to_vec();
        for plugin in self.asked() {
            let reply = plugin
                .ask::<api::StopContainerResponse>(Event::StopContainer, &payload)
                .await;
            let added = reply.and_then(|reply| others.add(reply.unwrap_or_default().update, &plugin.name()));
            if let Err(error) = added {
                tracing::warn!("{error}");
            }
        }
        others
    }

    pub(super) async fn remove(&mut self, id: &str) {
        if let Some(container) = self.container(id) {
            self.containers.remove(id);
            let notice = self.notice(container);
            self.announce(Event::RemoveContainer, &notice).await;
        }
    }
}
