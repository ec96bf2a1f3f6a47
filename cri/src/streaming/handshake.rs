//! Which protocol a client wants to go on with: WebSocket or SPDY, and what is spoken over it.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, StatusCode, Version};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::websocket::Codec;

const STREAM_PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED_PROTOCOLS: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const WEBSOCKET_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WEBSOCKET_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");
const WEBSOCKET_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const SPDY: &str = "SPDY/3.1";
/// SPDY through a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// What of exec and attach changed over time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features {
    /// The client says how large its terminal is, since version 3.
    pub(super) resize: bool,
    /// The end is told as `metav1.Status`, since version 4.
    pub(super) json_status: bool,
}

/// Exec and attach by SPDY, the best first.
const REMOTE_COMMAND: [(&str, Features); 4] = [
    ("v4.channel.k8s.io", features(true, true)),
    ("v3.channel.k8s.io", features(true, false)),
    ("v2.channel.k8s.io", features(false, false)),
    ("channel.k8s.io", features(false, false)),
];

const PORT_FORWARD: [(&str, ()); 1] = [("portforward.k8s.io", ())];

/// Exec and attach by WebSocket. A client that names none gets the oldest.
const WEBSOCKET_REMOTE_COMMAND: [(&str, (Codec, Features)); 6] = [
    ("v5.channel.k8s.io", (codec(false, true), features(true, true))),
    ("v4.channel.k8s.io", (codec(false, false), features(true, true))),
    (
        "v4.base64.channel.k8s.io",
        (codec(true, false), features(true, true)),
    ),
    ("channel.k8s.io", (codec(false, false), features(true, false))),
    (
        "base64.channel.k8s.io",
        (codec(true, false), features(true, false)),
    ),
    ("", (codec(false, false), features(true, false))),
];

/// Port-forward by WebSocket: its own channels, or the tunnel (`None`).
const WEBSOCKET_PORT_FORWARD: [(&str, Option<Codec>); 4] = [
    (TUNNEL, None),
    ("v4.channel.k8s.io", Some(codec(false, false))),
    ("v4.base64.channel.k8s.io", Some(codec(true, false))),
    ("", Some(codec(false, false))),
];

const fn features(resize: bool, json_status: bool) -> Features {
    Features { resize, json_status }
}

const fn codec(base64: bool, half_close: bool) -> Codec {
    Codec { base64, half_close }
}

/// How exec and attach go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RemoteCommand {
    WebSocket(Codec, Features),
    Spdy(Features),
}

/// How port-forward goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PortForward {
    WebSocket(Codec),
    Tunnel,
    Spdy,
}

/// Why there is nothing to go on with.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    pub(super) headers: HeaderMap,
}

/// A request that makes no sense.
pub(super) fn bad_request(message: impl Into<String>) -> Box<Refusal> {
    Box::new(Refusal {
        status: StatusCode::BAD_REQUEST,
        message: message.into(),
        headers: HeaderMap::new(),
    })
}

/// What the answer that switches protocols says.
pub(super) type Agreed<T> = Result<(T, HeaderMap), Box<Refusal>>;

/// Agrees with a client of exec or attach.
pub(super) fn remote_command(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
) -> Agreed<RemoteCommand> {
    if is_websocket(headers) {
        let ((codec, features), answer) = websocket(method, version, headers, &WEBSOCKET_REMOTE_COMMAND)?;
        return Ok((RemoteCommand::WebSocket(codec, features), answer));
    }
    let (features, answer) = spdy(version, headers, &REMOTE_COMMAND)?;
    Ok((RemoteCommand::Spdy(features), answer))
}

/// Agrees with a client of port-forward.
pub(super) fn port_forward(method: &Method, version: Version, headers: &HeaderMap) -> Agreed<PortForward> {
    if is_websocket(headers) {
        let (codec, answer) = websocket(method, version, headers, &WEBSOCKET_PORT_FORWARD)?;
        return Ok((codec.map_or(PortForward::Tunnel, PortForward::WebSocket), answer));
    }
    let ((), answer) = spdy(version, headers, &PORT_FORWARD)?;
    Ok((PortForward::Spdy, answer))
}

/// The elements of a header that is a list, in one line or several.
fn list<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter();
    lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
        .filter(|element| !element.is_empty())
}

fn upgrades_to(headers: &HeaderMap, protocol: &str) -> bool {
    list(headers, &CONNECTION).any(|option| option.eq_ignore_ascii_case("upgrade"))
        && list(headers, &UPGRADE).any(|wanted| wanted.eq_ignore_ascii_case(protocol))
}

fn is_websocket(headers: &HeaderMap) -> bool {
    upgrades_to(headers, "websocket")
}

