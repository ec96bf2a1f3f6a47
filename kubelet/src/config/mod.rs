//! What the engine is asked for: sandbox and container configurations made from a pod's specification.

mod container;
mod dns;
mod hosts;
mod sandbox;
mod security;

pub use container::{ContainerRequest, to_start_container};
pub use dns::pod_dns;
pub use hosts::hosts_file;
pub use sandbox::{hostname, namespace_options, to_sandbox_config};
pub use security::{check_non_root, container_security};

/// Labels that upstream gives to every sandbox and container.
pub mod labels {
    /// The pod's name.
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    /// The pod's namespace.
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    /// The pod's UID.
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    /// The container's name.
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}
