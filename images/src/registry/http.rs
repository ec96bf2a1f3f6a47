//! HTTP/1.1 over TLS, or without it on loopback.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use tokio::net::TcpStream;
use tower_service::Service;

use super::hosts;
use super::tls;
use crate::hosts::Tls;

/// Until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Until the server answers a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const USER_AGENT: &str = concat!("berth/", env!("CARGO_PKG_VERSION"));

type BoxError = Box<dyn Error + Send + Sync>;

/// A client with a pool of connections.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<Route>, Full<Bytes>>,
}

impl Http {
    pub(super) fn new(tls: &Tls) -> Result<Self, String> {
        let tls = tls::config(tls)?;
        let mut direct = HttpConnector::new_with_resolver(Resolver::default());
        direct.enforce_http(false);
        direct.set_connect_timeout(Some(CONNECT_TIMEOUT));
        direct.set_nodelay(true);
        let route = Route {
            direct,
            proxies: Arc::new(Matcher::from_env()),
        };
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(route);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, BoxError> {
        let agent = hyper::header::HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(hyper::header::USER_AGENT, agent);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("it does not answer within {} seconds", ANSWER_TIMEOUT.as_secs()),
            )
            .into()),
        }
    }
}

/// The machine's certificate authorities; `SSL_CERT_FILE` and `SSL_CERT_DIR` are heeded. None on a machine without any,
/// where TLS then fails for want of a known issuer.
pub(super) fn roots() -> &'static Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    })
}

/// Whether the host has certificate authorities.
pub(super) fn has_roots() -> bool {
    !roots().is_empty()
}

/// Whether a host (without port) is this machine by its name: the only ones that plain HTTP is spoken with.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// To the host itself, or through the proxy that the environment names (`HTTPS_PROXY`, `NO_PROXY`).
#[derive(Clone)]
struct Route {
    direct: HttpConnector<Resolver>,
    proxies: Arc<Matcher>,
}

impl Service<Uri> for Route {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.direct.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let loopback = to.host().is_some_and(is_loopback);
        let proxy = if loopback {
            None
        } else {
            self.proxies.intercept(&to)
        };
        let mut direct = self.direct.clone();
        Box::pin(async move {
            let Some(proxy) = proxy else {
                return Ok(direct.call(to).await?);
            };
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            let failed = |e| io::Error::other(format!("the proxy {} failed: {e}", proxy.uri()));
            tunnel.call(to).await.map_err(failed).map_err(Into::into)
        })
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Route")
    }
}

/// DNS by /etc/hosts and /etc/resolv.conf. The C library's would need its plug-ins, which a static program has not.
#[derive(Clone, Default)]
struct Resolver {
    resolver: Arc<OnceLock<TokioResolver>>,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let cell = Arc::clone(&self.resolver);
        Box::pin(async move {
            if name.as_str() == "localhost" {
                let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
                return Ok(loopback.map(|ip| SocketAddr::new(ip, 0)).to_vec().into_iter());
            }
            let known = hosts::addresses(name.as_str());
            if !known.is_empty() {
                let known: Vec<_> = known.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect();
                return Ok(known.into_iter());
            }
            let failed = |e: NetError| {
                let why = if e.is_no_records_found() {
                    String::new()
                } else {
                    format!(": {e}")
                };
                io::Error::new(
                    io::ErrorKind::HostUnreachable,
                    format!("the name {name} has no address{why}"),
                )
            };
            if cell.get().is_none() {
                let resolver = TokioResolver::builder_tokio()
                    .and_then(|builder| builder.build())
                    .map_err(failed)?;
                let _ = cell.set(resolver);
            }
            let Some(resolver) = cell.get() else {
                return Err(io::ErrorKind::HostUnreachable.into());
            };
            let found = resolver.lookup_ip(name.as_str()).await.map_err(failed)?;
            Ok(found
                .iter()
                .map(|ip| SocketAddr::new(ip, 0))
                .collect::<Vec<_>>()
                .into_iter())
        })
    }
}

/// A body for requests that have none.
pub(super) fn empty() -> Full<Bytes> {
    Full::new(Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_by_name() {
        for host in ["localhost", "127.0.0.1", "127.8.9.1", "[::1]", "::1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "localhost.example.com",
            "127.0.0.1.nip.io",
            "10.0.0.1",
            "[::2]",
            "example.com",
            "128.0.0.1",
            "",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
