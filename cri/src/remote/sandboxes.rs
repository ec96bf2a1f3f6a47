//! Sandboxes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::calls::{AT_ONCE, labelled, lacking, there};
use super::link::ask;
use super::notes::{self, POD_UID};
use super::{Inner, Result, features, lock, request, view};
use crate::engine::EngineError;
use crate::types::{LinuxContainerResources, PodSandboxConfig, PodSandboxStatus, SandboxId};
use crate::v1;

/// A sandbox may take this long: networks are slow at times. A kubelet's, too.
const RUN_SANDBOX_TIMEOUT: Duration = Duration::from_secs(4 * 60);

impl Inner {
    pub(super) async fn run_pod_sandbox(&self, config: PodSandboxConfig) -> Result<SandboxId> {
        if let Some(label) = config.labels.get(POD_UID).filter(|label| **label != config.uid) {
            return Err(EngineError::InvalidArgument(format!(
                "The label {POD_UID} of pod {}/{} says {label}, and its UID is {}.",
                config.namespace, config.name, config.uid
            )));
        }
        let _turn = self.turn(format!("{} {}", config.uid, config.attempt)).await;
        if let Some(sandbox) = self.attempt(&config).await? {
            return sandbox;
        }
        if features::sandbox_needs(&config) {
            features::check_sandbox(&config, &self.status(false).await?, &self.link.who())?;
        }
        let runtime_handler = config.runtime_handler.clone();
        let message = v1::RunPodSandboxRequest {
            config: Some(request::sandbox(&notes::on_sandbox(config.clone())?)?),
            runtime_handler,
        };
        match ask!(self.link, "RunPodSandbox" within Some(RUN_SANDBOX_TIMEOUT), runtime.run_pod_sandbox(message))
            .await
        {
            Ok(reply) => Ok(SandboxId(reply.pod_sandbox_id)),
            // A call of an engine that died may have come to its end meanwhile: runtimes reserve names.
            Err(error) => match self.attempt(&config).await {
                Ok(Some(Ok(sandbox))) => Ok(sandbox),
                _ => Err(error),
            },
        }
    }

    /// The sandbox of that pod and attempt, if there is one; an error inside if it is not ready.
    async fn attempt(&self, config: &PodSandboxConfig) -> Result<Option<Result<SandboxId>>> {
        let same = |sandbox: &v1::PodSandbox| {
            let metadata = sandbox.metadata.as_ref();
            metadata.is_some_and(|of| of.uid == config.uid && of.attempt == config.attempt)
        };
        let listed = self.list_sandboxes(labelled(&config.uid)).await?;
        Ok(listed.into_iter().find(same).map(|sandbox| {
            if sandbox.state() == v1::PodSandboxState::SandboxReady {
                return Ok(SandboxId(sandbox.id));
            }
            Err(EngineError::FailedPrecondition(format!(
                "Attempt {} of the sandbox of pod {}/{} exists and is not ready; remove sandbox {} or ask for the next \
                 attempt.",
                config.attempt, config.namespace, config.name, sandbox.id
            )))
        }))
    }

    pub(super) async fn list_sandboxes(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<v1::PodSandbox>> {
        let message = v1::ListPodSandboxRequest {
            filter: Some(v1::PodSandboxFilter {
                label_selector: labels,
                ..Default::default()
            }),
        };
        Ok(
            ask!(self.link, "ListPodSandbox", runtime.list_pod_sandbox(message))
                .await?
                .items,
        )
    }

    pub(super) async fn stop_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        lock(&self.stopping).insert(id.clone());
        let message = v1::StopPodSandboxRequest {
            pod_sandbox_id: id.0.clone(),
        };
        ask!(self.link, "StopPodSandbox", runtime.stop_pod_sandbox(message))
            .await
            .map(drop)
    }

    pub(super) async fn remove_pod_sandbox(&self, id: &SandboxId) -> Result<()> {
        let message = v1::RemovePodSandboxRequest {
            pod_sandbox_id: id.0.clone(),
        };
        ask!(self.link, "RemovePodSandbox", runtime.remove_pod_sandbox(message))
            .await
            .map(drop)
    }

    /// A sandbox's status as the runtime tells it.
    pub(super) async fn told_sandbox(
        &self,
        id: &SandboxId,
        verbose: bool,
    ) -> Result<(PodSandboxStatus, BTreeMap<String, String>)> {
        let message = v1::PodSandboxStatusRequest {
            pod_sandbox_id: id.0.clone(),
            verbose,
        };
        let reply = ask!(self.link, "PodSandboxStatus", runtime.pod_sandbox_status(message)).await?;
        let status = reply
            .status
            .ok_or_else(|| lacking(&self.link.who(), "the sandbox's status"))?;
        Ok((view::sandbox_status(status), reply.info.into_iter().collect()))
    }

    pub(super) async fn pod_sandbox_status(
        &self,
        id: &SandboxId,
        verbose: bool,
    ) -> Result<(PodSandboxStatus, BTreeMap<String, String>)> {
        let (status, info) = self.told_sandbox(id, verbose).await?;
        Ok((notes::read_sandbox(status), info))
    }

    pub(super) async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<PodSandboxStatus>> {
        let listed = self
            .list_sandboxes(pod_uid.map(labelled).unwrap_or_default())
            .await?;
        let statuses = stream::iter(listed)
            .map(|sandbox| async move { self.pod_sandbox_status(&SandboxId(sandbox.id), false).await })
            .buffered(AT_ONCE)
            .collect::<Vec<_>>()
            .await;
        there(
            statuses
                .into_iter()
                .map(|status| status.map(|(status, _)| status)),
        )
    }

    pub(super) async fn update_pod_sandbox_resources(
        &self,
        id: &SandboxId,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<()> {
        let limits = |of: Option<LinuxContainerResources>| of.as_ref().map(request::resources).transpose();
        let message = v1::UpdatePodSandboxResourcesRequest {
            pod_sandbox_id: id.0.clone(),
            overhead: limits(overhead)?,
            resources: limits(resources)?,
        };
        ask!(
            self.link,
            "UpdatePodSandboxResources",
            runtime.update_pod_sandbox_resources(message)
        )
        .await
        .map(drop)
    }
}
