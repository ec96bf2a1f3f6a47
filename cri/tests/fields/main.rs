//! What a pod or a container is asked to be, and what it is: one file per group of fields.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod bench;
#[path = "../support/busybox.rs"]
mod busybox;
mod devices;
mod images;
mod mounts;
#[path = "../support/node.rs"]
mod node;
mod resources;
