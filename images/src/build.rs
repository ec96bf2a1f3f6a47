//! Images made in memory: the embedded one, and those of tests.

use std::collections::BTreeSet;

use oci_spec::image::Config;
use serde_json::json;

use crate::digest::Digest;
use crate::error::ImageError;
use crate::image::Image;
use crate::manifest::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::pack::tar::TarWriter;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{LayerSlot, NewImage, Store};
use crate::unpack::{Budget, LayerClaim, TarEntry, TarKind};

/// A file of a layer.
#[derive(Clone, Debug)]
pub struct File {
    /// Relative to the root: `etc/passwd`. Parents that are not named are made.
    pub path: String,
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What it is.
    pub content: Content,
}

/// What a file is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A regular file with these bytes.
    Regular(Vec<u8>),
    /// A directory.
    Directory,
    /// A symbolic link to there.
    Symlink(String),
    /// Another name of an earlier file.
    HardLink(String),
}

impl File {
    /// A regular file of root's.
    pub fn regular(path: &str, mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            uid: 0,
            gid: 0,
            content: Content::Regular(bytes.into()),
        }
    }

    /// A directory of root's.
    pub fn directory(path: &str, mode: u32) -> Self {
        Self {
            path: path.to_owned(),
            mode,
            uid: 0,
            gid: 0,
            content: Content::Directory,
        }
    }

    /// A symbolic link.
    pub fn symlink(path: &str, target: &str) -> Self {
        Self {
            path: path.to_owned(),
            mode: 0o777,
            uid: 0,
            gid: 0,
            content: Content::Symlink(target.to_owned()),
        }
    }

    /// The same file of another user.
    #[must_use]
    pub fn owned_by(self, uid: u32, gid: u32) -> Self {
        Self { uid, gid, ..self }
    }
}

/// The uncompressed tar archive of a layer with these files.
pub fn layer(files: &[File]) -> Vec<u8> {
    let mut archive = TarWriter::new(Vec::new());
    let mut add = |file: &File| {
        let (kind, link, mut contents): (TarKind, &str, &[u8]) = match &file.content {
            Content::Regular(bytes) => (TarKind::Regular, "", bytes),
            Content::Directory => (TarKind::Directory, "", &[]),
            Content::Symlink(target) => (TarKind::Symlink, target, &[]),
            Content::HardLink(target) => (TarKind::HardLink, target, &[]),
        };
        let entry = TarEntry {
            name: file.path.clone().into_bytes(),
            link: link.as_bytes().to_vec(),
            mode: file.mode,
            uid: file.uid,
            gid: file.gid,
            ..TarEntry::of(kind)
        };
        let size = contents.len() as u64;
        archive.add(&entry, &mut contents, size)
    };
    // Memory takes whatever is written.
    let written = files.iter().try_for_each(&mut add);
    written.and_then(|()| archive.finish()).unwrap_or_default()
}

/// Makes an image of one layer with these files, as [`layered`] does. Blocking.
///
/// # Errors
/// As [`Store::pull`], but for the registry's.
pub fn single_layer(
    store: &Store,
    name: &Reference,
    files: &[File],
    config: &Config,
) -> Result<Image, ImageError> {
    layered(store, name, &[files], config)
}

/// Makes an image with a layer for each list of files, the lowest first, and puts it into the store under a name. The same
/// files and configuration make the same image, which is then only looked up. Blocking.
///
/// # Errors
/// As [`Store::pull`], but for the registry's.
pub fn layered(
    store: &Store,
    name: &Reference,
    layers: &[&[File]],
    config: &Config,
) -> Result<Image, ImageError> {
    let layers: Vec<Vec<u8>> = layers.iter().map(|files| layer(files)).collect();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    let platform = Platform::host();
    let config = json!({
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids.iter().map(Digest::as_str).collect::<Vec<_>>()},
        "history": [],
    });
    let config = config.to_string().into_bytes();
    let sizes = layers.iter().map(|layer| layer.len() as u64);
    let manifest = manifest(&config, &diff_ids.iter().cloned().zip(sizes).collect::<Vec<_>>());
    let id = Digest::sha256(&config);
    if let Some(image) = store.find(&name.to_string())?
        && image.id == id.as_str()
    {
        return Ok(image);
    }
    let operation = store.begin()?;
    for (layer, diff_id) in layers.iter().zip(&diff_ids) {
        if let Some(slot) = LayerSlot::acquire(&operation, diff_id)? {
            let claim = LayerClaim {
                name: diff_id.to_string(),
                blob: None,
                diff_id: diff_id.clone(),
            };
            let budget = Budget::new(store.options().limits);
            slot.unpack(&operation, &layer[..], &claim, &budget)?;
        }
    }
    let manifest_digest = Digest::sha256(&manifest);
    let new = NewImage {
        digests: BTreeSet::from([format!("{}@{manifest_digest}", name.name())]),
        names: name.tag().map(|_| name.to_string()).into_iter().collect(),
        manifest: (manifest_digest, manifest),
        config: (id, config),
        diff_ids,
    };
    let image = new.commit(&operation);
    store.settler().wake();
    image
}

/// The manifest of an image whose layers are not compressed: their digests are their diff ids.
pub(crate) fn manifest(config: &[u8], layers: &[(Digest, u64)]) -> Vec<u8> {
    let layers: Vec<serde_json::Value> = layers
        .iter()
        .map(|(digest, size)| json!({"mediaType": OCI_LAYER, "digest": digest.as_str(), "size": size}))
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": Digest::sha256(config).as_str(), "size": config.len()},
        "layers": layers,
    })
    .to_string()
    .into_bytes()
}
