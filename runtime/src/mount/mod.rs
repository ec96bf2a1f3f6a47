//! A container's mounts: options, sources, targets, and the system calls between them.
//!
//! What comes from the host is opened by the creator, before the container's process exists, as a detached copy of a
//! mount that nobody else sees. New file systems are made by the process itself, because they belong to its
//! namespaces. Both are attached to places that were resolved inside the container's root and are held by descriptor.

mod attach;
mod cgroup;
mod copy_up;
mod elsewhere;
mod empty;
mod host;
mod id_mapped;
mod options;
mod proc;
mod queues;
mod remount;
mod source;
mod target;

pub(crate) use attach::{Attached, attach_all, attach_to, set_propagation};
pub(crate) use cgroup::{attach_cgroups, groups_outside};
pub use elsewhere::Elsewhere;
pub(crate) use empty::empty_directory;
#[cfg(test)]
pub(crate) use id_mapped::user_namespace;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use options::Options;
pub(crate) use options::Propagation;
pub use options::mount_options;
pub use queues::label_queues;
pub use source::clean_path;
pub(crate) use source::{Origin, Prepared, Source, clone_tree, prepare};
pub(crate) use target::{INSIDE, file_in, is_directory, make_directory, open_inside, place, retry};
