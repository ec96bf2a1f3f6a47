//! A container's environment, from literals, ConfigMaps, Secrets, the pod's fields and the container's resources.

use std::collections::HashMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, Pod};

use crate::env_file::{self, EnvFiles};
use crate::expansion::Expansion;
use crate::plan::{NodeFacts, Objects};
use crate::quantity::{self, Value};
use crate::{resources, spec};

/// Where a container's environment comes from.
#[derive(Clone, Copy, Debug)]
pub struct EnvSources<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// What other containers of the pod have written for it.
    pub files: &'a EnvFiles,
    /// The node.
    pub node: &'a NodeFacts,
    /// The pod's addresses, the primary one first.
    pub pod_ips: &'a [IpAddr],
}

/// Why a container can't be made as its specification says (`CreateContainerConfigError`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No such ConfigMap.
    #[error("configmap {0:?} not found")]
    NoConfigMap(String),
    /// No such Secret.
    #[error("secret {0:?} not found")]
    NoSecret(String),
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoKey {
        /// The key.
        key: String,
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// The object's namespace.
        namespace: String,
        /// The object's name.
        name: String,
    },
    /// The value is not text.
    #[error(
        "the value of key {key} in Secret {name} is not UTF-8 text and can't be an environment variable; mount it as a volume"
    )]
    NotText {
        /// The key.
        key: String,
        /// The Secret.
        name: String,
    },
    /// A `fieldRef` to a field that can't be referred to.
    #[error("unsupported fieldPath: {0}")]
    FieldPath(String),
    /// A `resourceFieldRef` to a resource or a container that is not there.
    #[error("unsupported resourceFieldRef: {0}")]
    ResourceField(String),
    /// A file that another container of the pod is to have written has no such variable.
    #[error("{0}")]
    EnvFile(String),
    /// `runAsNonRoot` does not hold.
    #[error("{0}")]
    RunAsRoot(String),
    /// `subPathExpr` names a variable that is not set.
    #[error("missing value for {0:?} in subPathExpr")]
    SubPath(String),
    /// A field's value makes no container.
    #[error("{0}")]
    Invalid(String),
}

/// The container's environment in the order of its specification; of two of one name the later value counts.
///
/// # Errors
/// Something that is referred to is not there and not optional.
pub fn resolve(container: &Container, sources: EnvSources<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let mut env = Environment::default();
    let mut expansion = Expansion::default();
    for from in container.env_from.iter().flatten() {
        env_from(from, sources, &mut env)?;
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(value), _) if !value.is_empty() => {
                let expanded = expansion.of(value, |name| env.get(name));
                expanded.map_err(|why| {
                    ConfigError::Invalid(format!("environment variable {:?} {why}", variable.name))
                })?
            }
            (_, Some(from)) => match value_from(from, container, sources)? {
                Some(value) => value,
                None => continue,
            },
            _ => String::new(),
        };
        env.set(&variable.name, value);
    }
    Ok(env.all)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Environment {
    all: Vec<(String, String)>,
    /// Where each name is.
    places: HashMap<String, usize>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        let place = self.places.get(name)?;
        self.all.get(*place).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name).and_then(|place| self.all.get_mut(*place)) {
            Some((_, old)) => *old = value,
            None => {
                self.places.insert(name.to_owned(), self.all.len());
                self.all.push((name.to_owned(), value));
            }
        }
    }
}

/// The value of a variable.
pub fn lookup<'a>(env: &'a [(String, String)], name: &str) -> Option<&'a str> {
    env.iter()
        .find(|(known, _)| known == name)
        .map(|(_, value)| value.as_str())
}

