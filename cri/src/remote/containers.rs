//! Containers.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use super::calls::{AT_ONCE, labelled, lacking, there};
use super::link::{REQUEST_TIMEOUT, ask};
use super::notes::{self, POD_UID};
use super::{Inner, Result, features, request, view};
use crate::engine::EngineError;
use crate::local::signals;
use crate::types::{
    ContainerConfig, ContainerId, ContainerStatus, ExecOutput, LinuxContainerResources, SandboxId,
};
use crate::v1;

/// CRI counts in whole seconds, and 0 is special: what is left of a second is one.
fn seconds(time: Duration) -> i64 {
    let more = u64::from(time.subsec_nanos() > 0);
    i64::try_from(time.as_secs().saturating_add(more)).unwrap_or(i64::MAX)
}

impl Inner {
    pub(super) async fn list_containers(&self, filter: v1::ContainerFilter) -> Result<Vec<v1::Container>> {
        let message = v1::ListContainersRequest { filter: Some(filter) };
        Ok(
            ask!(self.link, "ListContainers", runtime.list_containers(message))
                .await?
                .containers,
        )
    }

    pub(super) async fn create_container(
        &self,
        sandbox: &SandboxId,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let _turn = self
            .turn(format!("{sandbox} {} {}", config.name, config.attempt))
            .await;
        if let Some(id) = self.made_before(sandbox, &config).await? {
            return Ok(id);
        }
        let told = self.told_sandbox(sandbox, false).await?.0;
        let noted = notes::read_sandbox(told.clone());
        if noted == told {
            return Err(EngineError::FailedPrecondition(format!(
                "Sandbox {sandbox} was made by another client of {}; a container needs its whole configuration, which only \
                 that client has.",
                self.link.who()
            )));
        }
        let pod = noted.config;
        let who = self.link.who();
        if features::container_needs(&config) {
            features::check_container(&config, &pod.runtime_handler, &self.status(false).await?, &who)?;
        }
        make_log_directory(&pod.log_directory, &config.log_path)?;
        let asked = notes::on_container(config.clone(), sandbox, &pod.uid)?;
        let message = v1::CreateContainerRequest {
            pod_sandbox_id: sandbox.0.clone(),
            config: Some(request::container(&asked)?),
            sandbox_config: Some(request::sandbox(&notes::on_sandbox(pod)?)?),
        };
        let id = match ask!(self.link, "CreateContainer", runtime.create_container(message)).await {
            Ok(reply) => ContainerId(reply.container_id),
            Err(error) => match self.made_before(sandbox, &config).await {
                Ok(Some(id)) => id,
                _ => return Err(error),
            },
        };
        if features::shows_later(&config) {
            let signal = config.stop_signal.as_deref().map_or(Ok(0), signals::parse)?;
            let (made, _) = self.told_container(&id, false).await?;
            let made = self.container(made, sandbox.clone(), String::new()).await?;
            if let Err(refusal) = features::check_made(&config, signal, &made, &who) {
                self.remove_container(&id).await?;
                return Err(refusal);
            }
        }
        Ok(id)
    }

