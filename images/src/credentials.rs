//! Credentials for registries, from where docker keeps them.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::ImageError;
use crate::reference::DEFAULT_REGISTRY;

/// The name under which docker keeps the credentials of Docker Hub.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The user name by which a credential helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// How long a credential helper may take: it may ask a service for a new secret.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// How to authenticate with a registry.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Credentials {
    /// Not at all.
    #[default]
    Anonymous,
    /// User name and password.
    Basic {
        /// The user.
        username: String,
        /// The password, or a personal access token.
        password: String,
    },
    /// An OAuth 2 refresh token.
    IdentityToken(String),
    /// A token to send as it is.
    RegistryToken(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Anonymous => "Anonymous",
            Self::Basic { .. } => "Basic(…)",
            Self::IdentityToken(_) => "IdentityToken(…)",
            Self::RegistryToken(_) => "RegistryToken(…)",
        })
    }
}

/// `config.json`, as far as it concerns us.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// An entry of docker's `auths`, or what a kubelet hands over with a pull. What is empty is not there.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
pub struct AuthEntry {
    /// `user:password` in base64.
    pub auth: Option<String>,
    /// With `password`.
    pub username: Option<String>,
    /// With `username`.
    pub password: Option<String>,
    /// An OAuth 2 refresh token.
    pub identitytoken: Option<String>,
    /// A token to send as it is.
    pub registrytoken: Option<String>,
}

/// Where the credentials of a registry are.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    Here(Credentials),
    Helper { program: String, server: String },
}

impl Credentials {
    /// What `$DOCKER_CONFIG/config.json`, or `~/.docker/config.json`, has for a registry: of a credential helper, of the
    /// store, or in the file itself. Without any, anonymous.
    ///
    /// # Errors
    /// The file can't be read or understood, or a helper fails.
    pub async fn of_docker(registry: &str) -> Result<Self, ImageError> {
        let Some(path) = config_path() else {
            return Ok(Self::Anonymous);
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Self::Anonymous);
            }
            Err(e) => return Err(ImageError::io("read the credentials in", &path, &e)),
        };
        match look_up(&bytes, registry).map_err(|why| unusable(&path, &why))? {
            Place::Here(credentials) => Ok(credentials),
            Place::Helper { program, server } => ask_helper(&program, &server).await,
        }
    }
}

fn unusable(path: &Path, why: &str) -> ImageError {
    ImageError::Unauthorized(format!(
        "the credentials in {} can't be used: {why}",
        path.display()
    ))
}

fn config_path() -> Option<PathBuf> {
    let directory = match env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => PathBuf::from(env::var_os("HOME").filter(|value| !value.is_empty())?).join(".docker"),
    };
    Some(directory.join("config.json"))
}

fn look_up(bytes: &[u8], registry: &str) -> Result<Place, String> {
    let mut config: DockerConfig = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let server = if registry == DEFAULT_REGISTRY {
        DOCKER_HUB
    } else {
        registry
    };
    let helper = config
        .cred_helpers
        .get(registry)
        .or_else(|| config.cred_helpers.get(server));
    if let Some(helper) = helper
        .or(config.creds_store.as_ref())
        .filter(|helper| !helper.is_empty())
    {
        return Ok(Place::Helper {
            program: helper.clone(),
            server: server.to_owned(),
        });
    }
    let key = config
        .auths
        .keys()
        .find(|key| key.as_str() == server)
        .or_else(|| {
            // Old entries are URLs: https://registry/v1/.
            config.auths.keys().find(|key| host_of(key) == registry)
        });
    let Some(entry) = key.cloned().and_then(|key| config.auths.remove(&key)) else {
        return Ok(Place::Here(Credentials::Anonymous));
    };
    entry.credentials().map(Place::Here)
}

