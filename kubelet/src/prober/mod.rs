//! Probes: each probe of each running container is a task that reports its attempts to the pod's worker.
//!
//! Which probes run is the plan's to say ([`crate::plan::ProbeWanted`]); a probe task knows only its own probe.

mod exec;
mod grpc;
mod http_get;
mod outcome;
mod runner;
mod target;
mod tcp_socket;
mod tls;

pub(crate) use http_get::{HttpGet, NO_TLS, attempt as http_get_attempt};
pub use outcome::Outcome;
pub(crate) use runner::{ProbeReport, RunningProbe, run};
pub(crate) use target::of_http_get;

#[cfg(test)]
mod tests;
