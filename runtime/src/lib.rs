//! OCI runtime library: a spec in, processes out.
//!
//! [`create`] makes a container from an OCI runtime configuration and stops right before its program; the returned
//! [`Created`] starts it. [`exec`] adds a process to a running container, and [`start_pause`] makes the process that
//! holds a pod's namespaces. Everything is synchronous; the calling process must be single-threaded, because
//! containers begin as copies of it, without a program of the runtime's in between.

pub mod cgroups;
mod channel;
mod check;
mod child;
mod copy;
mod create;
mod dbus;
mod descriptors;
mod devices;
mod error;
mod exec;
mod executable;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod gate;
mod group;
mod hooks;
mod identity;
mod idmap;
mod label;
mod launcher;
mod listener;
mod mask;
mod memory_policy;
mod mount;
mod mountinfo;
mod namespaces;
mod net_devices;
mod netlink;
mod number_list;
pub mod oci;
pub mod output;
mod pause;
mod personality;
mod pivot;
mod process;
mod program;
mod repeater;
mod resctrl;
mod restore;
mod rootfs;
mod schedule;
pub mod seccomp;
mod spawn;
mod state;
mod stdio;
mod sys;
mod sysctl;
mod terminal;

pub use cgroups::is_machines_root;
pub use channel::Ended;
pub use check::check_id;
pub use copy::{run_in_copy, start_program};
pub use create::{CreateArgs, Created, create, hook_state, start_at};
pub use error::{Error, Result};
pub use exec::{ExecTarget, Execed, exec};
pub use executable::protect_executable;
pub use hooks::{HookState, run_poststart, run_poststop};
pub use identity::capability_names;
pub use launcher::Launcher;
pub use mount::{Elsewhere, clean_path, label_queues, mount_options};
pub use namespaces::JoinedNamespaces;
pub use pause::{HeldNamespaces, Pause, PauseArgs, UserIds, start_pause};
pub use process::forget_starters_signals;
pub use repeater::{Repeater, Repetition};
pub use resctrl::{remove_resctrl_groups, update_resctrl_group};
pub use restore::{Restoring, is_bind, run_create_runtime};
pub use rootfs::Rootfs;
pub use state::{FirstProcess, Record, StateDir, StateRoot, process_stat};
pub use stdio::Stdio;
pub use sys::{Arena, give_memory_back, send_signal, since_epoch, small_libc};
