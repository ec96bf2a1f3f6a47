//! Talking to containers: exec, attach and port-forward, by descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bench;
mod client;
mod exec;
mod port_forward;
mod refusals;
mod sessions;
