//! The streaming server: what a client talks to after CRI's Exec, Attach and PortForward gave it a URL.
//!
//! A URL has a token that is good once and for a minute; whoever may ask for one was authorised by the kubelet. Clients
//! come by WebSocket or by SPDY/3.1. Behind either there is an [`Engine`] that knows of descriptors only.

mod activity;
pub(crate) mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
mod http;
mod port_forward;
mod remote_command;
mod serve;
mod sizes;
pub mod spdy;
mod status;
mod stream;
mod tls;
mod tokens;
mod websocket;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::{Engine, EngineError};
use crate::session::StreamOptions;
use crate::types::{ContainerId, ContainerState, SandboxId};
use tokens::Tokens;

pub use tls::TlsFiles;

/// A connection on which nothing happens is closed after this long (the kubelet's `streamingConnectionIdleTimeout`).
pub const DEFAULT_IDLE_TIMEOUT: Duration = Duration::from_secs(4 * 60 * 60);
/// A SPDY client has this long to open its streams.
pub const DEFAULT_CREATION_TIMEOUT: Duration = Duration::from_secs(30);

/// How the server is reached, and how patient it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamingConfig {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// What URLs begin with, where clients reach it by another name than its address: `https://node:10010/streams/`.
    pub base_url: Option<String>,
    /// Serve TLS. Without it the server should be reached from this machine only.
    pub tls: Option<TlsFiles>,
    /// Close a connection on which nothing happened for that long.
    pub idle_timeout: Duration,
    /// Close a SPDY connection whose client opens less streams than it said for that long.
    pub creation_timeout: Duration,
}

impl Default for StreamingConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            base_url: None,
            tls: None,
            idle_timeout: DEFAULT_IDLE_TIMEOUT,
            creation_timeout: DEFAULT_CREATION_TIMEOUT,
        }
    }
}

/// Why there is no streaming server.
#[derive(Debug, thiserror::Error)]
pub enum StreamingError {
    /// The address is in use, or not this machine's.
    #[error("The streaming server can't listen on {address}: {source}. Choose another address, or port 0.")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The certificate or its key is not usable.
    #[error("The streaming server can't use {}: {why}.", .path.display())]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The base URL is none.
    #[error(
        "The streaming server's base URL {0:?} is not one: it begins with http:// or https:// and a host."
    )]
    BaseUrl(String),
}

/// A command that a client wants to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where.
    pub container: ContainerId,
    /// What.
    pub command: Vec<String>,
    /// By which streams.
    pub options: StreamOptions,
}

/// A container that a client wants to talk to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachRequest {
    /// Which.
    pub container: ContainerId,
    /// By which streams.
    pub options: StreamOptions,
}

/// Ports that a client wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwardRequest {
    /// Whose.
    pub sandbox: SandboxId,
    /// Which; only needed by WebSocket clients that have no other way to say so.
    pub ports: Vec<u16>,
}

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum StreamRequest {
    Exec(ExecRequest),
    Attach(AttachRequest),
    PortForward(PortForwardRequest),
}

/// What every connection needs to know.
struct Shared {
    engine: Arc<dyn Engine>,
    tokens: Tokens,
    /// Where the paths of the base URL begin, with a slash at both ends.
    prefix: String,
    idle_timeout: Duration,
    creation_timeout: Duration,
    stopping: watch::Sender<bool>,
}

/// The server. It stops when it is dropped, with all its connections.
pub struct StreamingServer {
    shared: Arc<Shared>,
    /// With a slash at its end.
    base_url: String,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for StreamingServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamingServer")
            .field("address", &self.address)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

impl StreamingServer {
    /// Listens, and serves from now on.
    ///
    /// # Errors
    /// The address, the base URL or the certificate can't be used.
    pub async fn start(config: StreamingConfig, engine: Arc<dyn Engine>) -> Result<Self, StreamingError> {
        let tls = config.tls.as_ref().map(tls::acceptor).transpose()?;
        let listen = |source| StreamingError::Listen {
            address: config.address,
            source,
        };
        let listener = TcpListener::bind(config.address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut base_url = config
            .base_url
            .unwrap_or_else(|| format!("{scheme}://{address}/"));
        if !base_url.ends_with('/') {
            base_url.push('/');
        }
        let prefix = path_of(&base_url).ok_or_else(|| StreamingError::BaseUrl(base_url.clone()))?;
        let shared = Arc::new(Shared {
            engine,
            tokens: Tokens::default(),
            prefix: prefix.to_owned(),
            idle_timeout: config.idle_timeout,
            creation_timeout: config.creation_timeout,
            stopping: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(http::accept(Arc::clone(&shared), listener, tls));
        Ok(Self {
            shared,
            base_url,
            address,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL at which a command of a running container can be talked to.
    ///
    /// # Errors
    /// The streams make no sense, the container does not run, or too many URLs have not been used.
    pub async fn exec_url(&self, request: ExecRequest) -> Result<String, EngineError> {
        request.options.validate()?;
        self.check_running(&request.container).await?;
        self.url("exec", StreamRequest::Exec(request))
    }

    /// A URL at which a running container can be talked to.
    ///
    /// # Errors
    /// The streams make no sense, the container does not run, or too many URLs have not been used.
    pub async fn attach_url(&self, request: AttachRequest) -> Result<String, EngineError> {
        request.options.validate()?;
        self.check_running(&request.container).await?;
        self.url("attach", StreamRequest::Attach(request))
    }

    /// A URL at which ports of a ready sandbox can be reached.
    ///
    /// # Errors
    /// The sandbox is not ready, or too many URLs have not been used.
    pub async fn port_forward_url(&self, request: PortForwardRequest) -> Result<String, EngineError> {
        let status = self.shared.engine.pod_sandbox_status(&request.sandbox).await?;
        if !status.ready {
            return Err(EngineError::FailedPrecondition(format!(
                "Sandbox {} is not ready; its ports can't be reached.",
                request.sandbox
            )));
        }
        self.url("portforward", StreamRequest::PortForward(request))
    }

    async fn check_running(&self, id: &ContainerId) -> Result<(), EngineError> {
        match self.shared.engine.container_status(id).await?.state {
            ContainerState::Running => Ok(()),
            state => Err(EngineError::FailedPrecondition(format!(
                "Container {id} is not running: its state is {state:?}."
            ))),
        }
    }

    fn url(&self, kind: &str, request: StreamRequest) -> Result<String, EngineError> {
        let token = self.shared.tokens.insert(request)?;
        Ok(format!("{}{kind}/{token}", self.base_url))
    }
}

impl Drop for StreamingServer {
    fn drop(&mut self) {
        self.accepting.abort();
        self.shared.stopping.send_replace(true);
    }
}

/// The path of a URL that ends with a slash.
fn path_of(url: &str) -> Option<&str> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))?;
    let slash = rest.find('/').filter(|slash| *slash > 0)?;
    let plain = !rest.contains(['?', '#', ' ']);
    plain.then(|| &rest[slash..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_has_a_host_and_a_path() {
        assert_eq!(path_of("http://127.0.0.1:10010/"), Some("/"));
        assert_eq!(path_of("https://[::1]/streams/"), Some("/streams/"));
        for bad in ["http:///", "ftp://a/", "a/", "http://a/?b/", "http://a/#/"] {
            assert_eq!(path_of(bad), None, "{bad}");
        }
    }
}
