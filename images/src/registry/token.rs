//! Tokens: the distribution specification's and docker's "token authentication".

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, StatusCode, Uri};
use serde::Deserialize;

use super::body::read_limited;
use super::challenge::Challenge;
use super::failure::{Failure, Subject};
use super::http::{Http, empty, is_loopback};
use crate::credentials::Credentials;

/// The largest answer of a token server.
const MAX_ANSWER: u64 = 1 << 20;
const CLIENT_ID: &str = "berth";

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// The value of `Authorization` that answers a challenge; `None` if these credentials can't.
pub(super) async fn authorize(
    http: &Http,
    subject: &Subject,
    challenges: &[Challenge],
    credentials: &Credentials,
) -> Result<Option<HeaderValue>, Failure> {
    if let Credentials::RegistryToken(token) = credentials {
        return Ok(secret_header(&format!("Bearer {token}")));
    }
    for challenge in challenges {
        match (challenge, credentials) {
            (
                Challenge::Bearer {
                    realm,
                    service,
                    scope,
                },
                _,
            ) => {
                let default_scope = format!("repository:{}:pull", subject.reference.repository());
                let scope = scope.as_deref().unwrap_or(&default_scope);
                let token = fetch(http, subject, realm, service.as_deref(), scope, credentials).await?;
                return Ok(secret_header(&format!("Bearer {token}")));
            }
            (Challenge::Basic, Credentials::Basic { username, password }) => {
                return Ok(basic(username, password));
            }
            (Challenge::Basic, _) => {}
        }
    }
    Ok(None)
}

async fn fetch(
    http: &Http,
    subject: &Subject,
    realm: &str,
    service: Option<&str>,
    scope: &str,
    credentials: &Credentials,
) -> Result<String, Failure> {
    let bad = |why: &str| Failure::fatal(subject.registry(&format!("its token server {realm} {why}")));
    let uri: Uri = realm.parse().map_err(|_| bad("is not a URL"))?;
    let secure = uri.scheme_str() == Some("https");
    if !secure && !uri.host().is_some_and(is_loopback) {
        return Err(bad("is not reached over HTTPS, and it would see the credentials"));
    }
    let mut parameters: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
    parameters.extend(scope.split(' ').map(|scope| ("scope", scope)));
    let request = match credentials {
        Credentials::IdentityToken(token) => {
            parameters.extend([
                ("grant_type", "refresh_token"),
                ("client_id", CLIENT_ID),
                ("refresh_token", token),
            ]);
            Request::builder()
                .method(Method::POST)
                .uri(realm)
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&parameters).into())
        }
        _ => {
            let separator = if uri.query().is_some() { '&' } else { '?' };
            let mut request = Request::builder().uri(format!("{realm}{separator}{}", form(&parameters)));
            if let Credentials::Basic { username, password } = credentials
                && let Some(value) = basic(username, password)
            {
                request = request.header(AUTHORIZATION, value);
            }
            request.body(empty())
        }
    };
    let request = request.map_err(|_| bad("is not a URL"))?;
    let answer = http
        .send(request)
        .await
        .map_err(|e| subject.unreachable(&uri, &*e))?;
    let status = answer.status();
    let body = read_limited(answer.into_body(), MAX_ANSWER)
        .await
        .map_err(|e| subject.broken(&e))?;
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(subject.denied(&body, credentials));
        }
        status => return Err(subject.status(status, &body, None)),
    }
    let answer: TokenAnswer = serde_json::from_slice(&body).map_err(|_| bad("answers with no token"))?;
    let token = if answer.token.is_empty() {
        answer.access_token
    } else {
        answer.token
    };
    if token.is_empty() {
        Err(bad("answers with no token"))
    } else {
        Ok(token)
    }
}

fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    secret_header(&format!(
        "Basic {}",
        STANDARD.encode(format!("{username}:{password}"))
    ))
}

fn secret_header(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// `application/x-www-form-urlencoded`
fn form(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters
        .iter()
        .map(|(key, value)| format!("{key}={}", escape(value)))
        .collect();
    pairs.join("&")
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            form(&[("scope", "repository:a/b:pull"), ("x", "ü &")]),
            "scope=repository%3Aa%2Fb%3Apull&x=%C3%BC%20%26"
        );
    }
}