/// The client's first choice that is known.
fn choose<T: Copy>(
    mut wanted: impl Iterator<Item = impl AsRef<str>>,
    known: &[(&'static str, T)],
) -> Option<(&'static str, T)> {
    wanted.find_map(|wanted| known.iter().find(|(name, _)| *name == wanted.as_ref()).copied())
}

fn names<T>(known: &[(&'static str, T)]) -> String {
    let names: Vec<_> = known
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.is_empty())
        .collect();
    names.join(", ")
}

fn answer(pairs: impl IntoIterator<Item = (HeaderName, String)>) -> Result<HeaderMap, Box<Refusal>> {
    let mut headers = HeaderMap::new();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    for (name, value) in pairs {
        let value = HeaderValue::from_str(&value)
            .map_err(|_| bad_request("unable to upgrade: a header can't be answered"))?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn spdy<T: Copy>(version: Version, headers: &HeaderMap, known: &[(&'static str, T)]) -> Agreed<T> {
    if version != Version::HTTP_11 || !upgrades_to(headers, SPDY) {
        return Err(bad_request(
            "unable to upgrade: missing upgrade headers in request: send \"Connection: Upgrade\" and \"Upgrade: websocket\" \
             or \"Upgrade: SPDY/3.1\"",
        ));
    }
    let wanted: Vec<_> = list(headers, &STREAM_PROTOCOL).collect();
    if wanted.is_empty() {
        return Err(bad_request(
            "unable to upgrade: X-Stream-Protocol-Version is required",
        ));
    }
    match choose(wanted.iter(), known) {
        Some((name, chosen)) => {
            let pairs = [(UPGRADE, SPDY.to_owned()), (STREAM_PROTOCOL, name.to_owned())];
            Ok((chosen, answer(pairs)?))
        }
        None => {
            let mut headers = HeaderMap::new();
            for (name, _) in known {
                headers.append(ACCEPTED_PROTOCOLS, HeaderValue::from_static(name));
            }
            Err(Box::new(Refusal {
                status: StatusCode::FORBIDDEN,
                message: format!(
                    "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
                    wanted.join(", "),
                    names(known)
                ),
                headers,
            }))
        }
    }
}

fn websocket<T: Copy>(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    known: &[(&'static str, T)],
) -> Agreed<T> {
    let key = headers.get(WEBSOCKET_KEY).filter(|key| key.len() == 24);
    let (Some(key), Version::HTTP_11, &Method::GET) = (key, version, method) else {
        return Err(bad_request(
            "unable to upgrade: this is not a WebSocket handshake (RFC 6455, section 4.1)",
        ));
    };
    if headers
        .get(WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        let mut refusal = bad_request("unable to upgrade: the version of WebSocket is 13");
        refusal.status = StatusCode::UPGRADE_REQUIRED;
        refusal
            .headers
            .insert(WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(refusal);
    }
    let mut wanted: Vec<_> = list(headers, &WEBSOCKET_PROTOCOL).collect();
    if wanted.is_empty() {
        wanted.push("");
    }
    let Some((name, chosen)) = choose(wanted.iter(), known) else {
        let mut refusal = bad_request(format!(
            "unable to upgrade: requested protocol(s) are not supported: [{}]; supports [{}]",
            wanted.join(", "),
            names(known)
        ));
        refusal.status = StatusCode::FORBIDDEN;
        return Err(refusal);
    };
    let accept = derive_accept_key(key.as_bytes());
    let protocol = (!name.is_empty()).then(|| (WEBSOCKET_PROTOCOL, name.to_owned()));
    let pairs = [
        (UPGRADE, "websocket".to_owned()),
        (HeaderName::from_static("sec-websocket-accept"), accept),
    ];
    Ok((chosen, answer(pairs.into_iter().chain(protocol))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    fn spdy_with(protocols: &[&'static str]) -> Agreed<RemoteCommand> {
        let mut all = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        all.extend(
            protocols
                .iter()
                .map(|protocol| ("x-stream-protocol-version", *protocol)),
        );
        remote_command(&Method::POST, Version::HTTP_11, &headers(&all))
    }

    fn websocket_with(protocols: &'static str) -> Agreed<RemoteCommand> {
        let all = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocols),
        ];
        remote_command(&Method::GET, Version::HTTP_11, &headers(&all))
    }

    #[test]
    fn the_first_protocol_of_the_client_that_is_known_is_spoken() {
        let (chosen, answer) =
            spdy_with(&["v9.channel.k8s.io", "v3.channel.k8s.io, channel.k8s.io"]).unwrap();
        assert_eq!(chosen, RemoteCommand::Spdy(features(true, false)));
        assert_eq!(answer[STREAM_PROTOCOL], "v3.channel.k8s.io");
        let (chosen, answer) = websocket_with("v5.channel.k8s.io, v4.channel.k8s.io").unwrap();
        assert_eq!(
            chosen,
            RemoteCommand::WebSocket(codec(false, true), features(true, true))
        );
        assert_eq!(answer[WEBSOCKET_PROTOCOL], "v5.channel.k8s.io");
        // RFC 6455, section 1.3.
        assert_eq!(answer["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (chosen, answer) = websocket_with("").unwrap();
        assert_eq!(
            chosen,
            RemoteCommand::WebSocket(codec(false, false), features(true, false))
        );
        assert!(!answer.contains_key(WEBSOCKET_PROTOCOL));
    }

    #[test]
    fn who_speaks_nothing_that_is_known_hears_what_is() {
        let refusal = spdy_with(&["v9.channel.k8s.io"]).unwrap_err();
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
        assert_eq!(refusal.headers.get_all(ACCEPTED_PROTOCOLS).iter().count(), 4);
        assert!(
            refusal.message.contains("v9.channel.k8s.io"),
            "{}",
            refusal.message
        );
        assert_eq!(spdy_with(&[]).unwrap_err().status, StatusCode::BAD_REQUEST);
        assert_eq!(websocket_with("chat").unwrap_err().status, StatusCode::FORBIDDEN);
        let none = remote_command(&Method::GET, Version::HTTP_11, &HeaderMap::new());
        assert_eq!(none.unwrap_err().status, StatusCode::BAD_REQUEST);
    }
}
