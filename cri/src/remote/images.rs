//! Images.

use std::collections::BTreeMap;

use super::link::{REQUEST_TIMEOUT, within};
use super::{Inner, Result, lock, request, view};
use crate::engine::EngineError;
use crate::types::{AuthConfig, Image, ImageFsInfo, ImageId};
use crate::v1;

fn spec(image: &str) -> v1::ImageSpec {
    v1::ImageSpec {
        image: image.to_owned(),
        ..Default::default()
    }
}

impl Inner {
    /// The id of a container's image. Runtimes of before 1.29 have only a reference, which may be a digest of a manifest.
    pub(super) async fn image_id(&self, id: &str, reference: &str) -> Result<ImageId> {
        let found = if id.is_empty() { reference } else { id };
        if found.is_empty() || found.starts_with("sha256:") || !found.contains(['/', '@', ':']) {
            return Ok(ImageId(found.to_owned()));
        }
        if let Some(known) = lock(&self.image_ids).get(found) {
            return Ok(known.clone());
        }
        let Some(image) = self.image_status(found, false).await?.0 else {
            return Ok(ImageId(found.to_owned()));
        };
        lock(&self.image_ids).insert(found.to_owned(), image.id.clone());
        Ok(image.id)
    }

    pub(super) async fn pull_image(&self, image: &str, auth: Option<AuthConfig>) -> Result<ImageId> {
        let message = v1::PullImageRequest {
            image: Some(spec(image)),
            auth: auth.map(request::auth),
            sandbox_config: None,
        };
        // An image may be large and a registry slow: there is no limit that would be right.
        let call = || async { self.link.images().pull_image(message.clone()).await };
        let reference = self.link.ask_within("PullImage", None, call).await?.image_ref;
        lock(&self.image_ids).clear();
        self.image_id("", &reference).await
    }

    pub(super) async fn image_status(
        &self,
        image: &str,
        verbose: bool,
    ) -> Result<(Option<Image>, BTreeMap<String, String>)> {
        let message = v1::ImageStatusRequest {
            image: Some(spec(image)),
            verbose,
        };
        let call = || async {
            self.link
                .images()
                .image_status(within(REQUEST_TIMEOUT, message.clone()))
                .await
        };
        match self.link.ask("ImageStatus", call).await {
            Ok(reply) => Ok((reply.image.map(view::image), reply.info.into_iter().collect())),
            Err(EngineError::NotFound(_)) => Ok((None, BTreeMap::new())),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn list_images(&self) -> Result<Vec<Image>> {
        let message = v1::ListImagesRequest::default();
        let call = || async {
            self.link
                .images()
                .list_images(within(REQUEST_TIMEOUT, message.clone()))
                .await
        };
        let images = self.link.ask("ListImages", call).await?.images;
        Ok(images.into_iter().map(view::image).collect())
    }

    pub(super) async fn remove_image(&self, image: &str) -> Result<()> {
        let message = v1::RemoveImageRequest {
            image: Some(spec(image)),
        };
        let call = || async {
            self.link
                .images()
                .remove_image(within(REQUEST_TIMEOUT, message.clone()))
                .await
        };
        let removed = self.link.ask("RemoveImage", call).await.map(drop);
        lock(&self.image_ids).clear();
        removed
    }

    pub(super) async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        let message = v1::ImageFsInfoRequest {};
        let call = || async {
            self.link
                .images()
                .image_fs_info(within(REQUEST_TIMEOUT, message))
                .await
        };
        Ok(view::image_fs_info(self.link.ask("ImageFsInfo", call).await?))
    }
}
