//! OCI image layouts.

use std::collections::BTreeMap;

use super::bundle::Bundle;
use super::{Found, FoundLayer};
use crate::digest::Digest;
use crate::error::ImageError;
use crate::manifest::{Descriptor, MAX_CONFIG, MAX_MANIFEST, Manifest, choose, read_config};
use crate::reference::Reference;
use crate::unpack::LayerClaim;

/// The full name; docker and containerd write it.
const FULL_NAME: &str = "io.containerd.image.name";
/// A full name, or only a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The images that `index.json` tells of: of those that have one name, the one for this machine.
pub(super) fn find(bundle: &Bundle, index: &[u8]) -> Result<Vec<Found>, ImageError> {
    let bad = |why: String| ImageError::Unsupported(format!("index.json can't be used: {why}"));
    let Manifest::Index(entries) = Manifest::parse(index).map_err(bad)? else {
        return Err(bad("it is no index".to_owned()));
    };
    let mut by_name: BTreeMap<Option<String>, Vec<Descriptor>> = BTreeMap::new();
    for entry in entries {
        by_name.entry(name_of(&entry)).or_default().push(entry);
    }
    if by_name.is_empty() {
        return Err(ImageError::NotFound("its index.json names no image".to_owned()));
    }
    by_name
        .into_iter()
        .map(|(name, entries)| find_one(bundle, name, &entries))
        .collect()
}

/// An image's name. A mere tag is none.
fn name_of(entry: &Descriptor) -> Option<String> {
    let full = entry.annotations.get(FULL_NAME);
    full.or_else(|| {
        entry
            .annotations
            .get(REF_NAME)
            .filter(|name| name.contains(['/', ':']))
    })
    .cloned()
}

fn find_one(bundle: &Bundle, name: Option<String>, entries: &[Descriptor]) -> Result<Found, ImageError> {
    let names: Vec<Reference> = name.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let shown = name.unwrap_or_else(|| "its image".to_owned());
    let mut chosen = choose(entries, &shown)?.clone();
    let bad = |why: String| ImageError::Unsupported(format!("{shown} can't be used: {why}"));
    for _ in 0..3 {
        let bytes = blob(bundle, &chosen, MAX_MANIFEST)?;
        match Manifest::parse(&bytes).map_err(bad)? {
            Manifest::Index(entries) => chosen = choose(&entries, &shown)?.clone(),
            Manifest::Image { config, layers } => {
                let config_bytes = blob(bundle, &config, MAX_CONFIG)?;
                let diff_ids = read_config(&config_bytes, layers.len(), &shown)?;
                let layers = layers
                    .into_iter()
                    .zip(diff_ids)
                    .map(|(layer, diff_id)| found_layer(layer, diff_id));
                return Ok(Found {
                    names,
                    layers: layers.collect(),
                    manifest: (chosen.digest, bytes),
                    config: (config.digest, config_bytes),
                });
            }
        }
    }
    Err(bad("its indexes are nested too deep".to_owned()))
}

fn found_layer(layer: Descriptor, diff_id: Digest) -> FoundLayer {
    FoundLayer {
        member: path_of(&layer.digest),
        claim: LayerClaim {
            name: layer.digest.to_string(),
            blob: Some((layer.digest, layer.size)),
            diff_id,
        },
    }
}

fn path_of(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

fn blob(bundle: &Bundle, descriptor: &Descriptor, limit: u64) -> Result<Vec<u8>, ImageError> {
    let path = path_of(&descriptor.digest);
    let Some(bytes) = bundle.document(&path)? else {
        return Err(ImageError::Corrupt(format!("{path} is not in it")));
    };
    let mut hasher = descriptor.digest.hasher();
    hasher.update(&bytes);
    if bytes.len() as u64 != descriptor.size || hasher.finish() != descriptor.digest {
        return Err(ImageError::Corrupt(format!(
            "{path} is not what its digest or its size says"
        )));
    }
    if bytes.len() as u64 > limit {
        return Err(ImageError::Refused(format!(
            "{path} is longer than {limit} bytes"
        )));
    }
    Ok(bytes)
}
