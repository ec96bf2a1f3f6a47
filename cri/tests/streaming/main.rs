//! Talking to containers: exec, attach and port-forward, by descriptors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bench;
#[path = "../support/busybox.rs"]
mod busybox;
mod client;
mod exec;
#[path = "../support/node.rs"]
mod node;
mod port_forward;
mod refusals;
mod sessions;
