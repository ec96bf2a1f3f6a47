//! The system calls that no crate wraps safely. The only place of the workspace where `unsafe` is allowed.
#![allow(unsafe_code)]

mod allocator;
pub(crate) mod bpf;
mod clock;
mod clone;
mod exec;
mod heap;
mod keyring;
mod mount_attr;
mod namespace;
mod own_program;
mod personality;
mod schedule;
pub(crate) mod seccomp;
mod send_signal;
mod sendmmsg;
mod signal;
pub mod small_libc;

pub use allocator::{Arena, give_memory_back};
pub use clock::since_epoch;
pub(crate) use clone::{CAN_SPAWN_WITHIN, CloneArgs, Spawned, Stack, spawn, spawn_within};
pub(crate) use exec::{CStrings, close_range, execute_again, execve};
pub(crate) use keyring::join_session_keyring;
pub(crate) use mount_attr::{MountAttr, mount_setattr};
pub(crate) use namespace::namespace_kind;
pub(crate) use own_program::run_from;
pub(crate) use personality::set_personality;
pub(crate) use schedule::{
    SchedulingAttributes, set_io_priority, set_memory_policy, set_scheduling, use_all_processors,
};
pub use send_signal::send_signal;
pub(crate) use sendmmsg::sendmmsg_descriptor;
pub(crate) use signal::{default_own_signals, default_signals, end_when_asked};
