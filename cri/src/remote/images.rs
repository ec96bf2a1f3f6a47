//! Images.

use std::collections::BTreeMap;

use super::link::ask;
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
        let reference = ask!(self.link, "PullImage" within None, images.pull_image(message))
            .await?
            .image_ref;
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
        match ask!(self.link, "ImageStatus", images.image_status(message)).await {
            Ok(reply) => Ok((reply.image.map(view::image), reply.info.into_iter().collect())),
            Err(EngineError::NotFound(_)) => Ok((None, BTreeMap::new())),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn list_images(&self) -> Result<Vec<Image>> {
        let message = v1::ListImagesRequest::default();
        let images = ask!(self.link, "ListImages", images.list_images(message))
            .await?
            .images;
        Ok(images.into_iter().map(view::image).collect())
    }

    pub(super) async fn remove_image(&self, image: &str) -> Result<()> {
        let message = v1::RemoveImageRequest {
            image: Some(spec(image)),
        };
        let removed = ask!(self.link, "RemoveImage", images.remove_image(message))
            .await
            .map(drop);
        lock(&self.image_ids).clear();
        removed
    }

    pub(super) async fn image_fs_info(&self) -> Result<ImageFsInfo> {
        let message = v1::ImageFsInfoRequest {};
        Ok(view::image_fs_info(
            ask!(self.link, "ImageFsInfo", images.image_fs_info(message)).await?,
        ))
    }
}
