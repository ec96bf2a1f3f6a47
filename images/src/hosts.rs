//! Where a registry's images are really fetched from: mirrors, certificates and headers, in the files that containerd has
//! made usual. `<directory>/<host>/hosts.toml`, or `<directory>/_default/hosts.toml` for every registry without its own:
//!
//! ```toml
//! server = "https://registry.example.com"
//!
//! [host."https://mirror.example.com"]
//! capabilities = ["pull", "resolve"]
//! ca = "mirror.pem"
//! ```
//!
//! Hosts are tried in the order of the file, the server last. The credentials of a request are for the server alone.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use toml::{Table, Value};

use crate::error::ImageError;
use crate::reference::{DEFAULT_REGISTRY, Reference};

/// The directory that is for registries without one of their own.
const DEFAULT: &str = "_default";

/// A server that may have a registry's images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Scheme, host and path, up to what the distribution specification says begins with the repository's name:
    /// `https://registry-1.docker.io/v2`.
    pub(crate) base: String,
    /// It may be asked what a tag means.
    pub(crate) resolve: bool,
    /// It has contents.
    pub(crate) pull: bool,
    /// It is the registry itself, which credentials are for.
    pub(crate) upstream: bool,
    /// How its certificate is checked.
    pub(crate) tls: Tls,
    /// Sent with each request.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Plain HTTP was asked for by name.
    pub(crate) plain: bool,
}

/// TLS with one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// Take any certificate.
    pub(crate) skip_verify: bool,
    /// Files of further authorities.
    pub(crate) authorities: Vec<PathBuf>,
    /// A client certificate and its key, in one file or two.
    pub(crate) client: Option<(PathBuf, PathBuf)>,
}

impl Host {
    /// The registry as it is without configuration. Plain HTTP is for loopback only.
    fn of_registry(registry: &str) -> Self {
        let host = if registry == DEFAULT_REGISTRY {
            "registry-1.docker.io"
        } else {
            registry
        };
        let name = match host.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => host.split(':').next().unwrap_or(host),
        };
        let scheme = if crate::registry::is_loopback(name) {
            "http"
        } else {
            "https"
        };
        Self {
            base: format!("{scheme}://{host}/v2"),
            resolve: true,
            pull: true,
            upstream: true,
            tls: Tls::default(),
            headers: Vec::new(),
            plain: false,
        }
    }

    /// Whether it may be asked for what `reference` names.
    fn serves(&self, reference: &Reference) -> bool {
        self.pull && (self.resolve || reference.digest().is_some())
    }
}

/// The servers to ask for an image, in this order; at least one.
///
/// # Errors
/// The registry's file can't be read, makes no sense, or leaves nobody to ask.
pub(crate) fn of(directory: Option<&Path>, reference: &Reference) -> Result<Vec<Host>, ImageError> {
    let registry = reference.registry();
    let Some((file, text)) = directory
        .map(|directory| find(directory, registry))
        .transpose()?
        .flatten()
    else {
        return Ok(vec![Host::of_registry(registry)]);
    };
    let unusable = |why: String| {
        ImageError::Unsupported(format!(
            "{reference} can't be pulled: the configuration of its registry, {}, is not valid: {why}",
            file.display()
        ))
    };
    let here = file.parent().unwrap_or_else(|| Path::new("/"));
    let mut hosts = parse(&text, here, registry).map_err(unusable)?;
    hosts.retain(|host| host.serves(reference));
    if hosts.is_empty() {
        return Err(unusable(
            "no host in it has the capabilities to pull this".to_owned(),
        ));
    }
    Ok(hosts)
}

fn find(directory: &Path, registry: &str) -> Result<Option<(PathBuf, String)>, ImageError> {
    // A colon can't be in a directory's name everywhere: containerd knows `host_5000_` too.
    let escaped = registry
        .split_once(':')
        .map(|(host, port)| format!("{host}_{port}_"));
    for name in [Some(registry), escaped.as_deref(), Some(DEFAULT)]
        .into_iter()
        .flatten()
    {
        let file = directory.join(name).join("hosts.toml");
        match fs::read_to_string(&file) {
            Ok(text) => return Ok(Some((file, text))),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) => {}
            Err(error) => return Err(ImageError::io("read the registry's configuration", &file, &error)),
        }
    }
    Ok(None)
}

