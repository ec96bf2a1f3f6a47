//! NRI plugins: what they are told, what they may change, and what they can't do to the engine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod adjustments;
mod bench;
#[path = "../support/busybox.rs"]
mod busybox;
mod events;
mod failures;
mod fields;
mod flood;
mod launched;
#[path = "../support/node.rs"]
mod node;
mod plugin;
mod synchronization;
mod updates;
