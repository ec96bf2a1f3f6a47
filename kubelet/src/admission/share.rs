//! What each pod has of the node.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::requests::Requests;

/// What one pod has of the node, from its admission to its end.
#[derive(Clone, Debug)]
pub(crate) struct Share {
    /// The pod, with the resources that the node gave it.
    pub(crate) pod: Arc<Pod>,
    /// What it requests.
    pub(crate) requests: Requests,
}

impl Share {
    /// What a pod has.
    pub(crate) fn of(pod: Arc<Pod>) -> Self {
        Self {
            requests: Requests::of(&pod),
            pod,
        }
    }
}