fn host_of(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

impl AuthEntry {
    /// What of it is used: a registry token, an identity token, `auth`, or user name and password, in this order.
    ///
    /// # Errors
    /// `auth` is not base64 of `user:password`.
    pub fn credentials(self) -> Result<Credentials, String> {
        if let Some(token) = self.registrytoken.filter(|token| !token.is_empty()) {
            return Ok(Credentials::RegistryToken(token));
        }
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Ok(Credentials::IdentityToken(token));
        }
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let bad = || "an `auth` is not base64 of user:password".to_owned();
            let bytes = STANDARD
                .decode(&auth)
                .or_else(|_| STANDARD_NO_PAD.decode(auth.trim_end_matches('=')))
                .map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (username, password) = text.trim_end_matches('\0').split_once(':').ok_or_else(bad)?;
            return Ok(Credentials::Basic {
                username: username.to_owned(),
                password: password.to_owned(),
            });
        }
        Ok(match (self.username, self.password) {
            (Some(username), Some(password)) if !username.is_empty() => {
                Credentials::Basic { username, password }
            }
            _ => Credentials::Anonymous,
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

/// Runs `docker-credential-<program> get`.
async fn ask_helper(program: &str, server: &str) -> Result<Credentials, ImageError> {
    let name = format!("docker-credential-{program}");
    let failed = |why: String| {
        ImageError::Unauthorized(format!(
            "the credential helper {name}, which docker's configuration names for {server}, failed: {why}"
        ))
    };
    if program.contains('/') {
        return Err(failed("its name has a slash".to_owned()));
    }
    let run = async {
        let mut child = Command::new(&name)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read answers all the same.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(HELPER_TIMEOUT, run)
        .await
        .map_err(|_| {
            failed(format!(
                "it takes longer than {} seconds",
                HELPER_TIMEOUT.as_secs()
            ))
        })?
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        if said.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        return Err(failed(if said.is_empty() {
            output.status.to_string()
        } else {
            said
        }));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
        .map_err(|e| failed(format!("it answers with no credentials: {e}")))?;
    Ok(match answer.username.as_str() {
        TOKEN_USER => Credentials::IdentityToken(answer.secret),
        "" => Credentials::Anonymous,
        _ => Credentials::Basic {
            username: answer.username,
            password: answer.secret,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn basic(username: &str, password: &str) -> Place {
        Place::Here(Credentials::Basic {
            username: username.to_owned(),
            password: password.to_owned(),
        })
    }

    #[test]
    fn docker_configurations_are_understood() {
        let helper = |program: &str, server: &str| Place::Helper {
            program: program.to_owned(),
            server: server.to_owned(),
        };
        let config = br#"{
            "auths": {
                "https://index.docker.io/v1/": {"auth": "dTpwOnc="},
                "localhost:5000": {"username": "a", "password": "b"},
                "https://old.example.com/v1/": {"auth": "eDp5"},
                "t.example.com": {"identitytoken": "id"},
                "r.example.com": {"registrytoken": "reg"},
                "empty.example.com": {}
            },
            "credHelpers": {"gcr.io": "gcloud"},
            "HttpHeaders": {"User-Agent": "x"}
        }"#;
        let table = [
            ("docker.io", basic("u", "p:w")),
            ("localhost:5000", basic("a", "b")),
            ("old.example.com", basic("x", "y")),
            (
                "t.example.com",
                Place::Here(Credentials::IdentityToken("id".to_owned())),
            ),
            (
                "r.example.com",
                Place::Here(Credentials::RegistryToken("reg".to_owned())),
            ),
            ("empty.example.com", Place::Here(Credentials::Anonymous)),
            ("localhost:5001", Place::Here(Credentials::Anonymous)),
            ("gcr.io", helper("gcloud", "gcr.io")),
        ];
        for (registry, place) in table {
            assert_eq!(look_up(config, registry).unwrap(), place, "{registry}");
        }
        let store = br#"{"credsStore": "secretservice", "credHelpers": {"a": "b"}}"#;
        assert_eq!(
            look_up(store, "docker.io").unwrap(),
            helper("secretservice", DOCKER_HUB)
        );
        assert_eq!(look_up(store, "a").unwrap(), helper("b", "a"));
        assert!(look_up(b"{", "a").is_err());
        assert!(look_up(br#"{"auths":{"a":{"auth":"!"}}}"#, "a").is_err());
    }

    #[test]
    fn secrets_are_not_printed() {
        let secret = Credentials::Basic {
            username: "u".to_owned(),
            password: "hunter2".to_owned(),
        };
        assert!(!format!("{secret:?}").contains("hunter2"));
    }
}
