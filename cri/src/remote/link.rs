//! The connection to the other runtime: where it is, how long its answers may take, and how it is found again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::Instant;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use super::failure;
use crate::engine::EngineError;
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;

/// The longest message that is taken or sent: a kubelet's limit.
const MAX_MESSAGE: usize = 16 << 20;
/// How long most calls may take: a kubelet's `runtimeRequestTimeout`.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// A runtime that is not there is waited for this long, since it may just be restarting.
const RECONNECT_FOR: Duration = Duration::from_secs(5);
/// The pause before the second attempt; each next one is longer by a half and more.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Pauses between attempts: 100 ms at first, then growing to 3 s, as a kubelet's connection has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 8 / 5).min(LONGEST_PAUSE);
        pause
    }
}

/// Where a runtime listens: `unix:///run/containerd/containerd.sock`, or the path alone.
///
/// # Errors
/// It is neither.
pub(super) fn socket_path(endpoint: &str) -> Result<PathBuf, EngineError> {
    let path = match endpoint.split_once(':') {
        Some(("unix", rest)) => rest.strip_prefix("//").unwrap_or(rest),
        Some((scheme, _)) if !scheme.contains('/') => {
            return Err(EngineError::InvalidArgument(format!(
                "The runtime's endpoint {endpoint} has the scheme {scheme}; only unix:///PATH is known, since a runtime is on \
                 the same machine."
            )));
        }
        _ => endpoint,
    };
    if Path::new(path).is_absolute() {
        Ok(PathBuf::from(path))
    } else {
        Err(EngineError::InvalidArgument(format!(
            "The runtime's endpoint {endpoint:?} is not an absolute path; write unix:///run/containerd/containerd.sock, or the \
             path alone."
        )))
    }
}

/// The other runtime.
#[derive(Debug)]
pub(super) struct Link {
    endpoint: String,
    /// Its name and version, once it has told them.
    name: Mutex<String>,
    channel: Channel,
}

impl Link {
    /// A connection that is made with the first call, and again after it has broken.
    pub(super) fn new(endpoint: &str) -> Result<Self, EngineError> {
        let path = socket_path(endpoint)?;
        // The authority of a socket is nobody's name; servers want one that is well-formed.
        let channel = Endpoint::from_static("http://localhost")
            .connect_with_connector_lazy(Connector { path: path.clone() });
        Ok(Self {
            endpoint: format!("unix://{}", path.display()),
            name: Mutex::new("the runtime".to_owned()),
            channel,
        })
    }

    /// Where it listens.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Who it is, for people.
    pub(super) fn who(&self) -> String {
        let name = self.name.lock().unwrap_or_else(PoisonError::into_inner);
        format!("{name} at {}", self.endpoint)
    }

    pub(super) fn set_name(&self, name: String) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }

    /// The runtime service.
    pub(super) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        RuntimeServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// The image service.
    pub(super) fn images(&self) -> ImageServiceClient<Channel> {
        ImageServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE)
            .max_encoding_message_size(MAX_MESSAGE)
    }

    /// Waits for an answer, for ever if there is no limit. A request that never left, because the connection turned out to
    /// be an old one, is sent again. See [`ask`], which knows the methods.
    pub(super) async fn send<M, T, F>(
        &self,
        verb: &str,
        limit: Option<Duration>,
        message: M,
        call: impl Fn(Request<M>) -> F,
    ) -> Result<T, EngineError>
    where
        M: Clone,
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let request = || {
            let mut request = Request::new(message.clone());
            if let Some(limit) = limit {
                // The other side gives up, too, when its time is over.
                request.set_timeout(limit);
            }
            request
        };
        let work = async {
            match call(request()).await {
                Err(status) if failure::never_left(&status) => call(request()).await,
                answer => answer,
            }
        };
        let answer = match limit {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(answer) => answer,
                Err(_) => {
                    return Err(EngineError::DeadlineExceeded(format!(
                        "{} did not answer {verb} within {} s.",
                        self.who(),
                        limit.as_secs_f64()
                    )));
                }
            },
        };
        answer
            .map(Response::into_inner)
            .map_err(|status| failure::error(self, verb, &status))
    }
}

/// A call of the other runtime by its name in messages, its service and its method, as long as most calls may take or
/// `within` another limit (`Option<Duration>`): `ask!(link, "StopPodSandbox", runtime.stop_pod_sandbox(message)).await`.
macro_rules! ask {
    ($link:expr, $verb:literal, $service:ident.$method:ident($message:expr)) => {
        ask!($link, $verb within Some(crate::remote::link::REQUEST_TIMEOUT), $service.$method($message))
    };
    ($link:expr, $verb:literal within $limit:expr, $service:ident.$method:ident($message:expr)) => {
        $link.send($verb, $limit, $message, |request| {
            let mut client = $link.$service();
            async move { client.$method(request).await }
        })
    };
}
pub(super) use ask;

/// Connects to the socket, with patience.
#[derive(Clone, Debug)]
struct Connector {
    path: PathBuf,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        connect(self.path.clone()).boxed()
    }
}

async fn connect(path: PathBuf) -> io::Result<TokioIo<UnixStream>> {
    let until = Instant::now() + RECONNECT_FOR;
    let mut pauses = Backoff::default();
    loop {
        let error = match UnixStream::connect(&path).await {
            Ok(stream) => return Ok(TokioIo::new(stream)),
            Err(error) => error,
        };
        let restarting = matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::WouldBlock
        );
        let next = Instant::now() + pauses.next();
        if !restarting || next > until {
            return Err(error);
        }
        tokio::time::sleep_until(next).await;
    }
}

/// Whether somebody listens there, without waiting.
///
/// # Errors
/// A sentence that says why nobody can be asked.
pub(super) async fn probe(endpoint: &str) -> Result<(), EngineError> {
    let path = socket_path(endpoint)?;
    match UnixStream::connect(&path).await {
        Ok(_) => Ok(()),
        Err(error) => Err(EngineError::Unavailable(format!(
            "No runtime can be reached at unix://{}: {error}. Is it running, and is that its socket?",
            path.display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_socket_or_its_path() {
        for good in ["unix:///run/x.sock", "/run/x.sock", "unix:/run/x.sock"] {
            assert_eq!(socket_path(good).unwrap(), Path::new("/run/x.sock"), "{good}");
        }
        assert_eq!(socket_path("/run/a:b").unwrap(), Path::new("/run/a:b"));
        for bad in [
            "tcp://127.0.0.1:1",
            "run/x.sock",
            "",
            "unix://run/x.sock",
            "npipe:////./pipe/x",
        ] {
            let error = socket_path(bad).unwrap_err().to_string();
            assert!(error.contains("unix:///"), "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_their_longest() {
        let mut pauses = Backoff::default();
        let all: Vec<_> = (0..12).map(|_| pauses.next()).collect();
        assert_eq!(all[0], FIRST_PAUSE);
        assert!(all.is_sorted());
        assert_eq!(all[11], LONGEST_PAUSE);
    }
}
