//! `projected`: several sources in one directory, in memory because some may be secret.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ProjectedVolumeSource, VolumeProjection};

use super::atomic_writer::{self, Payload};
use super::payload::{DEFAULT_MODE, Style};
use super::{Context, VolumeError, config_map, downward_api, secret};

const PLUGIN: &str = "kubernetes.io/projected";

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    context.dir.volume(PLUGIN, name)
}

/// Makes the volume, or brings it up to date.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &ProjectedVolumeSource,
) -> Result<(), VolumeError> {
    let style = context.style(source.default_mode.unwrap_or(DEFAULT_MODE));
    let mut payload = Payload::new();
    for projection in source.sources.as_deref().unwrap_or_default() {
        // As upstream, a key of a later source takes the place of an earlier one. Paths that are given by name are validated.
        payload.extend(source_payload(context, name, projection, style)?);
    }
    let path = path(context, name);
    super::make_memory_dir(&path, style.group)?;
    atomic_writer::write(&path, &payload).map_err(VolumeError::io("write the files of", &path))?;
    Ok(())
}

fn source_payload(
    context: &Context<'_>,
    volume: &str,
    projection: &VolumeProjection,
    style: Style,
) -> Result<Payload, VolumeError> {
    if let Some(source) = &projection.config_map {
        let optional = source.optional.unwrap_or(false);
        return config_map::payload(context, &source.name, source.items.as_deref(), optional, style);
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional.unwrap_or(false);
        return secret::payload(context, &source.name, source.items.as_deref(), optional, style);
    }
    if let Some(source) = &projection.downward_api {
        return downward_api::payload(context, source.items.as_deref().unwrap_or_default(), style);
    }
    Err(VolumeError::Unsupported(format!(
        "projected volume \"{volume}\" has a source that is not supported yet; configMap, downwardAPI and secret are"
    )))
}
