//! Desired pods in, running pods and status out.

pub mod admission;
pub mod annotations;
pub mod backoff;
pub mod claims;
pub mod config;
pub mod defaulting;
pub mod defaults;
mod durable;
mod duration;
pub mod env;
pub mod env_file;
pub mod expansion;
pub mod harmless;
pub mod identity;
mod lacking;
mod lifecycle;
mod local_storage;
pub mod logs;
pub mod manifest;
pub mod plan;
pub mod pod_resources;
pub mod probe;
pub mod prober;
mod pull_secrets;
pub mod pulls;
pub mod qos;
pub mod quantity;
mod refers;
pub mod requests;
pub mod resources;
pub mod sizes;
pub mod spec;
pub mod standalone;
pub mod status;
pub mod user_ids;
pub mod validation;
pub mod volumes;
mod watch;
pub mod worker;

pub use lacking::Lacking;

#[cfg(test)]
mod testing;
