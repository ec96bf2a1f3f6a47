//! CRI's image service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::failure::status;
use super::{request, view};
use crate::engine::{Engine, EngineError};
use crate::v1;
use crate::v1::image_service_server::ImageService;

/// The image service over an engine.
pub(super) struct Images {
    engine: Arc<dyn Engine>,
}

type Reply<T> = Result<Response<T>, Status>;

impl Images {
    pub(super) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    async fn list(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, Status> {
        let wanted = filter.and_then(|filter| filter.image).map(|image| image.image);
        let images = match wanted.as_deref() {
            None | Some("") => self.engine.list_images().await.map_err(status)?,
            Some(name) => Vec::from_iter(self.engine.image_status(name).await.map_err(status)?),
        };
        Ok(images.iter().map(view::image).collect())
    }
}

fn name(spec: Option<v1::ImageSpec>) -> Result<String, Status> {
    match spec {
        Some(spec) if !spec.image.is_empty() => Ok(spec.image),
        _ => Err(status(EngineError::InvalidArgument(
            "The request names no image.".to_owned(),
        ))),
    }
}

#[tonic::async_trait]
impl ImageService for Images {
    type StreamImagesStream = super::Pages<v1::StreamImagesResponse>;

    async fn list_images(&self, request: Request<v1::ListImagesRequest>) -> Reply<v1::ListImagesResponse> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(Response::new(v1::ListImagesResponse { images }))
    }

    async fn stream_images(
        &self,
        request: Request<v1::StreamImagesRequest>,
    ) -> Reply<Self::StreamImagesStream> {
        let images = self.list(request.into_inner().filter).await?;
        Ok(Response::new(super::pages(images, |images| {
            v1::StreamImagesResponse { images }
        })))
    }

    async fn image_status(&self, request: Request<v1::ImageStatusRequest>) -> Reply<v1::ImageStatusResponse> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let image = match self.engine.image_status(&name).await {
            Ok(image) => image,
            // What is no name is the name of nothing.
            Err(EngineError::InvalidImageName(_)) => None,
            Err(error) => return Err(status(error)),
        };
        let info = match &image {
            Some(image) if request.verbose => self.engine.image_info(&image.id.0).await.map_err(status)?,
            _ => Default::default(),
        };
        Ok(Response::new(v1::ImageStatusResponse {
            image: image.as_ref().map(view::image),
            info: view::map(&info),
        }))
    }

    async fn pull_image(&self, request: Request<v1::PullImageRequest>) -> Reply<v1::PullImageResponse> {
        let request = request.into_inner();
        let name = name(request.image)?;
        let auth = request::auth(request.auth);
        let id = self
            .engine
            .pull_image(&name, auth, Arc::new(|_| ()))
            .await
            .map_err(status)?;
        Ok(Response::new(v1::PullImageResponse { image_ref: id.0 }))
    }

    async fn remove_image(&self, request: Request<v1::RemoveImageRequest>) -> Reply<v1::RemoveImageResponse> {
        let name = name(request.into_inner().image)?;
        self.engine.remove_image(&name).await.map_err(status)?;
        Ok(Response::new(v1::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<v1::ImageFsInfoRequest>) -> Reply<v1::ImageFsInfoResponse> {
        let info = self.engine.image_fs_info().await.map_err(status)?;
        Ok(Response::new(v1::ImageFsInfoResponse {
            image_filesystems: vec![view::filesystem(&info.images)],
            container_filesystems: vec![view::filesystem(&info.containers)],
        }))
    }
}
