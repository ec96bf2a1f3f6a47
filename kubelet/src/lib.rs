//! Desired pods in, running pods and status out.

pub mod identity;
pub mod plan;
