//! An image as the store knows it.

use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::error::ImageError;
use crate::store::Record;

/// An image in the store.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The digest of its configuration, `sha256:…`: what CRI calls the image's id.
    pub id: String,
    /// Names with tags, in full: `docker.io/library/nginx:1.27`. Empty once its last tag was taken by another image.
    pub names: Vec<String>,
    /// Names with manifest digests: `docker.io/library/nginx@sha256:…`.
    pub digests: Vec<String>,
    /// The digest of the manifest that was chosen for this platform.
    pub manifest: String,
    /// Bytes of the unpacked layers and the configuration on disk. Layers shared with other images count in each.
    pub size: u64,
    /// When it was pulled or imported last, in seconds since the Unix epoch.
    pub fetched_at: u64,
    /// When a container used it last, or when it came, in seconds since the Unix epoch. One that is in use may be in use for
    /// longer.
    pub last_used: u64,
    pub(crate) fetched_at_nanos: u64,
    /// What the image says about how to run it.
    pub config: ImageConfiguration,
    /// Names of its snapshots, bottom first.
    pub(crate) snapshots: Vec<String>,
}

impl Image {
    pub(crate) fn from_parts(
        id: &str,
        record: Record,
        config: &[u8],
        last_used: u64,
    ) -> Result<Self, ImageError> {
        let config = serde_json::from_slice(config).map_err(|e| {
            ImageError::Unsupported(format!("the configuration of image {id} can't be read: {e}"))
        })?;
        Ok(Self {
            id: id.to_owned(),
            names: record.names.into_iter().collect(),
            digests: record.digests.into_iter().collect(),
            manifest: record.manifest,
            size: record.size,
            fetched_at: record.fetched_at / 1_000_000_000,
            last_used: last_used / 1_000_000_000,
            fetched_at_nanos: record.fetched_at,
            config,
            snapshots: record.snapshots,
        })
    }
}

/// How far a pull is with one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullProgress {
    /// The layer's digest.
    pub layer: String,
    /// Bytes that came so far.
    pub done: u64,
    /// Bytes of the layer as it is transferred.
    pub total: u64,
    /// What is happening to it.
    pub state: LayerState,
}

/// What is happening to a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LayerState {
    /// It waits for a free slot, or for another pull that fetches it already.
    Waiting,
    /// It is being downloaded and unpacked at the same time.
    Fetching,
    /// It is complete.
    Complete,
    /// It was there before.
    Exists,
}
