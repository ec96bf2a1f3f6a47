//! Images, and the space that they take.

use std::path::PathBuf;

pub use berth_images::LayerState;

use super::{ImageId, UnixNanos};

/// An image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration.
    pub id: ImageId,
    /// Names with tags.
    pub repo_tags: Vec<String>,
    /// Names with manifest digests.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// The configuration's `User`, as it stands there.
    pub user: String,
    /// Garbage collection leaves it alone.
    pub pinned: bool,
}

/// What a file system holds of something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// When it was looked at.
    pub timestamp: UnixNanos,
    /// The directory that holds it.
    pub mountpoint: PathBuf,
    /// Bytes on disk.
    pub used_bytes: u64,
    /// Inodes.
    pub inodes_used: u64,
}

/// What images and writable layers take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageFsInfo {
    /// Of images.
    pub images: FilesystemUsage,
    /// Of containers' writable layers.
    pub containers: FilesystemUsage,
}

/// How to show oneself to a registry. What is empty is not there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AuthConfig {
    /// With `password`.
    pub username: String,
    /// With `username`.
    pub password: String,
    /// Both, joined by a colon, in base64.
    pub auth: String,
    /// The registry that these are for; empty is the image's.
    pub server_address: String,
    /// An OAuth2 refresh token.
    pub identity_token: String,
    /// A bearer token.
    pub registry_token: String,
}

/// How far a pull is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer's digest.
    pub layer: String,
    /// Bytes that came so far.
    pub done: u64,
    /// Bytes of the layer.
    pub total: u64,
    /// What is happening to it.
    pub state: LayerState,
}
