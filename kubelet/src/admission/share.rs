//! What each pod has of the node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::identity::PodUid;
use crate::requests::Requests;

/// What one pod has of the node, from its admission to its end.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The pod, with the resources that the node gave it.
    pub(crate) pod: Arc<Pod>,
    /// What it requests.
    pub(crate) requests: Requests,
    /// It is this program's, which can end it to make room for a more important one.
    pub(crate) may_be_ended: bool,
}

impl Share {
    /// What a pod of this program has.
    pub(crate) fn of(pod: Arc<Pod>) -> Self {
        Self {
            requests: Requests::of(&pod),
            pod,
            may_be_ended: true,
        }
    }

    /// The pod's UID.
    pub(super) fn uid(&self) -> PodUid {
        PodUid(self.pod.metadata.uid.clone().unwrap_or_default())
    }
}
