//! From the image store's words to the engine's.

use std::path::PathBuf;
use std::sync::Arc;

use berth_images::{ImageError, Reference, Store};

use super::spec::ImageDefaults;
use crate::engine::EngineError;
use crate::types::{AuthConfig, ContainerId, Image, ImageId, PullProgress};

/// Fetches an image, or finds that it is there already.
pub(super) async fn pull(
    store: &Store,
    image: &str,
    auth: Option<AuthConfig>,
    progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
) -> Result<ImageId, EngineError> {
    let reference: Reference = image.parse().map_err(from_images)?;
    if auth.is_some() {
        return Err(EngineError::Unimplemented(
            "Credentials in the request are not supported; put them into the node's registry configuration."
                .into(),
        ));
    }
    let report = move |at: berth_images::PullProgress| {
        progress(PullProgress {
            layer: at.layer,
            done: at.done,
            total: at.total,
        });
    };
    let pulled = store.pull(&reference, &report).await.map_err(from_images)?;
    Ok(ImageId(pulled.id))
}

/// The image of that name or id, if it is there.
pub(super) fn status(store: &Store, image: &str) -> Result<Option<Image>, EngineError> {
    Ok(store.find(image).map_err(from_images)?.map(known))
}

/// Every image in the store.
pub(super) fn list(store: &Store) -> Result<Vec<Image>, EngineError> {
    Ok(store
        .list()
        .map_err(from_images)?
        .into_iter()
        .map(known)
        .collect())
}

/// Removes an image with all its names; one that is not there is removed.
pub(super) fn remove(store: &Store, image: &str) -> Result<(), EngineError> {
    match store.remove(image, true) {
        Ok(_) | Err(ImageError::NotFound(_)) => Ok(()),
        Err(error) => Err(from_images(error)),
    }
}

fn known(image: berth_images::Image) -> Image {
    Image {
        user: user(&image),
        id: ImageId(image.id),
        repo_tags: image.names,
        repo_digests: image.digests,
        size: image.size,
        pinned: false,
    }
}

/// The image that a container is made from.
pub(super) fn needed(store: &Store, image: &str) -> Result<berth_images::Image, EngineError> {
    store.find(image).map_err(from_images)?.ok_or_else(|| {
        EngineError::NotFound(format!(
            "The image {image} is not here; pull or import it with `berth image`."
        ))
    })
}

/// Keeps the image from being removed as long as the container is there.
pub(super) fn lease(
    store: &Store,
    image: &berth_images::Image,
    owner: &ContainerId,
) -> Result<(), EngineError> {
    store.lease(image, &owner.0).map_err(from_images)
}

/// Lets go of what [`lease`] holds. Idempotent.
pub(super) fn release(store: &Store, owner: &ContainerId) -> Result<(), EngineError> {
    store.release(&owner.0).map_err(from_images)
}

/// An image that a container mounts. The error begins with the word by which the kubelet knows what went wrong.
pub(super) fn mounted(store: &Store, image: &str) -> Result<berth_images::Image, EngineError> {
    let found = store.find(image).map_err(from_images)?;
    found.ok_or_else(|| {
        EngineError::NotFound(format!(
            "ImageVolumeMountFailed: the image {image}, which is to be mounted, is not here; pull it first."
        ))
    })
}

/// The image's read-only layers, the topmost first.
pub(super) fn layers(store: &Store, image: &berth_images::Image) -> Result<Vec<PathBuf>, EngineError> {
    store.lower_dirs(image).map_err(from_images)
}

/// What of the image's configuration becomes part of a container.
pub(super) fn defaults(image: &berth_images::Image) -> ImageDefaults {
    let Some(config) = image.config.config() else {
        return ImageDefaults::default();
    };
    ImageDefaults {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        env: config.env().clone().unwrap_or_default(),
        working_dir: config.working_dir().clone().unwrap_or_default(),
    }
}

/// The image's `User`, as it stands there.
pub(super) fn user(image: &berth_images::Image) -> String {
    image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.user().clone())
        .unwrap_or_default()
}

/// The image's stop signal.
pub(super) fn stop_signal(image: &berth_images::Image) -> Option<String> {
    image
        .config
        .config()
        .as_ref()
        .and_then(|config| config.stop_signal().clone())
}

fn from_images(error: ImageError) -> EngineError {
    let message = error.to_string();
    match error {
        ImageError::InvalidName(_) => EngineError::InvalidImageName(message),
        ImageError::InUse(_) => EngineError::FailedPrecondition(message),
        ImageError::Io(_) => EngineError::Unavailable(message),
        _ => EngineError::ImagePull(message),
    }
}
