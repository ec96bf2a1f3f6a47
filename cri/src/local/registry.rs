//! The sandboxes that an engine has, found by what is asked for: with hundreds of pods, a walk through all of them for each look
//! at one would be most of what the engine does.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Sandbox, lock};
use crate::types::{ContainerId, SandboxId};

/// All sandboxes, by their id, their pod and their containers.
#[derive(Default)]
pub(super) struct Registry {
    sandboxes: HashMap<SandboxId, Arc<Sandbox>>,
    /// By the UID of the pod, which a sandbox keeps.
    pods: HashMap<String, Vec<SandboxId>>,
    /// Where containers were found. One that is not here may be in any sandbox.
    containers: HashMap<ContainerId, SandboxId>,
}

impl Registry {
    pub(super) fn get(&self, id: &SandboxId) -> Option<&Arc<Sandbox>> {
        self.sandboxes.get(id)
    }

    pub(super) fn contains(&self, id: &SandboxId) -> bool {
        self.sandboxes.contains_key(id)
    }

    pub(super) fn all(&self) -> Vec<Arc<Sandbox>> {
        self.sandboxes.values().cloned().collect()
    }

    pub(super) fn of_pod(&self, uid: &str) -> Vec<Arc<Sandbox>> {
        let ids = self.pods.get(uid).into_iter().flatten();
        ids.filter_map(|id| self.sandboxes.get(id).cloned()).collect()
    }

    /// The sandbox that has a container.
    pub(super) fn of_container(&mut self, id: &ContainerId) -> Option<Arc<Sandbox>> {
        let has = |sandbox: &&Arc<Sandbox>| lock(&sandbox.containers).contains_key(id);
        let known = self.containers.get(id);
        let known = known.and_then(|sandbox| self.sandboxes.get(sandbox)).filter(has);
        if let Some(sandbox) = known {
            return Some(Arc::clone(sandbox));
        }
        let found = self.sandboxes.values().find(has).cloned();
        match &found {
            Some(sandbox) => self.containers.insert(id.clone(), sandbox.id.clone()),
            None => self.containers.remove(id),
        };
        found
    }

    pub(super) fn insert(&mut self, sandbox: Arc<Sandbox>) {
        let uid = lock(&sandbox.record).config.uid.clone();
        let of_pod = self.pods.entry(uid).or_default();
        if !of_pod.contains(&sandbox.id) {
            of_pod.push(sandbox.id.clone());
        }
        self.sandboxes.insert(sandbox.id.clone(), sandbox);
    }

    /// A container has come to be in a sandbox.
    pub(super) fn has_container(&mut self, sandbox: &Sandbox, container: &ContainerId) {
        self.containers.insert(container.clone(), sandbox.id.clone());
    }

    pub(super) fn remove(&mut self, sandbox: &Sandbox) {
        let uid = &lock(&sandbox.record).config.uid;
        if let Some(of_pod) = self.pods.get_mut(uid) {
            of_pod.retain(|id| *id != sandbox.id);
            if of_pod.is_empty() {
                self.pods.remove(uid);
            }
        }
        for container in lock(&sandbox.containers).keys() {
            self.containers.remove(container);
        }
        self.sandboxes.remove(&sandbox.id);
    }

    /// A container is gone.
    pub(super) fn lost_container(&mut self, container: &ContainerId) {
        self.containers.remove(container);
    }
}
