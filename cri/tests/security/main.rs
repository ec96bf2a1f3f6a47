//! What a pod and its containers may do and whom they see, on the real kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod apparmor;
mod bench;
#[path = "../support/busybox.rs"]
mod busybox;
mod namespaces;
#[path = "../support/node.rs"]
mod node;
mod pause;
mod privileges;
mod profiles;
mod selinux;
mod user_namespace;
mod users;