    async fn made_before(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<Option<ContainerId>> {
        let filter = v1::ContainerFilter {
            pod_sandbox_id: sandbox.0.clone(),
            ..Default::default()
        };
        let same = |container: &v1::Container| {
            let metadata = container.metadata.as_ref();
            metadata.is_some_and(|of| of.name == config.name && of.attempt == config.attempt)
        };
        let found = self.list_containers(filter).await?.into_iter().find(same);
        Ok(found.map(|container| ContainerId(container.id)))
    }

    pub(super) async fn start_container(&self, id: &ContainerId) -> Result<()> {
        let message = v1::StartContainerRequest {
            container_id: id.0.clone(),
        };
        ask!(self.link, "StartContainer", runtime.start_container(message))
            .await
            .map(drop)
    }

    pub(super) async fn stop_container(&self, id: &ContainerId, timeout: Duration) -> Result<()> {
        let limit = timeout.saturating_add(REQUEST_TIMEOUT);
        let message = v1::StopContainerRequest {
            container_id: id.0.clone(),
            timeout: seconds(timeout),
        };
        ask!(self.link, "StopContainer" within Some(limit), runtime.stop_container(message))
            .await
            .map(drop)
    }

    pub(super) async fn remove_container(&self, id: &ContainerId) -> Result<()> {
        let message = v1::RemoveContainerRequest {
            container_id: id.0.clone(),
        };
        ask!(self.link, "RemoveContainer", runtime.remove_container(message))
            .await
            .map(drop)
    }

    async fn told_container(
        &self,
        id: &ContainerId,
        verbose: bool,
    ) -> Result<(v1::ContainerStatus, BTreeMap<String, String>)> {
        let message = v1::ContainerStatusRequest {
            container_id: id.0.clone(),
            verbose,
        };
        let reply = ask!(self.link, "ContainerStatus", runtime.container_status(message)).await?;
        let status = reply
            .status
            .ok_or_else(|| lacking(&self.link.who(), "the container's status"))?;
        Ok((status, reply.info.into_iter().collect()))
    }

    /// A status as the runtime tells it, with the image's id.
    async fn container(
        &self,
        status: v1::ContainerStatus,
        sandbox: SandboxId,
        pod_uid: String,
    ) -> Result<ContainerStatus> {
        let image = self.image_id(&status.image_id, &status.image_ref).await?;
        view::container_status(status, sandbox, pod_uid, image)
    }

    pub(super) async fn container_status(
        &self,
        id: &ContainerId,
        verbose: bool,
    ) -> Result<(ContainerStatus, BTreeMap<String, String>)> {
        let (told, info) = self.told_container(id, verbose).await?;
        let (sandbox, pod_uid) = match notes::owner(&told.annotations) {
            Some(owner) => owner,
            None => self.owner_of(id, told.labels.get(POD_UID)).await?,
        };
        let status = self.container(told, sandbox, pod_uid).await?;
        Ok((notes::read_container(status), info))
    }

    /// Where a container belongs that another client made.
    async fn owner_of(&self, id: &ContainerId, label: Option<&String>) -> Result<(SandboxId, String)> {
        let filter = v1::ContainerFilter {
            id: id.0.clone(),
            ..Default::default()
        };
        let listed = self.list_containers(filter).await?;
        let sandbox = listed
            .into_iter()
            .map(|container| SandboxId(container.pod_sandbox_id))
            .next();
        let sandbox = sandbox.ok_or_else(|| {
            EngineError::NotFound(format!("{} has no container {id} any more.", self.link.who()))
        })?;
        let uid = match label {
            Some(uid) => uid.clone(),
            None => self.told_sandbox(&sandbox, false).await?.0.config.uid,
        };
        Ok((sandbox, uid))
    }

    pub(super) async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<ContainerStatus>> {
        let filter = v1::ContainerFilter {
            label_selector: pod_uid.map(labelled).unwrap_or_default(),
            ..Default::default()
        };
        let listed = self.list_containers(filter).await?;
        let statuses = stream::iter(listed)
            .map(|container| async move { self.container_status(&ContainerId(container.id), false).await })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        there(
            statuses
                .into_iter()
                .map(|status| status.map(|(status, _)| status)),
        )
    }

    pub(super) async fn update_container_resources(
        &self,
        id: &ContainerId,
        resources: &LinuxContainerResources,
    ) -> Result<()> {
        let message = v1::UpdateContainerResourcesRequest {
            container_id: id.0.clone(),
            linux: Some(request::resources(resources)?),
            ..Default::default()
        };
        ask!(
            self.link,
            "UpdateContainerResources",
            runtime.update_container_resources(message)
        )
        .await
        .map(drop)
    }

    pub(super) async fn exec_sync(
        &self,
        id: &ContainerId,
        cmd: Vec<String>,
        timeout: Duration,
        max_output: usize,
    ) -> Result<ExecOutput> {
        // The runtime ends the command; we give up on a runtime that does not.
        let limit = (!timeout.is_zero()).then(|| timeout.saturating_add(REQUEST_TIMEOUT));
        let message = v1::ExecSyncRequest {
            container_id: id.0.clone(),
            cmd,
            timeout: seconds(timeout),
        };
        let began = Instant::now();
        let reply = match ask!(self.link, "ExecSync" within limit, runtime.exec_sync(message)).await {
            // Runtimes have no code of their own for it in all of their versions; the clock has.
            Err(EngineError::Internal(said)) if limit.is_some() && began.elapsed() >= timeout => {
                return Err(EngineError::DeadlineExceeded(said));
            }
            reply => reply?,
        };
        let cut = |mut bytes: Vec<u8>| {
            bytes.truncate(max_output);
            bytes
        };
        Ok(ExecOutput {
            stdout: cut(reply.stdout),
            stderr: cut(reply.stderr),
            exit_code: reply.exit_code,
        })
    }

    pub(super) async fn reopen_container_log(&self, id: &ContainerId) -> Result<()> {
        let message = v1::ReopenContainerLogRequest {
            container_id: id.0.clone(),
        };
        ask!(
            self.link,
            "ReopenContainerLog",
            runtime.reopen_container_log(message)
        )
        .await
        .map(drop)
    }

    pub(super) async fn checkpoint_container(
        &self,
        id: &ContainerId,
        location: &Path,
        timeout: Duration,
    ) -> Result<()> {
        let message = v1::CheckpointContainerRequest {
            container_id: id.0.clone(),
            location: location.to_string_lossy().into_owned(),
            timeout: seconds(timeout),
        };
        let limit = (!timeout.is_zero()).then(|| timeout.saturating_add(REQUEST_TIMEOUT));
        ask!(self.link, "CheckpointContainer" within limit, runtime.checkpoint_container(message))
            .await
            .map(drop)
    }
}

/// Runtimes open a container's log in a directory that their caller has made.
fn make_log_directory(directory: &Path, log: &Path) -> Result<()> {
    if directory.as_os_str().is_empty() || log.as_os_str().is_empty() {
        return Ok(());
    }
    let path = directory.join(log);
    let parent = path.parent().unwrap_or(directory);
    std::fs::create_dir_all(parent).map_err(|error| {
        EngineError::Unavailable(format!(
            "The directory {} of a container's log can't be made: {error}.",
            parent.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_second_is_a_second() {
        for (millis, whole) in [(0, 0), (1, 1), (1000, 1), (1001, 2)] {
            assert_eq!(seconds(Duration::from_millis(millis)), whole);
        }
    }
}
