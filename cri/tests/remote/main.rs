//! The engine that is another runtime, over a socket: the same tests run on the built-in engine and on a client of it, so
//! that a caller can't tell them apart; and what only a client can meet.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

mod bench;
#[path = "../support/busybox.rs"]
mod busybox;
mod containerd;
mod events;
mod faults;
mod life;
mod logs;
#[allow(dead_code, reason = "what starts containers there knows one engine only")]
#[path = "../support/node.rs"]
mod node;
mod sessions;
mod tls;
