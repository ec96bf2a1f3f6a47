//! Containers that are to be made from checkpoints, which are refused by name.

use std::path::Path;

use serde_json::Value;

use crate::engine::EngineError;
use crate::local::Inner;

/// What makes an image that of a checkpoint: any of these on its manifest, as CRI-O and containerd have named it.
const ANNOTATIONS: [&str; 3] = [
    "org.criu.checkpoint.container.name",
    "io.kubernetes.cri-o.annotations.checkpoint.name",
    "checkpointctl.annotation.checkpoint.name",
];

/// Refuses an image that is the path of a checkpoint's archive, or was made of one: it has no program that could be started.
pub(in crate::local) fn refuse(inner: &Inner, image: &str) -> Result<(), EngineError> {
    if !is_archive(image) && !is_of_checkpoint(inner, image) {
        return Ok(());
    }
    Err(EngineError::Unimplemented(format!(
        "The image {image} is a checkpoint; berth writes checkpoints, but does not restore containers from them."
    )))
}

fn is_archive(image: &str) -> bool {
    image.starts_with('/') && Path::new(image).is_file()
}

fn is_of_checkpoint(inner: &Inner, image: &str) -> bool {
    // One that is missing or damaged is told of by whoever needs it.
    let Some(found) = inner.images.find(image).ok().flatten() else {
        return false;
    };
    let Ok(manifest) = inner.images.manifest(&found) else {
        return false;
    };
    let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
    is_marked(&manifest)
}

fn is_marked(manifest: &Value) -> bool {
    let annotations = &manifest["annotations"];
    ANNOTATIONS.iter().any(|name| annotations[*name].is_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn checkpoints_are_known() {
        assert!(is_archive("/etc/passwd") && !is_archive("/nosuch.tar") && !is_archive("etc/passwd"));
        assert!(is_marked(
            &json!({ "annotations": { "org.criu.checkpoint.container.name": "c" } })
        ));
        assert!(!is_marked(
            &json!({ "annotations": { "org.opencontainers.image.title": "c" } })
        ));
        assert!(!is_marked(&json!({})));
    }
}