/// All pairs of a ConfigMap or Secret. A key that can't be a variable's name is left out, as upstream does.
fn env_from(from: &EnvFromSource, sources: EnvSources<'_>, env: &mut Environment) -> Result<(), ConfigError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut add = |key: &str, value: String| {
        let name = format!("{prefix}{key}");
        if is_env_name(&name) {
            env.set(&name, value);
        }
    };
    let key_of = |name: &str| (spec::namespace(sources.pod).to_owned(), name.to_owned());
    if let Some(source) = &from.config_map_ref {
        match sources.objects.config_maps.get(&key_of(&source.name)) {
            Some(map) => map
                .data
                .iter()
                .flatten()
                .for_each(|(key, value)| add(key, value.clone())),
            None if source.optional == Some(true) => {}
            None => return Err(ConfigError::NoConfigMap(source.name.clone())),
        }
    }
    if let Some(source) = &from.secret_ref {
        match sources.objects.secrets.get(&key_of(&source.name)) {
            Some(secret) => {
                for (key, value) in secret.data.iter().flatten() {
                    add(key, text(&value.0, key, &source.name)?);
                }
            }
            None if source.optional == Some(true) => {}
            None => return Err(ConfigError::NoSecret(source.name.clone())),
        }
    }
    Ok(())
}

/// A variable's name is any printable ASCII without `=` (RelaxedEnvironmentVariableValidation).
pub fn is_env_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'=')
}

fn text(bytes: &[u8], key: &str, secret: &str) -> Result<String, ConfigError> {
    let not_text = |_| ConfigError::NotText {
        key: key.to_owned(),
        name: secret.to_owned(),
    };
    String::from_utf8(bytes.to_vec()).map_err(not_text)
}

/// `None`: it is optional and not there.
fn value_from(
    from: &EnvVarSource,
    container: &Container,
    sources: EnvSources<'_>,
) -> Result<Option<String>, ConfigError> {
    let namespace = spec::namespace(sources.pod);
    let key_of = |name: &str| (namespace.to_owned(), name.to_owned());
    let no_key = |kind, key: &str, name: &str| ConfigError::NoKey {
        key: key.to_owned(),
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    if let Some(field) = &from.field_ref {
        return field_ref(&field.field_path, sources).map(Some);
    }
    if let Some(field) = &from.resource_field_ref {
        return resource_ref(field, container, sources).map(Some);
    }
    if let Some(selector) = &from.file_key_ref {
        return env_file::value(selector, sources.files).map_err(ConfigError::EnvFile);
    }
    if let Some(selector) = &from.config_map_key_ref {
        let map = sources.objects.config_maps.get(&key_of(&selector.name));
        let value = map.and_then(|map| map.data.as_ref()?.get(&selector.key)).cloned();
        return match (value, map) {
            (Some(value), _) => Ok(Some(value)),
            _ if selector.optional == Some(true) => Ok(None),
            (None, None) => Err(ConfigError::NoConfigMap(selector.name.clone())),
            (None, Some(_)) => Err(no_key("ConfigMap", &selector.key, &selector.name)),
        };
    }
    if let Some(selector) = &from.secret_key_ref {
        let secret = sources.objects.secrets.get(&key_of(&selector.name));
        let value = secret.and_then(|secret| secret.data.as_ref()?.get(&selector.key));
        return match (value, secret) {
            (Some(value), _) => text(&value.0, &selector.key, &selector.name).map(Some),
            _ if selector.optional == Some(true) => Ok(None),
            (None, None) => Err(ConfigError::NoSecret(selector.name.clone())),
            (None, Some(_)) => Err(no_key("Secret", &selector.key, &selector.name)),
        };
    }
    Ok(None)
}

fn resource_ref(
    field: &k8s_openapi::api::core::v1::ResourceFieldSelector,
    container: &Container,
    sources: EnvSources<'_>,
) -> Result<String, ConfigError> {
    let of = match field.container_name.as_deref() {
        None | Some("") => Some(container),
        Some(name) => spec::container(sources.pod, name).map(|(container, _)| container),
    };
    let divisor = field
        .divisor
        .as_ref()
        .map_or_else(Value::default, quantity::value_of);
    of.and_then(|of| resources::resource_field(of, &field.resource, divisor, sources.node))
        .ok_or_else(|| ConfigError::ResourceField(field.resource.clone()))
}

/// `fieldRef`: what a field of the pod says, in an environment variable or a downwardAPI file.
///
/// # Errors
/// The field can't be referred to.
pub fn field_ref(path: &str, sources: EnvSources<'_>) -> Result<String, ConfigError> {
    let pod = sources.pod;
    let pod_spec = pod.spec.as_ref();
    let metadata = &pod.metadata;
    if let Some((field, key)) = subscript(path) {
        let map = match field {
            "metadata.labels" => metadata.labels.as_ref(),
            "metadata.annotations" => metadata.annotations.as_ref(),
            _ => return Err(ConfigError::FieldPath(path.to_owned())),
        };
        return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => spec::name(pod).to_owned(),
        "metadata.namespace" => spec::namespace(pod).to_owned(),
        "metadata.uid" => metadata.uid.clone().unwrap_or_default(),
        "metadata.labels" => format_map(metadata.labels.as_ref()),
        "metadata.annotations" => format_map(metadata.annotations.as_ref()),
        // Whatever the manifest says, as for a kubelet's pods from files.
        "spec.nodeName" => sources.node.name.clone(),
        "spec.serviceAccountName" => pod_spec
            .and_then(|spec| spec.service_account_name.clone())
            .unwrap_or_default(),
        "status.hostIP" => first(&sources.node.host_ips),
        "status.hostIPs" => join(&sources.node.host_ips),
        "status.podIP" => first(pod_addresses(sources)),
        "status.podIPs" => join(pod_addresses(sources)),
        _ => return Err(ConfigError::FieldPath(path.to_owned())),
    })
}

