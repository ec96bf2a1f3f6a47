//! Desired pods in, running pods and status out.

pub mod identity;
pub mod logs;
pub mod plan;
pub mod quantity;
pub mod volumes;
