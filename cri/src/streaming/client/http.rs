//! HTTP as far as to the upgrade, from the client's side.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::tls::Stream;
use super::{Failure, Trust};
use crate::streaming::http::Io;

/// How long the server may take to agree.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What of a refusal is read, in bytes.
const MAX_REFUSAL: usize = 4 << 10;
/// The answer of a server that agrees.
pub(super) struct Switched {
    pub(super) headers: HeaderMap,
    pub(super) io: Io,
}

/// Asks for SPDY; `protocol` is what goes over it.
pub(super) async fn spdy(url: &str, trust: &Trust, protocol: &'static str) -> Result<Io, Failure> {
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
    headers.insert("x-stream-protocol-version", HeaderValue::from_static(protocol));
    let switched = upgrade(url, trust, Method::POST, headers).await?;
    let answered = switched.headers.get("x-stream-protocol-version");
    match answered.map(HeaderValue::as_bytes) {
        Some(chosen) if chosen == protocol.as_bytes() => Ok(switched.io),
        other => Err(Failure::Failed(format!(
            "the streaming server goes on with {:?}, where {protocol} was asked for",
            String::from_utf8_lossy(other.unwrap_or_default())
        ))),
    }
}

/// Asks for a WebSocket (RFC 6455, section 4.1); returns the protocol that the server chose.
pub(super) async fn websocket(
    url: &str,
    trust: &Trust,
    protocols: &'static [&'static str],
) -> Result<(&'static str, Io), Failure> {
    let mut nonce = [0_u8; 16];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Failure::Failed(format!("there are no random numbers: {errno}")))?;
    let key = BASE64.encode(nonce);
    let mut headers = HeaderMap::new();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
    let value = |text: &str| {
        HeaderValue::from_str(text)
            .map_err(|error| Failure::Failed(format!("a header can't be sent: {error}")))
    };
    headers.insert("sec-websocket-key", value(&key)?);
    headers.insert("sec-websocket-protocol", value(&protocols.join(", "))?);
    let switched = upgrade(url, trust, Method::GET, headers).await?;
    let header = |name: &str| switched.headers.get(name).map(HeaderValue::as_bytes);
    if header("sec-websocket-accept") != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
        return Err(Failure::Refused(
            "the streaming server's WebSocket handshake is not one".into(),
        ));
    }
    let chosen = header("sec-websocket-protocol").unwrap_or_default();
    match protocols.iter().find(|protocol| protocol.as_bytes() == chosen) {
        Some(protocol) => Ok((protocol, switched.io)),
        None => Err(Failure::Refused(format!(
            "the streaming server has WebSockets, but none of {}",
            protocols.join(", ")
        ))),
    }
}

async fn upgrade(url: &str, trust: &Trust, method: Method, headers: HeaderMap) -> Result<Switched, Failure> {
    let unreachable = |why: String| Failure::Failed(format!("the streaming server at {} {why}", place(url)));
    match tokio::time::timeout(TIMEOUT, ask(url, trust, method, headers)).await {
        Ok(answer) => answer,
        Err(_) => Err(unreachable(format!(
            "did not answer within {} s",
            TIMEOUT.as_secs()
        ))),
    }
}

/// A URL without its path: that has a token.
fn place(url: &str) -> String {
    url.split('/').take(3).collect::<Vec<_>>().join("/")
}

async fn ask(url: &str, trust: &Trust, method: Method, mut headers: HeaderMap) -> Result<Switched, Failure> {
    let failed = |why: String| Failure::Failed(format!("the streaming server at {} {why}", place(url)));
    let uri: Uri = url
        .parse()
        .map_err(|error| failed(format!("has no URL that can be used: {error}")))?;
    let (tls, usual_port) = match uri.scheme_str() {
        Some("http" | "ws") => (false, 80),
        Some("https" | "wss") => (true, 443),
        _ => return Err(failed("has a URL that is none of http or https".into())),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(usual_port);
    let stream = TcpStream::connect((host.as_str(), port))
        .await
        .map_err(|error| failed(format!("can't be reached: {error}")))?;
    // Keystrokes are not to wait for more.
    let _ = stream.set_nodelay(true);
    let stream: Box<dyn Stream> = match tls {
        true => trust.begin(host, stream).await.map_err(failed)?,
        false => Box::new(stream),
    };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| failed(format!("can't be spoken to: {error}")))?;
    // It ends with the request, or goes on as what the upgrade gives.
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!("A connection to a streaming server ended: {error}.");
        }
    });
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let authority = uri
        .authority()
        .map_or("localhost", |authority| authority.as_str());
    let host =
        HeaderValue::from_str(authority).map_err(|error| failed(format!("has a strange name: {error}")))?;
    headers.insert(HOST, host);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = method;
    *request.uri_mut() = uri
        .path_and_query()
        .map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
    *request.headers_mut() = headers;
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| failed(format!("broke off: {error}")))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(url, response).await);
    }
    let headers = response.headers().clone();
    let upgraded = hyper::upgrade::on(response)
        .await
        .map_err(|error| failed(format!("broke off: {error}")))?;
    Ok(Switched {
        headers,
        io: TokioIo::new(upgraded),
    })
}

async fn refusal(url: &str, response: Response<hyper::body::Incoming>) -> Failure {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_REFUSAL).collect().await;
    let text = body.map_or_else(
        |_| String::new(),
        |body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned(),
    );
    let why = format!("the streaming server at {} answers {status}: {text}", place(url));
    // A token that is not known will not be known to another protocol either.
    match status {
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED => Failure::Failed(why),
        _ => Failure::Refused(why),
    }
}
