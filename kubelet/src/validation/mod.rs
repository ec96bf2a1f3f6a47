//! Upstream's rules of what makes a Pod, with upstream's words.

mod claim;
mod container;
mod device;
mod environment;
mod error;
mod metadata;
mod names;
mod pod;
mod probe;
mod resources;
mod security;
mod volume;

pub use claim::{validate_claim, validate_volume};
pub use error::{FieldError, Problem};
pub use metadata::{validate_data_key, validate_object_meta};
pub use pod::{HostPort, ports_of_host, validate_pod};

pub(crate) use names::sysctl as sysctl_name_problem;
pub(crate) use security::is_namespaced_sysctl;

use error::Errors;

#[cfg(test)]
mod tests;