fn parse(text: &str, directory: &Path, registry: &str) -> Result<Vec<Host>, String> {
    let mut table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    let mut hosts = Vec::new();
    if let Some(value) = table.remove("host") {
        let Value::Table(all) = value else {
            return Err("`host` is a table for each URL: [host.\"https://mirror.example.com\"]".to_owned());
        };
        for (url, settings) in all {
            let Value::Table(settings) = settings else {
                return Err(format!("the settings of host {url} are a table"));
            };
            hosts.push(host(&url, settings, directory, false)?);
        }
    }
    let server = match table.remove("server") {
        Some(Value::String(url)) => Some(url),
        Some(_) => return Err("`server` is a URL".to_owned()),
        None => None,
    };
    let usual = Host::of_registry(registry);
    let mut last = host(server.as_deref().unwrap_or(&usual.base), table, directory, true)?;
    if server.is_none() {
        last.base = usual.base;
    }
    hosts.push(last);
    Ok(hosts)
}

fn host(url: &str, mut settings: Table, directory: &Path, upstream: bool) -> Result<Host, String> {
    let absolute = if url.contains("://") {
        url.to_owned()
    } else {
        format!("https://{url}")
    };
    let uri: Uri = absolute.parse().map_err(|_| format!("{url:?} is not a URL"))?;
    let plain = match (uri.scheme_str(), uri.host()) {
        (Some("https"), Some(_)) => false,
        (Some("http"), Some(_)) => true,
        _ => return Err(format!("{url:?} is not an http or https URL with a host")),
    };
    let path_is_whole = flag(&mut settings, "override_path")?;
    let trimmed = absolute.trim_end_matches('/');
    let base = if path_is_whole || trimmed.ends_with("/v2") {
        trimmed.to_owned()
    } else {
        format!("{trimmed}/v2")
    };
    let capabilities = match settings.remove("capabilities") {
        None => vec!["pull".to_owned(), "resolve".to_owned()],
        Some(value) => texts(&value, "capabilities")?,
    };
    if let Some(unknown) = capabilities
        .iter()
        .find(|word| !matches!(word.as_str(), "pull" | "resolve" | "push"))
    {
        return Err(format!("there is no capability {unknown:?}: pull, resolve, push"));
    }
    let host = Host {
        base,
        resolve: capabilities.iter().any(|word| word == "resolve"),
        pull: capabilities.iter().any(|word| word == "pull"),
        upstream,
        tls: Tls {
            skip_verify: flag(&mut settings, "skip_verify")?,
            authorities: match settings.remove("ca") {
                None => Vec::new(),
                Some(value) => texts(&value, "ca")?
                    .iter()
                    .map(|file| directory.join(file))
                    .collect(),
            },
            client: client(settings.remove("client"), directory)?,
        },
        headers: headers(settings.remove("header"))?,
        plain,
    };
    match settings.keys().next() {
        Some(unknown) => Err(format!("the setting {unknown:?} of {url} is not known")),
        None => Ok(host),
    }
}

fn flag(settings: &mut Table, key: &str) -> Result<bool, String> {
    match settings.remove(key) {
        None => Ok(false),
        Some(Value::Boolean(value)) => Ok(value),
        Some(_) => Err(format!("`{key}` is true or false")),
    }
}

/// A text, or a list of them.
fn texts(value: &Value, key: &str) -> Result<Vec<String>, String> {
    let text = |value: &Value| {
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("`{key}` is a text, or a list of texts"))
    };
    match value {
        Value::Array(all) => all.iter().map(text).collect(),
        one => Ok(vec![text(one)?]),
    }
}

/// `client = "both.pem"`, `["both.pem"]` or `[["cert.pem", "key.pem"]]`; the first one counts.
fn client(value: Option<Value>, directory: &Path) -> Result<Option<(PathBuf, PathBuf)>, String> {
    let Some(value) = value else { return Ok(None) };
    let first = match &value {
        Value::Array(all) => all.first().ok_or("`client` is an empty list")?,
        one => one,
    };
    let files = texts(first, "client")?;
    match files.as_slice() {
        [both] => Ok(Some((directory.join(both), directory.join(both)))),
        [certificate, key] if key.is_empty() => {
            Ok(Some((directory.join(certificate), directory.join(certificate))))
        }
        [certificate, key] => Ok(Some((directory.join(certificate), directory.join(key)))),
        _ => Err("`client` is a file with certificate and key, or pairs of files".to_owned()),
    }
}