/// A pod with the host's network has the host's addresses.
fn pod_addresses(sources: EnvSources<'_>) -> &[IpAddr] {
    match &sources.pod.spec {
        Some(spec) if spec::host_network(spec) => &sources.node.host_ips,
        _ => sources.pod_ips,
    }
}

fn first(ips: &[IpAddr]) -> String {
    ips.first().map(IpAddr::to_string).unwrap_or_default()
}

fn join(ips: &[IpAddr]) -> String {
    ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}

/// Splits `metadata.labels['key']`.
pub fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, key) = path.split_once("['")?;
    Some((field, key.strip_suffix("']")?))
}

/// One `key="value"` a line, values escaped as Go's `%q` does.
fn format_map(map: Option<&std::collections::BTreeMap<String, String>>) -> String {
    let lines: Vec<String> = map
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn objects() -> Objects {
        let mut objects = Objects::default();
        let key = |name: &str| ("default".to_owned(), name.to_owned());
        let map =
            serde_json::json!({"metadata": {"name": "map"}, "data": {"a": "1", "b.c": "2", "bad=": "3"}});
        objects
            .config_maps
            .insert(key("map"), serde_json::from_value(map).unwrap());
        let secret =
            serde_json::json!({"metadata": {"name": "sec"}, "data": {"k": "c2VjcmV0", "bin": "/w=="}});
        objects
            .secrets
            .insert(key("sec"), serde_json::from_value(secret).unwrap());
        objects
    }

    fn env(container: &str) -> Result<Vec<(String, String)>, ConfigError> {
        let mut pod = pod(&format!(
            "{{\"nodeName\":\"other\",\"containers\":[{{\"name\":\"c\",\"image\":\"i\",{container}}}]}}"
        ));
        pod.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
        let node = NodeFacts {
            name: "n1".to_owned(),
            host_ips: vec![[10, 0, 0, 1].into()],
            ..NodeFacts::default()
        };
        let ips = [
            IpAddr::from([10, 1, 0, 2]),
            IpAddr::from([0, 0, 0, 0, 0, 0, 0, 9]),
        ];
        let sources = EnvSources {
            pod: &pod,
            objects: &objects(),
            files: &EnvFiles::new(),
            node: &node,
            pod_ips: &ips,
        };
        resolve(&spec::containers(&pod)[0], sources)
    }

    fn pairs(expected: &[(&str, &str)]) -> Result<Vec<(String, String)>, ConfigError> {
        Ok(expected
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect())
    }

    #[test]
    fn literals_expand_what_comes_before() {
        let found = env(
            r#""env":[{"name":"A","value":"1"},{"name":"B","value":"$(A)$(C)$$(A)"},{"name":"C"},{"name":"A","value":"2"}]"#,
        );
        assert_eq!(found, pairs(&[("A", "2"), ("B", "1$(C)$(A)"), ("C", "")]));
    }

    #[test]
    fn env_from_comes_first_and_leaves_out_bad_names() {
        let found = env(
            r#""envFrom":[{"prefix":"M_","configMapRef":{"name":"map"}},{"configMapRef":{"name":"none","optional":true}}],
               "env":[{"name":"X","value":"$(M_a)"}]"#,
        );
        assert_eq!(found, pairs(&[("M_a", "1"), ("M_b.c", "2"), ("X", "1")]));
    }

    #[test]
    fn references() {
        let found = env(r#""env":[
              {"name":"S","valueFrom":{"secretKeyRef":{"name":"sec","key":"k"}}},
              {"name":"O","valueFrom":{"secretKeyRef":{"name":"sec","key":"none","optional":true}}},
              {"name":"P","valueFrom":{"fieldRef":{"fieldPath":"status.podIPs"}}},
              {"name":"H","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}},
              {"name":"L","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['app']"}}},
              {"name":"N","valueFrom":{"fieldRef":{"fieldPath":"spec.nodeName"}}},
              {"name":"R","valueFrom":{"resourceFieldRef":{"resource":"requests.cpu"}}}]"#);
        let expected = [
            ("S", "secret"),
            ("P", "10.1.0.2,::9"),
            ("H", "10.0.0.1"),
            ("L", "x"),
            ("N", "n1"),
            ("R", "0"),
        ];
        assert_eq!(found, pairs(&expected));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (container, message) in [
            (
                r#""envFrom":[{"configMapRef":{"name":"none"}}]"#,
                "configmap \"none\" not found",
            ),
            (
                r#""envFrom":[{"secretRef":{"name":"none"}}]"#,
                "secret \"none\" not found",
            ),
            (
                r#""env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"map","key":"z"}}}]"#,
                "couldn't find key z in ConfigMap default/map",
            ),
            (
                r#""env":[{"name":"A","valueFrom":{"secretKeyRef":{"name":"sec","key":"bin"}}}]"#,
                "the value of key bin in Secret sec is not UTF-8 text and can't be an environment variable; mount it as a volume",
            ),
            (
                r#""env":[{"name":"A","valueFrom":{"fieldRef":{"fieldPath":"spec.x"}}}]"#,
                "unsupported fieldPath: spec.x",
            ),
        ] {
            assert_eq!(env(container).unwrap_err().to_string(), message);
        }
    }

    /// Each variable is the one before, ten times: the last one would be a hundred terabytes.
    #[test]
    fn variables_that_grow_are_refused_before_they_fill_the_memory() {
        let grown = |level: usize| {
            let before = format!("$(A{})", level - 1).repeat(10);
            format!(r#","A{level}":"{before}""#)
        };
        let list: String = (1..14).map(grown).collect();
        let all = format!(r#"{{"A0":"0123456789"{list}}}"#);
        // In this order, which is not that of their names.
        let all: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&all).unwrap();
        let mut names: Vec<_> = all.iter().collect();
        names.sort_by_key(|(name, _)| name[1..].parse::<usize>().unwrap());
        let entries: Vec<_> = names
            .into_iter()
            .map(|(name, value)| serde_json::json!({ "name": name, "value": value }))
            .collect();
        let refused = env(&format!(r#""env":{}"#, serde_json::Value::from(entries))).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "environment variable \"A5\" becomes longer than the 131072 bytes that the kernel takes"
        );
    }
}
