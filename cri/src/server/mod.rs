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
mod sound;
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

/// About how many bytes of objects go into one message of a streamed list: less than any client takes.
const PAGE: usize = 2 << 20;

/// A list as a stream of messages, none of which can grow past what a client takes.
fn pages<T: prost::Message, M>(items: Vec<T>, message: impl Fn(Vec<T>) -> M) -> Pages<M> {
    let (mut messages, mut page, mut size) = (Vec::new(), Vec::new(), 0);
    for item in items {
        let length = item.encoded_len();
        if !page.is_empty() && size + length > PAGE {
            messages.push(Ok(message(std::mem::take(&mut page))));
            size = 0;
        }
        size += length;
        page.push(item);
    }
    if !page.is_empty() {
        messages.push(Ok(message(page)));
    }
    tokio_stream::iter(messages)
}

type Pages<M> = tokio_stream::Iter<std::vec::IntoIter<Result<M, tonic::Status>>>;

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[test]
    fn pages_are_cut_by_their_size() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let lengths = |sizes: &[usize]| -> Vec<usize> {
            let items: Vec<Vec<u8>> = sizes.iter().map(|size| vec![1; *size]).collect();
            let pages = runtime.block_on(pages(items, |items| items.len()).collect::<Vec<_>>());
            pages.into_iter().map(Result::unwrap).collect()
        };
        assert_eq!(lengths(&[]), [0; 0]);
        assert_eq!(lengths(&[10; 5000]), [5000]);
        assert_eq!(lengths(&[PAGE / 2 - 100, PAGE / 2 - 100, 1000]), [2, 1]);
        assert_eq!(lengths(&[3 * PAGE, 1]), [1, 1]);
    }
}
