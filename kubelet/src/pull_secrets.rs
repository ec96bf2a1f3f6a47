//! `imagePullSecrets`: which credentials a pod has for an image.
//!
//! As upstream's keyring: an entry is for a host, with wildcards in its parts, and for what begins with its path; the most
//! specific entries come first, and each is tried.

use std::collections::BTreeMap;

use berth_cri::AuthConfig;
use k8s_openapi::api::core::v1::{Pod, Secret};
use serde::Deserialize;

use crate::plan::Objects;
use crate::spec;

/// What Docker Hub's credentials are filed under.
const DOCKER_HUB: &str = "index.docker.io";

/// One entry of a secret. What else there is in it (an e-mail address) is of no use.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
struct Entry {
    username: String,
    password: String,
    auth: String,
    #[serde(alias = "identityToken")]
    identitytoken: String,
    #[serde(alias = "registryToken")]
    registrytoken: String,
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// The credentials of a pod for an image, the most specific first. Secrets that are missing or make no sense have none:
/// the image may be had without.
pub(crate) fn credentials(pod: &Pod, objects: &Objects, image: &str) -> Vec<AuthConfig> {
    let references = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.image_pull_secrets.as_ref());
    let secrets = references.into_iter().flatten().filter_map(|reference| {
        let key = (spec::namespace(pod).to_owned(), reference.name.clone());
        objects.secrets.get(&key)
    });
    let mut found: Vec<(String, Entry)> = secrets
        .flat_map(|secret| entries(secret).unwrap_or_default())
        .map(|(place, entry)| (normalized(&place), entry))
        .filter(|(place, _)| matches(place, image))
        .collect();
    // Stable: of two equal places, that of the earlier secret is tried first.
    found.sort_by(|(a, _), (b, _)| b.cmp(a));
    found.into_iter().map(|(_, entry)| auth(entry)).collect()
}

/// The entries of a secret of one of the two kinds.
///
/// # Errors
/// It is of another kind, or is not what its type says: what is wrong, without any of its content.
pub(crate) fn check(secret: &Secret) -> Result<(), String> {
    entries(secret).map(drop)
}

fn entries(secret: &Secret) -> Result<Vec<(String, Entry)>, String> {
    let data = |key: &str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value
            .map(|bytes| bytes.0.as_slice())
            .ok_or_else(|| format!("it has no key {key:?}"))
    };
    // An error of serde_json may quote what it read.
    let wrong = |_: serde_json::Error| "it holds no Docker configuration in JSON".to_owned();
    let auths = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => {
            serde_json::from_slice::<DockerConfig>(data(".dockerconfigjson")?)
                .map_err(wrong)?
                .auths
        }
        Some("kubernetes.io/dockercfg") => {
            serde_json::from_slice::<BTreeMap<String, Entry>>(data(".dockercfg")?).map_err(wrong)?
        }
        other => {
            return Err(format!(
                "its type is {:?}; pull secrets are of kubernetes.io/dockerconfigjson or kubernetes.io/dockercfg",
                other.unwrap_or_default()
            ));
        }
    };
    Ok(auths.into_iter().collect())
}

fn auth(entry: Entry) -> AuthConfig {
    AuthConfig {
        username: entry.username,
        password: entry.password,
        auth: entry.auth,
        // The entry was chosen for the image, wildcards and all.
        server_address: String::new(),
        identity_token: entry.identitytoken,
        registry_token: entry.registrytoken,
    }
}

/// `https://host/v1/` is `host`, with a path `host/path`.
fn normalized(place: &str) -> String {
    let place = place
        .strip_prefix("https://")
        .or_else(|| place.strip_prefix("http://"))
        .unwrap_or(place);
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let path = match path {
        "v1" | "v2" => "",
        path => path
            .strip_prefix("v1/")
            .or_else(|| path.strip_prefix("v2/"))
            .unwrap_or(path),
    };
    match path.trim_end_matches('/') {
        "" => host.to_owned(),
        path => format!("{host}/{path}"),
    }
}

/// Whether an entry's place (`*.example.com:5000/team`) covers an image's name.
fn matches(place: &str, image: &str) -> bool {
    let (host, path) = place.split_once('/').unwrap_or((place, ""));
    let (registry, repository) = split(image);
    let hub = |host: &str| matches!(host, DOCKER_HUB | "docker.io");
    let same_host = if hub(host) {
        hub(&registry)
    } else {
        host_matches(host, &registry)
    };
    same_host && repository.starts_with(path)
}

