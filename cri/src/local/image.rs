//! From the image store's words to the engine's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use berth_images::{AuthEntry, Credentials, ImageError, Reference, Store};

use super::spec::ImageDefaults;
use crate::engine::EngineError;
use crate::types::{AuthConfig, ContainerId, Image, ImageId, PullProgress};

/// Where berth's own images say that they are from.
const BUILT_IN_REGISTRY: &str = "berth.local";

/// Fetches an image, or finds that it is there already.
pub(super) async fn pull(
    store: &Store,
    image: &str,
    auth: Option<AuthConfig>,
    progress: Arc<dyn Fn(PullProgress) + Send + Sync>,
) -> Result<ImageId, EngineError> {
    let reference: Reference = image.parse().map_err(from_images)?;
    // What comes with berth comes from no registry, so `imagePullPolicy: Always`, the default of `:latest`, finds it here.
    if reference.registry() == BUILT_IN_REGISTRY
        && let Some(found) = store.find(image).map_err(from_images)?
    {
        return Ok(ImageId(found.id));
    }
    let report = move |at: berth_images::PullProgress| {
        progress(PullProgress {
            layer: at.layer,
            done: at.done,
            total: at.total,
            state: at.state,
        });
    };
    let credentials = auth.map(|auth| credentials(auth, &reference)).transpose()?;
    let pulled = match credentials.flatten() {
        Some(credentials) => store.pull_with(&reference, credentials, &report).await,
        None => store.pull(&reference, &report).await,
    };
    let pulled = pulled.map_err(from_images)?;
    Ok(ImageId(pulled.id))
}

/// What a request has for the image's registry; `None` if it is meant for another one.
fn credentials(auth: AuthConfig, reference: &Reference) -> Result<Option<Credentials>, EngineError> {
    let server = auth.server_address.as_str();
    let server = server
        .strip_prefix("https://")
        .or_else(|| server.strip_prefix("http://"))
        .unwrap_or(server);
    let host = server.split('/').next().unwrap_or_default();
    // Docker Hub has many names.
    let same = host == reference.registry()
        || (host.ends_with("docker.io") && reference.registry().ends_with("docker.io"));
    if !host.is_empty() && !same {
        return Ok(None);
    }
    let text = |value: String| (!value.is_empty()).then_some(value);
    let entry = AuthEntry {
        auth: text(auth.auth),
        username: text(auth.username),
        password: text(auth.password),
        identitytoken: text(auth.identity_token),
        registrytoken: text(auth.registry_token),
    };
    entry.credentials().map(Some).map_err(|why| {
        EngineError::InvalidArgument(format!("The credentials for {reference} can't be used: {why}."))
    })
}

/// The image of that name or id, if it is there.
pub(super) fn status(store: &Store, image: &str, pinned: &[String]) -> Result<Option<Image>, EngineError> {
    let found = store.find(image).map_err(from_images)?;
    Ok(found.map(|image| known(image, pinned)))
}

/// Every image in the store.
pub(super) fn list(store: &Store, pinned: &[String]) -> Result<Vec<Image>, EngineError> {
    let all = store.list().map_err(from_images)?;
    Ok(all.into_iter().map(|image| known(image, pinned)).collect())
}

/// Removes an image with all its names; one that is not there is removed.
pub(super) fn remove(store: &Store, image: &str) -> Result<(), EngineError> {
    match store.remove(image, true) {
        Ok(_) | Err(ImageError::NotFound(_)) => Ok(()),
        Err(error) => Err(from_images(error)),
    }
}

fn known(image: berth_images::Image, pinned: &[String]) -> Image {
    let is_pinned = |name: &String| pinned.iter().any(|pattern| berth_images::fits(pattern, name));
    Image {
        pinned: image.names.iter().chain(&image.digests).any(is_pinned),
        user: user(&image),
        id: ImageId(image.id),
        repo_tags: image.names,
        repo_digests: image.digests,
        size: image.size,
    }
}

/// An image as `crictl inspecti` shows it.
pub(super) fn info(store: &Store, image: &str) -> Result<BTreeMap<String, String>, EngineError> {
    let image = needed(store, image)?;
    let info = serde_json::json!({ "imageSpec": image.config, "manifest": image.manifest });
    Ok(BTreeMap::from([("info".to_owned(), info.to_string())]))
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
    // The store leaves the end to whoever prints it.
    let message = format!("{error}.");
    match error {
        ImageError::InvalidName(_) => EngineError::InvalidImageName(message),
        ImageError::InUse(_) => EngineError::FailedPrecondition(message),
        ImageError::Io(_) => EngineError::Unavailable(message),
        _ => EngineError::ImagePull(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_the_registry_that_they_name() {
        let reference: Reference = "registry.example.com:5000/a:1".parse().unwrap();
        let auth = |server: &str| AuthConfig {
            username: "u".into(),
            password: "p".into(),
            server_address: server.into(),
            ..Default::default()
        };
        let basic = Some(Credentials::Basic {
            username: "u".into(),
            password: "p".into(),
        });
        let table = [
            ("", basic.clone()),
            ("registry.example.com:5000", basic.clone()),
            ("https://registry.example.com:5000/v2/", basic),
            ("other.example.com", None),
        ];
        for (server, expected) in table {
            assert_eq!(
                credentials(auth(server), &reference).unwrap(),
                expected,
                "{server}"
            );
        }
        let hub: Reference = "nginx".parse().unwrap();
        assert!(
            credentials(auth("https://index.docker.io/v1/"), &hub)
                .unwrap()
                .is_some()
        );
        let broken = AuthConfig {
            auth: "!".into(),
            ..Default::default()
        };
        assert!(credentials(broken, &reference).is_err());
    }
}
