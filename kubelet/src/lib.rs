//! Desired pods in, running pods and status out.

pub mod backoff;
pub mod config;
pub mod defaults;
pub mod env;
pub mod expansion;
pub mod identity;
pub mod logs;
pub mod plan;
pub mod qos;
pub mod quantity;
pub mod resources;
pub mod spec;
pub mod volumes;

#[cfg(test)]
mod testing;