fn headers(value: Option<Value>) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let Some(value) = value else { return Ok(Vec::new()) };
    let Value::Table(table) = value else {
        return Err("`header` is a table of names and values".to_owned());
    };
    let mut headers = Vec::new();
    for (name, values) in table {
        let parsed =
            HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is not a header's name"))?;
        for value in texts(&values, "header")? {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| format!("the value of header {name} is not one"))?;
            headers.push((parsed.clone(), value));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bases(text: &str, registry: &str) -> Vec<String> {
        let hosts = parse(text, Path::new("/certs"), registry).unwrap();
        hosts.into_iter().map(|host| host.base).collect()
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        let table = [
            ("docker.io", "https://registry-1.docker.io/v2"),
            ("localhost:5000", "http://localhost:5000/v2"),
            ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
            ("[::1]:5000", "http://[::1]:5000/v2"),
            ("10.0.0.1:5000", "https://10.0.0.1:5000/v2"),
            ("example.com", "https://example.com/v2"),
        ];
        for (registry, base) in table {
            assert_eq!(Host::of_registry(registry).base, base);
        }
    }

    #[test]
    fn hosts_keep_the_order_of_the_file_and_the_server_is_last() {
        let text = r#"
            server = "https://registry.example.com"
            [host."https://z.example.com"]
            [host."http://10.0.0.1:5000/mirror/"]
              override_path = true
            [host."a.example.com"]
        "#;
        let expected = [
            "https://z.example.com/v2",
            "http://10.0.0.1:5000/mirror",
            "https://a.example.com/v2",
            "https://registry.example.com/v2",
        ];
        assert_eq!(bases(text, "docker.io"), expected);
        assert_eq!(bases("", "docker.io"), ["https://registry-1.docker.io/v2"]);
        assert_eq!(
            bases("skip_verify = true", "localhost:1"),
            ["http://localhost:1/v2"]
        );
    }

    #[test]
    fn settings_are_understood() {
        let text = r#"
            [host."https://m.example.com"]
              capabilities = ["pull"]
              ca = ["one.pem", "/two.pem"]
              client = [["cert.pem", "key.pem"]]
              skip_verify = true
              [host."https://m.example.com".header]
                x-token = "abc"
                x-many = ["a", "b"]
        "#;
        let hosts = parse(text, Path::new("/certs"), "example.com").unwrap();
        let mirror = &hosts[0];
        assert!(!mirror.resolve && mirror.pull && !mirror.upstream && hosts[1].upstream);
        let authorities = [PathBuf::from("/certs/one.pem"), PathBuf::from("/two.pem")];
        assert_eq!(mirror.tls.authorities, authorities);
        let pair = (PathBuf::from("/certs/cert.pem"), PathBuf::from("/certs/key.pem"));
        assert_eq!(mirror.tls.client, Some(pair));
        assert!(mirror.tls.skip_verify);
        assert_eq!(mirror.headers.len(), 3);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let table = [
            ("server = 1", "server"),
            ("server = \"ftp://x\"", "ftp://x"),
            ("[host.\"https://a\"]\ncapabilities = [\"fly\"]", "fly"),
            ("[host.\"https://a\"]\ndial_timeout = \"1s\"", "dial_timeout"),
            ("skip_verify = \"yes\"", "skip_verify"),
            ("host = 3", "host"),
            ("server =", "line 1"),
        ];
        for (text, named) in table {
            let error = parse(text, Path::new("/"), "example.com").unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
        }
    }

    #[test]
    fn a_mirror_that_only_pulls_is_not_asked_for_tags() {
        let directory = tempfile::tempdir().unwrap();
        let of_host = directory.path().join("localhost_5000_");
        fs::create_dir(&of_host).unwrap();
        fs::write(
            of_host.join("hosts.toml"),
            "[host.\"https://m\"]\ncapabilities = [\"pull\"]",
        )
        .unwrap();
        let count = |name: &str| of(Some(directory.path()), &name.parse().unwrap()).map(|hosts| hosts.len());
        assert_eq!(count("localhost:5000/a:1").unwrap(), 1);
        let digest = format!("localhost:5000/a@sha256:{}", "0".repeat(64));
        assert_eq!(count(&digest).unwrap(), 2);
        assert_eq!(count("localhost:5001/a:1").unwrap(), 1);
        fs::write(of_host.join("hosts.toml"), "capabilities = []").unwrap();
        assert!(
            count("localhost:5000/a:1")
                .unwrap_err()
                .to_string()
                .contains("hosts.toml")
        );
    }
}
