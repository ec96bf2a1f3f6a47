//! The ids of pods with users of their own (`hostUsers: false`): each has a range of the node's ids that no other has.

mod claims;
mod supply;

use berth_cri::{IdMapping, UserNamespace};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

pub use claims::ClaimError;
pub(crate) use claims::Claims;

/// How many ids a pod has (`userNamespaces.idsPerPod`).
pub const IDS_PER_POD: u32 = 65_536;

/// The ids that a pod has on the node, for users and groups alike. In the pod they begin with 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIds {
    /// What the pod's root is on the node.
    pub first: u32,
    /// How many there are.
    pub length: u32,
}

impl UserIds {
    /// The range that begins with this id.
    fn beginning_with(first: u32) -> Self {
        UserIds {
            first,
            length: IDS_PER_POD,
        }
    }

    /// As the engine is asked for it.
    pub fn mapping(self) -> Vec<IdMapping> {
        vec![IdMapping {
            container: 0,
            host: self.first,
            size: self.length,
        }]
    }

    /// The user namespace of a pod that has these ids.
    pub fn user_namespace(self) -> UserNamespace {
        UserNamespace {
            uids: self.mapping(),
            gids: self.mapping(),
        }
    }

    /// For people.
    pub fn describe(self) -> String {
        let last = self.length.saturating_sub(1);
        let on_node = self.first.saturating_add(last);
        format!(
            "ids 0 to {last} of the pod are {} to {on_node} of the node",
            self.first
        )
    }
}

/// The pod is to have ids of its own.
pub fn wants_own(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .is_some_and(|spec| spec.host_users == Some(false))
}
