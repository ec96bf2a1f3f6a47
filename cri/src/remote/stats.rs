//! What containers and sandboxes use, as the other runtime has counted it.

use std::collections::BTreeSet;

use super::link::ask;
use super::{Inner, Result};
use crate::engine::EngineError;
use crate::types::{ContainerId, SandboxId};
use crate::v1;

/// From so many objects on, all are asked for at once and those that are wanted are picked.
const MANY: usize = 8;

impl Inner {
    pub(super) async fn container_stats(&self, ids: &[ContainerId]) -> Result<Vec<v1::ContainerStats>> {
        if ids.len() >= MANY {
            let wanted: BTreeSet<&str> = ids.iter().map(|id| id.0.as_str()).collect();
            let request = v1::ListContainerStatsRequest::default();
            let mut stats = ask!(
                self.link,
                "ListContainerStats",
                runtime.list_container_stats(request)
            )
            .await?
            .stats;
            let id = |stats: &v1::ContainerStats| stats.attributes.as_ref().map(|of| of.id.clone());
            stats.retain(|stats| id(stats).is_some_and(|id| wanted.contains(id.as_str())));
            return Ok(stats);
        }
        let mut found = Vec::new();
        for id in ids {
            let request = v1::ContainerStatsRequest {
                container_id: id.0.clone(),
            };
            match ask!(self.link, "ContainerStats", runtime.container_stats(request)).await {
                Ok(reply) => found.extend(reply.stats),
                // It has gone meanwhile, and uses nothing.
                Err(EngineError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) async fn pod_sandbox_stats(&self, ids: &[SandboxId]) -> Result<Vec<v1::PodSandboxStats>> {
        if ids.len() >= MANY {
            let wanted: BTreeSet<&str> = ids.iter().map(|id| id.0.as_str()).collect();
            let request = v1::ListPodSandboxStatsRequest::default();
            let mut stats = ask!(
                self.link,
                "ListPodSandboxStats",
                runtime.list_pod_sandbox_stats(request)
            )
            .await?
            .stats;
            let id = |stats: &v1::PodSandboxStats| stats.attributes.as_ref().map(|of| of.id.clone());
            stats.retain(|stats| id(stats).is_some_and(|id| wanted.contains(id.as_str())));
            return Ok(stats);
        }
        let mut found = Vec::new();
        for id in ids {
            let request = v1::PodSandboxStatsRequest {
                pod_sandbox_id: id.0.clone(),
            };
            match ask!(self.link, "PodSandboxStats", runtime.pod_sandbox_stats(request)).await {
                Ok(reply) => found.extend(reply.stats),
                Err(EngineError::NotFound(_) | EngineError::FailedPrecondition(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    pub(super) async fn metric_descriptors(&self) -> Result<Vec<v1::MetricDescriptor>> {
        let request = v1::ListMetricDescriptorsRequest {};
        Ok(ask!(
            self.link,
            "ListMetricDescriptors",
            runtime.list_metric_descriptors(request)
        )
        .await?
        .descriptors)
    }

    pub(super) async fn pod_sandbox_metrics(&self) -> Result<Vec<v1::PodSandboxMetrics>> {
        let request = v1::ListPodSandboxMetricsRequest {};
        Ok(ask!(
            self.link,
            "ListPodSandboxMetrics",
            runtime.list_pod_sandbox_metrics(request)
        )
        .await?
        .pod_metrics)
    }
}
