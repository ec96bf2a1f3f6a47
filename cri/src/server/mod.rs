//! The CRI socket: an engine behind CRI v1's two gRPC services.
//!
//! The face is thin. A request becomes the engine's own types in [`request`], an answer becomes a message in [`view`], and
//! what this runtime can't do is refused by the field's name, never dropped.

mod events;
pub(crate) mod failure;
mod filter;
mod image;
mod lookup;
mod metrics;
pub(crate) mod namespaces;
pub(crate) mod request;
mod runtime;
mod security;
mod streams;
pub(crate) mod view;

use std::future::Future;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

pub use self::metrics::Metrics;
use crate::engine::Engine;
use crate::streaming::StreamingServer;
use crate::v1::image_service_server::ImageServiceServer;
use crate::v1::runtime_service_server::RuntimeServiceServer;

/// The longest message that is taken or sent: what a kubelet sends and takes at most.
const MAX_MESSAGE: usize = 16 << 20;

/// Serves CRI v1 on a socket until `shutdown` is there, and counts the calls; those that are under way are finished then.
/// What Exec, Attach and PortForward lead to is the streaming server over the same engine.
///
/// # Errors
/// The socket can't be listened on any more.
pub async fn serve(
    engine: Arc<dyn Engine>,
    streaming: StreamingServer,
    metrics: Arc<Metrics>,
    listener: UnixListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let runtime = RuntimeServiceServer::new(runtime::Runtime::new(Arc::clone(&engine), streaming))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let image = ImageServiceServer::new(image::Images::new(engine))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    Server::builder()
        .layer(metrics::Counted::new(metrics))
        .add_service(runtime)
        .add_service(image)
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), shutdown)
        .await
}

/// How many objects go into one message of a streamed list.
const PAGE: usize = 100;

/// A list as a stream of messages, none of which can grow past what a client takes.
fn pages<T, M>(mut items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Pages<M> {
    let mut messages = Vec::with_capacity(items.len() / PAGE + 1);
    while !items.is_empty() {
        let rest = items.split_off(items.len().min(PAGE));
        messages.push(Ok(message(items)));
        items = rest;
    }
    tokio_stream::iter(messages)
}

type Pages<M> = tokio_stream::Iter<std::vec::IntoIter<Result<M, tonic::Status>>>;
