//! What a container mounts, and the devices that it has.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::IdMapping;

/// A bind mount, or an image's files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where in the container.
    pub container_path: PathBuf,
    /// What of the host; empty for an image. A missing one becomes a directory.
    pub host_path: PathBuf,
    /// Not writable.
    pub readonly: bool,
    /// Which mounts made later are seen on the other side.
    pub propagation: MountPropagation,
    /// What is mounted below it is not writable either.
    #[serde(default)]
    pub recursive_read_only: bool,
    /// User ids of its files, as they are on the disk (`container`) to what they are in the mount (`host`).
    #[serde(default)]
    pub uid_mappings: Vec<IdMapping>,
    /// Group ids, in the same way.
    #[serde(default)]
    pub gid_mappings: Vec<IdMapping>,
    /// Its files get the container's SELinux label, where the host has SELinux.
    #[serde(default)]
    pub selinux_relabel: bool,
    /// The image whose files it shows.
    #[serde(default)]
    pub image: Option<ImageMount>,
}

/// An image as a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// Its id or a name; it must be in the store.
    pub image: String,
    /// The name by which the user asked for it.
    pub user_specified_image: String,
    /// The image that is mounted; the engine says.
    pub image_ref: String,
    /// A directory in it; empty for all of it.
    pub sub_path: PathBuf,
}

/// mount_namespaces(7), as Kubernetes names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPropagation {
    /// `rprivate`.
    #[default]
    None,
    /// `rslave`.
    HostToContainer,
    /// `rshared`.
    Bidirectional,
}

/// A host device in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Where in the container.
    pub container_path: PathBuf,
    /// What of the host.
    pub host_path: PathBuf,
    /// A combination of `r`, `w`, `m`; empty is all.
    pub permissions: String,
}
