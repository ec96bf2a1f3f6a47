//! Upstream's rules of what makes a Pod, with upstream's words; and what no kernel takes.

mod claim;
mod container;
mod data;
mod device;
mod environment;
mod error;
mod kernel;
mod metadata;
mod names;
mod pod;
mod priority;
mod probe;
mod resources;
mod scheduling;
mod security;
mod security_annotations;
mod volume;

pub use claim::{validate_claim, validate_volume};
pub use data::{validate_config_map, validate_secret};
pub use error::{FieldError, Problem};
pub use metadata::{validate_data_key, validate_object_meta};
pub use pod::{HostPort, ports_of_host, validate_pod};
pub use priority::validate_priority_class;

pub(crate) use names::{
    extended_resource, label_value as label_value_problem, qualified_name as label_key_problem,
    sysctl as sysctl_name_problem,
};
pub(crate) use security::is_namespaced_sysctl;
pub(crate) use security_annotations::{APP_ARMOR_ANNOTATION, annotated_profile};

use error::Errors;

#[cfg(test)]
mod as_upstream;
#[cfg(test)]
mod tests;