/// The registry and the repository of an image's name, without tag and digest.
fn split(image: &str) -> (String, &str) {
    let name = image.split_once('@').map_or(image, |(name, _)| name);
    let slash = name.rfind('/').map_or(0, |at| at + 1);
    let name = name[slash..]
        .find(':')
        .map_or(name, |colon| &name[..slash + colon]);
    match name.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host.to_owned(), rest),
        _ => (DOCKER_HUB.to_owned(), name),
    }
}

/// The ports are the same, and each part of the host's name matches its pattern.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, port) = pattern.split_once(':').unwrap_or((pattern, ""));
    let (host, host_port) = host.split_once(':').unwrap_or((host, ""));
    let (patterns, parts) = (pattern.split('.'), host.split('.'));
    port == host_port
        && patterns.clone().count() == parts.clone().count()
        && patterns.zip(parts).all(|(pattern, part)| glob(pattern, part))
}

/// `*` is any number of characters.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|at| glob(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;
    use crate::testing::pod;

    #[test]
    fn places_cover_images() {
        for (place, image, covers) in [
            ("https://index.docker.io/v1/", "nginx", true),
            ("docker.io", "library/nginx:1", true),
            ("index.docker.io", "docker.io/library/nginx@sha256:00", true),
            ("index.docker.io", "localhost/nginx", false),
            ("registry.example.com", "registry.example.com/a:1", true),
            (
                "http://registry.example.com/v2/",
                "registry.example.com/a:1",
                true,
            ),
            ("registry.example.com", "registry.example.com:5000/a:1", false),
            ("registry.example.com:5000", "registry.example.com:5000/a", true),
            ("registry.example.com/team", "registry.example.com/team/a", true),
            ("registry.example.com/team", "registry.example.com/other/a", false),
            ("*.example.com", "registry.example.com/a", true),
            ("*.example.com", "a.b.example.com/a", false),
            ("reg*y.*.com", "registry.example.com/a", true),
            ("*", "localhost/a", true),
            ("*.com", "example.org/a", false),
        ] {
            assert_eq!(matches(&normalized(place), image), covers, "{place} {image}");
        }
    }

    fn secret(kind: &str, key: &str, text: &str) -> Secret {
        Secret {
            type_: Some(kind.to_owned()),
            data: Some(BTreeMap::from([(
                key.to_owned(),
                ByteString(text.as_bytes().to_vec()),
            )])),
            ..Secret::default()
        }
    }

    #[test]
    fn the_most_specific_entry_comes_first() {
        let json = r#"{"auths":{"r.test":{"auth":"QQ=="},"r.test/team":{"username":"u","password":"p","email":"e"}}}"#;
        let old = r#"{"https://r.test":{"auth":"Qg=="},"other.test":{"auth":"Qw=="}}"#;
        let mut objects = Objects::default();
        for (name, secret) in [
            (
                "new",
                secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", json),
            ),
            ("old", secret("kubernetes.io/dockercfg", ".dockercfg", old)),
            ("broken", secret("kubernetes.io/dockercfg", ".dockercfg", "{")),
        ] {
            objects
                .secrets
                .insert(("default".to_owned(), name.to_owned()), secret);
        }
        let pod = pod(
            r#"{"containers":[],"imagePullSecrets":[{"name":"missing"},{"name":"broken"},{"name":"new"},{"name":"old"}]}"#,
        );
        let found = credentials(&pod, &objects, "r.test/team/a:1");
        let shown: Vec<_> = found
            .iter()
            .map(|auth| (auth.username.as_str(), auth.auth.as_str()))
            .collect();
        assert_eq!(shown, [("u", ""), ("", "QQ=="), ("", "Qg==")]);
        assert_eq!(credentials(&pod, &objects, "elsewhere.test/a").len(), 0);
    }

    #[test]
    fn what_is_no_pull_secret_is_said() {
        for (secret, problem) in [
            (secret("Opaque", "a", "b"), "its type is \"Opaque\""),
            (
                secret("kubernetes.io/dockercfg", "a", "b"),
                "no key \".dockercfg\"",
            ),
            (
                secret(
                    "kubernetes.io/dockercfg",
                    ".dockercfg",
                    r#"{"hunter2":"hunter2"}"#,
                ),
                "no Docker configuration",
            ),
        ] {
            let found = check(&secret).unwrap_err();
            assert!(found.contains(problem) && !found.contains("hunter2"), "{found}");
        }
    }
}
