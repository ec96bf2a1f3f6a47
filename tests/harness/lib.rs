//! The harness of the black-box tests.
//!
//! A test makes a [`Node`]: a machine of its own as far as berth can tell, with fresh network, mount, UTS and IPC
//! namespaces, a private `/run`, a `--root` and a cgroup subtree. It runs the built programs there and ends with
//! [`Node::finish`], which looks at the kernel: what was not there before and is there now fails the test by name.
//!
//! Namespaces belong to threads: everything a test does on its own thread, and every process it starts, is inside. So
//! tests may share a process (`cargo test`) or have one each (`cargo nextest`, which also gives each a time limit).
//!
//! A harness fails by panicking, as a test does.

mod cgroup;
mod commands;
mod containerd;
mod image;
mod kernel;
mod manifest;
mod moments;
mod net;
mod node;
mod ordinary_user;
mod process;
mod program;
mod registry;
mod running;
mod terminal;
mod wait;
mod wire;

pub use cgroup::{Controller, cgroup_directories};
pub use commands::{Commander, berth};
pub use containerd::Containerd;
pub use image::Layout;
pub use kernel::Kernel;
pub use manifest::{HELPER, container, document, once, once_with, pod};
pub use moments::{Moments, crash_rounds};
pub use net::{Answer, http_get, try_http_get};
pub use node::Node;
pub use ordinary_user::{OrdinaryUser, as_user};
pub use process::{Process, processes};
pub use program::program;
pub use registry::Registry;
pub use running::{Ended, Running};
pub use terminal::Terminal;
pub use wait::{PATIENCE, eventually, eventually_within};
pub use wire::{Wire, tell, tell_datagrams};
