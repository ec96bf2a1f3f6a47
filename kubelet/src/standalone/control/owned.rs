//! The pods that a process answers for.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use berth_cri::{ContainerState, ContainerStatus};
use k8s_openapi::api::core::v1::Pod;

use super::protocol::{Refusal, RefusalKind, SentWorkload};
use crate::identity::PodUid;
use crate::plan::Objects;
use crate::spec;
use crate::worker::{Node, PodControl, Records};

/// A pod of which nobody takes care, but for what is asked about it, has no control.
type Pods = BTreeMap<PodUid, (Arc<Pod>, Option<PodControl>)>;

/// The pods that this process answers for.
pub(in crate::standalone) struct Owned {
    pub(super) node: Arc<Node>,
    pods: Mutex<Pods>,
    /// What the pods were given.
    objects: Mutex<BTreeMap<PodUid, Arc<Objects>>>,
    /// Takes on more pods; only the daemon does.
    pub(super) taker: Option<Arc<dyn Taker>>,
}

/// Takes on pods that others bring.
#[async_trait]
pub(in crate::standalone) trait Taker: Send + Sync {
    /// Takes all of them on, or says why not.
    async fn take(self: Arc<Self>, workload: SentWorkload) -> Result<Vec<super::Taken>, String>;
    /// Notes that a pod is to be removed, before it is.
    fn leave(&self, uid: &PodUid) -> io::Result<()>;
    /// Notes what a pod is from now on.
    fn change(&self, pod: &Pod, objects: &Objects) -> io::Result<()>;
}

impl Owned {
    /// Answers for no pod yet.
    pub(in crate::standalone) fn new(node: Arc<Node>, taker: Option<Arc<dyn Taker>>) -> Self {
        Self {
            node,
            pods: Mutex::default(),
            objects: Mutex::default(),
            taker,
        }
    }

    /// Answers for this pod from now on. What was added to it while it ran stays, though no file says it: that is known
    /// from before, or from the record of an earlier owner.
    pub(in crate::standalone) fn add(&self, uid: PodUid, pod: Arc<Pod>, control: Option<PodControl>) {
        let mut pods = self.lock();
        let known = pods.get(&uid).map(|(pod, _)| Arc::clone(pod));
        let before = known.or_else(|| {
            // One that can't be read has nothing to say.
            let record = Records::new(&self.node.kubelet_root).load(&uid).ok()?;
            record.map(|record| Arc::new(record.pod))
        });
        let pod = match before {
            Some(before) => spec::with_added(pod, &before),
            None => pod,
        };
        pods.insert(uid, (pod, control));
    }

    /// Remembers what a pod has of ConfigMaps and Secrets from now on.
    pub(in crate::standalone) fn keep(&self, uid: PodUid, objects: Arc<Objects>) {
        self.objects().insert(uid, objects);
    }

    /// Does not any more.
    pub(in crate::standalone) fn remove(&self, uid: &PodUid) {
        self.lock().remove(uid);
        self.objects().remove(uid);
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<PodUid, Arc<Objects>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a pod has of ConfigMaps and Secrets.
    pub(super) fn objects_of(&self, uid: &PodUid) -> Result<Arc<Objects>, Refusal> {
        self.objects().get(uid).cloned().ok_or_else(not_mine)
    }

    fn lock(&self) -> MutexGuard<'_, Pods> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pod(&self, uid: &PodUid) -> Result<Arc<Pod>, Refusal> {
        let found = self.lock().get(uid).map(|(pod, _)| Arc::clone(pod));
        found.ok_or_else(not_mine)
    }

    pub(super) fn control(&self, uid: &PodUid) -> Result<PodControl, Refusal> {
        let pods = self.lock();
        let (_, control) = pods.get(uid).ok_or_else(not_mine)?;
        control.clone().ok_or_else(|| {
            Refusal::other(
                "Nobody runs this pod, so nobody would start its containers: `berth run` it again first.",
            )
        })
    }

    /// The running container of that name.
    pub(super) async fn running(&self, uid: &PodUid, name: &str) -> Result<ContainerStatus, Refusal> {
        let pod = self.pod(uid)?;
        let containers = self.node.engine.list_containers(Some(&uid.0)).await?;
        let mut named: Vec<_> = containers.into_iter().filter(|c| c.config.name == name).collect();
        named.sort_by_key(|container| (container.config.attempt, container.created_at));
        let running = named
            .pop()
            .filter(|container| container.state == ContainerState::Running);
        running.ok_or_else(|| {
            Refusal::other(format!(
                "Container {name} of pod {}/{} does not run.",
                spec::namespace(&pod),
                spec::name(&pod)
            ))
        })
    }
}

fn not_mine() -> Refusal {
    Refusal {
        kind: RefusalKind::NotMine,
        message: "The pod has been handed to another process meanwhile; try again.".to_owned(),
        exit_code: None,
    }
}
