//! The httpGet probe: a URL that answers with a status of 200 to 399.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::http::uri::Uri;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::outcome::Outcome;
use super::tls;
use crate::defaults::{MAX_PROBE_OUTPUT, PROBE_USER_AGENT};

/// More redirects than this are a failure.
const MAX_REDIRECTS: usize = 10;
/// What is said of a server that was asked by TLS and answered without.
pub(crate) const NO_TLS: &str = "server gave HTTP response to HTTPS client";

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HttpGet {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// A host name or address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// Asks once. Redirects to the same host are followed, all within the time limit.
pub(crate) async fn attempt(get: &HttpGet, limit: Duration) -> Outcome {
    match timeout(limit, follow(get)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(message)) => Outcome::Failure(format!("Get \"{}\": {message}", url(get))),
        Err(_) => Outcome::Failure(format!("Get \"{}\": no answer within {limit:?}", url(get))),
    }
}

fn url(get: &HttpGet) -> String {
    let host = if get.host.contains(':') {
        format!("[{}]", get.host)
    } else {
        get.host.clone()
    };
    let slash = if get.path.starts_with('/') { "" } else { "/" };
    format!(
        "{}://{host}:{}{slash}{}",
        get.scheme.to_ascii_lowercase(),
        get.port,
        get.path
    )
}

async fn follow(get: &HttpGet) -> Result<Outcome, String> {
    let first: Uri = url(get).parse().map_err(|error| format!("not a URL: {error}"))?;
    let mut uri = first.clone();
    // Connections end with this set, whatever ends this future.
    let mut connections = JoinSet::new();
    for _ in 0..=MAX_REDIRECTS {
        let response = request(&uri, &get.headers, &mut connections).await?;
        let status = response.status();
        let Some(next) = redirect(&uri, &response) else {
            let body = read_body(response).await;
            return Ok(judge(status, &body));
        };
        let next = next?;
        if next.host() != first.host() {
            return Ok(Outcome::Warning(
                "Probe terminated redirects, Response body: ".to_owned(),
            ));
        }
        uri = next;
    }
    Err(format!("stopped after {MAX_REDIRECTS} redirects"))
}

fn judge(status: StatusCode, body: &[u8]) -> Outcome {
    let code = status.as_u16();
    match code {
        200..=299 => Outcome::Success,
        300..=399 => Outcome::Warning(format!(
            "Probe terminated redirects, Response body: {}",
            text(body)
        )),
        _ => Outcome::Failure(format!("HTTP probe failed with statuscode: {code}")),
    }
}

fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(body).trim().to_owned()
}

async fn request(
    uri: &Uri,
    headers: &[(String, String)],
    connections: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, String> {
    let text = |error: std::io::Error| error.to_string();
    let secure = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        other => return Err(format!("the scheme {other:?} is neither http nor https")),
    };
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let stream = TcpStream::connect((host, port)).await.map_err(text)?;
    if secure {
        let stream = tls::connect(host, stream).await.map_err(|error| {
            if tls::is_none(&error) {
                NO_TLS.to_owned()
            } else {
                text(error)
            }
        })?;
        send(stream, uri, headers, connections).await
    } else {
        send(stream, uri, headers, connections).await
    }
}

async fn send(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    uri: &Uri,
    headers: &[(String, String)],
    connections: &mut JoinSet<hyper::Result<()>>,
) -> Result<Response<Incoming>, String> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|error| error.to_string())?;
    let target = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(target).body(Empty::<Bytes>::new());
    let mut request = request.map_err(|error| error.to_string())?;
    *request.headers_mut() = header_map(uri, headers)?;
    connections.spawn(connection);
    sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())
}

fn header_map(uri: &Uri, headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("{name:?} is not a header name"))?;
        let value: HeaderValue = value
            .parse()
            .map_err(|_| format!("{value:?} is not a header value"))?;
        map.append(name, value);
    }
    if !map.contains_key(HOST) {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        map.insert(
            HOST,
            authority
                .parse()
                .map_err(|_| format!("{authority:?} is not a host"))?,
        );
    }
    map.entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(PROBE_USER_AGENT));
    map.entry(ACCEPT).or_insert(HeaderValue::from_static("*/*"));
    map.insert(CONNECTION, HeaderValue::from_static("close"));
    // `Accept: ""` and `User-Agent: ""` ask for the header to be left out.
    for name in [ACCEPT, USER_AGENT] {
        if map.get(&name).is_some_and(HeaderValue::is_empty) {
            map.remove(name);
        }
    }
    Ok(map)
}

/// Where a redirect leads; `None` if the response is none.
fn redirect(from: &Uri, response: &Response<Incoming>) -> Option<Result<Uri, String>> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = response.headers().get(LOCATION)?;
    Some(match location.to_str() {
        Ok(location) => resolve(from, location),
        Err(_) => Err("the Location header is not text".to_owned()),
    })
}

/// A reference relative to a URL (RFC 3986, section 5.2, without the removal of dot segments).
fn resolve(from: &Uri, location: &str) -> Result<Uri, String> {
    let scheme = from.scheme_str().unwrap_or("http");
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let absolute = if location.contains("://") {
        location.to_owned()
    } else if let Some(rest) = location.strip_prefix("//") {
        format!("{scheme}://{rest}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.starts_with('?') {
        format!("{scheme}://{authority}{}{location}", from.path())
    } else {
        let directory = from.path().rfind('/').map_or("/", |slash| &from.path()[..=slash]);
        format!("{scheme}://{authority}{directory}{location}")
    };
    let absolute = absolute.split('#').next().unwrap_or_default();
    absolute
        .parse()
        .map_err(|_| format!("the Location {location:?} is not a URL"))
}

/// The beginning of the body. A longer one is not read on, and one that breaks off is not an error.
async fn read_body(response: Response<Incoming>) -> Vec<u8> {
    let mut body = Limited::new(response.into_body(), MAX_PROBE_OUTPUT);
    let mut read = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data() {
            read.extend_from_slice(&data);
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_resolved() {
        let from: Uri = "http://10.0.0.1:80/a/b?q".parse().unwrap();
        for (location, expected) in [
            ("/x", "http://10.0.0.1:80/x"),
            ("x?y", "http://10.0.0.1:80/a/x?y"),
            ("?z", "http://10.0.0.1:80/a/b?z"),
            ("//other/x", "http://other/x"),
            ("https://10.0.0.1/x#frag", "https://10.0.0.1/x"),
        ] {
            assert_eq!(
                resolve(&from, location).unwrap().to_string(),
                expected,
                "{location}"
            );
        }
        assert!(resolve(&from, "http://[bad").is_err());
    }

    #[test]
    fn headers_have_defaults_that_can_be_replaced() {
        let uri: Uri = "http://10.0.0.1:8080/".parse().unwrap();
        let map = header_map(&uri, &[]).unwrap();
        assert_eq!(map[HOST], "10.0.0.1:8080");
        assert_eq!(map[USER_AGENT], PROBE_USER_AGENT);
        let own = [("Host", "me"), ("user-agent", "x"), ("Accept", "")];
        let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let map = header_map(&uri, &own).unwrap();
        assert_eq!(
            (&map[HOST], &map[USER_AGENT]),
            (&HeaderValue::from_static("me"), &HeaderValue::from_static("x"))
        );
        assert!(!map.contains_key(ACCEPT));
        assert!(header_map(&uri, &[("a b".to_owned(), String::new())]).is_err());
    }
}
