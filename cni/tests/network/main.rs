//! Pods on the real kernel: each test has a network namespace of its own in the place of the host's.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A test that can't go on stops.

mod host;

mod conf;
mod connectivity;
mod crash;
mod host_ports;
mod hostile;
mod third_party;
