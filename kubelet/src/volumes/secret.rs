//! `secret`: a Secret's keys as files, never on a disk.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{KeyToPath, SecretVolumeSource};

use super::atomic_writer::{self, Payload};
use super::payload::{DEFAULT_MODE, Keys, Style};
use super::{Context, VolumeError};

const PLUGIN: &str = "kubernetes.io/secret";

/// Where the volume is.
pub(super) fn path(context: &Context<'_>, name: &str) -> PathBuf {
    context.dir.volume(PLUGIN, name)
}

/// Makes the volume, or brings it up to date.
pub(super) fn set_up(
    context: &Context<'_>,
    name: &str,
    source: &SecretVolumeSource,
) -> Result<(), VolumeError> {
    let style = context.style(source.default_mode.unwrap_or(DEFAULT_MODE));
    let object = source.secret_name.as_deref().unwrap_or_default();
    let optional = source.optional.unwrap_or(false);
    let payload = payload(context, object, source.items.as_deref(), optional, style)?;
    let path = path(context, name);
    super::make_memory_dir(&path, style.group)?;
    atomic_writer::write(&path, &payload).map_err(VolumeError::io("write the files of", &path))?;
    Ok(())
}

/// The files of a Secret.
pub(super) fn payload(
    context: &Context<'_>,
    object: &str,
    items: Option<&[KeyToPath]>,
    optional: bool,
    style: Style,
) -> Result<Payload, VolumeError> {
    let key = (context.namespace().to_owned(), object.to_owned());
    let found = context.objects.secrets.get(&key);
    if found.is_none() && !optional {
        return Err(VolumeError::ObjectNotFound {
            kind: "secret",
            namespace: key.0,
            name: key.1,
        });
    }
    Keys::of_secret(object, found).payload(items, optional, style)
}
