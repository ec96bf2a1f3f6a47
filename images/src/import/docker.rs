//! The archives of `docker save`, before docker wrote OCI layouts.

use serde::Deserialize;

use super::bundle::Bundle;
use super::{Found, FoundLayer};
use crate::build;
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::read_config;
use crate::unpack::LayerClaim;

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The images that `manifest.json` tells of.
pub(super) fn find(bundle: &Bundle, manifest: &[u8]) -> Result<Vec<Found>, ImageError> {
    let entries: Vec<Entry> = serde_json::from_slice(manifest)
        .map_err(|e| ImageError::Unsupported(format!("manifest.json can't be read: {e}")))?;
    if entries.is_empty() {
        return Err(ImageError::NotFound(
            "its manifest.json names no image".to_owned(),
        ));
    }
    entries.into_iter().map(|entry| find_one(bundle, entry)).collect()
}

fn find_one(bundle: &Bundle, entry: Entry) -> Result<Found, ImageError> {
    let missing = |name: &str| ImageError::Corrupt(format!("{name} is not in it"));
    let config = bundle
        .document(&entry.config)?
        .ok_or_else(|| missing(&entry.config))?;
    let tags = entry.repo_tags.unwrap_or_default();
    let names = tags
        .iter()
        .map(|tag| tag.parse())
        .collect::<Result<Vec<_>, _>>()?;
    let shown = tags.first().map_or(entry.config.as_str(), String::as_str);
    let diff_ids = read_config(&config, entry.layers.len(), shown)?;
    let mut sizes = Vec::new();
    let mut layers = Vec::new();
    for (member, diff_id) in entry.layers.into_iter().zip(diff_ids) {
        let size = bundle.member(&member)?.ok_or_else(|| missing(&member))?.size();
        sizes.push((diff_id.clone(), size));
        layers.push(FoundLayer {
            claim: LayerClaim {
                name: diff_id.to_string(),
                blob: None,
                diff_id,
            },
            member,
        });
    }
    // The format has no manifest: this is the one that such an image gets when it is pushed without compression.
    let manifest = build::manifest(&config, &sizes);
    Ok(Found {
        names,
        manifest: (Digest::sha256(&manifest), manifest),
        config: (Digest::sha256(&config), config),
        layers,
    })
}
