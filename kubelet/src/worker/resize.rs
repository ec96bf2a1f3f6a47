//! Another size for a pod that runs: what the worker remembers of it, and the steps that change limits.

use std::sync::Arc;

use berth_cri::{ContainerId, LinuxContainerResources, SandboxId};
use k8s_openapi::api::core::v1::{Pod, ResourceRequirements};

use super::event::EventReason;
use super::execute::{Done, Failure, Job, blocking, nothing};
use super::pod::Worker;
use crate::plan::{MemoryCuts, Plan, PodCgroup, Reason, Stage, StepKey};
use crate::requests::Requests;
use crate::resources::{overhead_resources, pod_resources};
use crate::sizes::{Allocation, Sizes};

impl Worker {
    /// The pod with what the node gives it.
    pub(super) fn given(&self) -> Arc<Pod> {
        match &self.memory.sizes {
            Some(sizes) => sizes.allocated.applied(&self.desired.pod),
            None => Arc::clone(&self.desired.pod),
        }
    }

    /// Before the pod becomes another one: if that has other resources, these are a wish from now on.
    pub(super) fn note_wish(&mut self, after: &Pod) {
        let before = &self.desired.pod;
        let allocated = Allocation::of(before);
        if allocated == Allocation::of(after) {
            return;
        }
        // Neither what failed of the last wish nor what of it is being tried is about this one.
        self.memory.forget_failed_resizes();
        self.tasks.outdate(StepKey::is_resize);
        if self.memory.sizes.is_none() {
            self.memory.sizes = Some(Sizes {
                allocated,
                group: pod_resources(before, &self.desired.node),
                ..Sizes::default()
            });
            self.record.sizes.clone_from(&self.memory.sizes);
        }
    }

    /// Enters what the plan gives the pod.
    pub(super) fn note_resize(&mut self, plan: &Plan) {
        let (resize, runs) = (&plan.resize, plan.stage == Stage::Syncing);
        let generation = self.desired.pod.metadata.generation;
        self.announcer.resize(&self.reporter, resize, runs, generation);
        if let (Some(allocated), Some(sizes)) = (&resize.allocated, &mut self.memory.sizes) {
            sizes.allocated.clone_from(allocated);
        }
        self.keep_sizes();
    }

    /// What the pod's group has now.
    pub(super) fn group_is(&mut self, group: LinuxContainerResources) {
        if let Some(sizes) = &mut self.memory.sizes {
            sizes.group = group;
        }
        self.keep_sizes();
    }

    /// What a container has now.
    pub(super) fn container_has(&mut self, id: ContainerId, resources: ResourceRequirements) {
        if let Some(sizes) = &mut self.memory.sizes {
            sizes.containers.insert(id, resources);
        }
        self.keep_sizes();
    }

    fn keep_sizes(&mut self) {
        if self.record.sizes != self.memory.sizes {
            self.record.sizes.clone_from(&self.memory.sizes);
            self.save();
        }
    }

    /// What the node's other pods request, if the pod asks for something that it was not given.
    pub(super) fn others(&self) -> Option<Requests> {
        let sizes = self.memory.sizes.as_ref()?;
        (Allocation::of(&self.desired.pod) != sizes.allocated)
            .then(|| self.node.workers.requested(&self.records, &self.desired.uid))
    }
}

impl Job {
    /// Gives the pod's group other limits.
    pub(super) async fn resize_pod(
        &self,
        cgroup: PodCgroup,
        sandbox: &SandboxId,
        lowers_memory: bool,
    ) -> Result<Done, Failure> {
        let limits = cgroup.resources.clone();
        let node = Arc::clone(&self.node);
        let set = blocking(move || -> Result<(), String> {
            if lowers_memory {
                let used = node.cgroups.memory_usage(&cgroup.path);
                let refusal = cgroup
                    .resources
                    .memory_limit
                    .and_then(|limit| too_low("pod", limit, used));
                if let Some(refusal) = refusal {
                    return Err(format!("cannot decrease memory limits: {refusal}"));
                }
            }
            node.cgroups.ensure(&cgroup).map_err(|error| error.to_string())
        })
        .await?;
        set.map_err(failed)?;
        // Plugins are told; a runtime that does not know the call has nobody to tell.
        let overhead = overhead_resources(&self.desired.pod);
        let told = self
            .node
            .engine
            .update_pod_sandbox_resources(sandbox, overhead, Some(limits.clone()));
        let _ = told.await;
        Ok(Done::Group(limits))
    }

    /// Refuses a resize by which the kernel would have to kill, before anything of it is done.
    pub(super) async fn check_cuts(&self, cuts: &MemoryCuts) -> Result<(), Failure> {
        let mut refusals = Vec::new();
        if let Some((path, limit)) = cuts.pod.clone() {
            let node = Arc::clone(&self.node);
            let used = blocking(move || node.cgroups.memory_usage(&path)).await?;
            refusals.extend(too_low("pod", limit, used));
        }
        let ids: Vec<ContainerId> = cuts.containers.iter().map(|(id, ..)| id.clone()).collect();
        if !ids.is_empty() {
            // An engine that does not say leaves it to the kernel.
            let stats = self.node.engine.container_stats(&ids).await.unwrap_or_default();
            for (id, name, limit) in &cuts.containers {
                let own = stats
                    .iter()
                    .find(|stats| stats.attributes.as_ref().is_some_and(|of| of.id == id.0));
                let used = own.and_then(|stats| stats.memory.as_ref()?.usage_bytes.as_ref());
                let what = format!("container {name:?}");
                refusals.extend(too_low(&what, *limit, used.map(|bytes| bytes.value)));
            }
        }
        match refusals.as_slice() {
            [] => Ok(()),
            [one] => Err(failed(format!("cannot decrease memory limits: {one}"))),
            several => Err(failed(format!(
                "cannot decrease memory limits: [{}]",
                several.join(", ")
            ))),
        }
    }

    /// Gives a container other limits.
    pub(super) async fn resize_container(
        &self,
        id: ContainerId,
        name: &str,
        limits: LinuxContainerResources,
        resources: ResourceRequirements,
    ) -> Result<Done, Failure> {
        let engine = &self.node.engine;
        nothing(engine.update_container_resources(&id, limits).await)?;
        self.reporter.container(
            EventReason::Resized,
            name,
            format!("Container {name} has its new resources"),
        );
        Ok(Done::Resized(id, resources))
    }
}

fn failed(message: String) -> Failure {
    (Reason::FailedSync, message)
}

/// The kernel would kill to get below what is in use.
fn too_low(what: &str, limit: i64, used: Option<u64>) -> Option<String> {
    let used = used.filter(|used| u64::try_from(limit).is_ok_and(|limit| *used >= limit))?;
    Some(format!(
        "attempting to set {what} memory limit ({limit}) below current usage ({used})"
    ))
}
