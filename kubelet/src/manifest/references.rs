//! ConfigMaps, Secrets and claims that pods refer to. Without an API server nothing can bring one that is not in the files,
//! nor was made by an earlier run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, KeyToPath, Pod, Volume};

use crate::claims::ClaimRecord;
use crate::plan::Objects;
use crate::pull_secrets;
use crate::spec;

/// A reference to what is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dangling {
    /// The field that names it.
    pub(super) path: String,
    /// What is wrong.
    pub(super) message: String,
}

#[derive(Clone, Copy)]
enum Kind {
    ConfigMap,
    Secret,
}

/// All references of a pod that lead nowhere and are not optional.
pub(super) fn dangling(pod: &Pod, objects: &Objects, claims: &[ClaimRecord]) -> Vec<Dangling> {
    let mut finder = Finder {
        namespace: spec::namespace(pod),
        objects,
        claims,
        found: Vec::new(),
    };
    let init = spec::init_containers(pod).iter().enumerate();
    let main = spec::containers(pod).iter().enumerate();
    let init = init.map(|(index, container)| (container, format!("spec.initContainers[{index}]")));
    let main = main.map(|(index, container)| (container, format!("spec.containers[{index}]")));
    for (container, path) in init.chain(main) {
        finder.container(container, &path);
        finder.modes(pod, container, &path);
    }
    let volumes = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.volumes.as_deref())
        .unwrap_or_default();
    let pull_secrets = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.image_pull_secrets.as_deref());
    for (index, secret) in pull_secrets.unwrap_or_default().iter().enumerate() {
        finder.pull_secret(&secret.name, &format!("spec.imagePullSecrets[{index}].name"));
    }
    for (index, volume) in volumes.iter().enumerate() {
        finder.volume(volume, &format!("spec.volumes[{index}]"));
    }
    finder.found
}

struct Finder<'a> {
    namespace: &'a str,
    objects: &'a Objects,
    claims: &'a [ClaimRecord],
    found: Vec<Dangling>,
}

impl Finder<'_> {
    /// The keys of an object, if it is there.
    fn keys(&self, kind: Kind, name: &str) -> Option<BTreeSet<&str>> {
        let key = (self.namespace.to_owned(), name.to_owned());
        match kind {
            Kind::ConfigMap => {
                let map = self.objects.config_maps.get(&key)?;
                let text = map.data.iter().flatten().map(|(key, _)| key.as_str());
                let bytes = map.binary_data.iter().flatten().map(|(key, _)| key.as_str());
                Some(text.chain(bytes).collect())
            }
            Kind::Secret => {
                let secret = self.objects.secrets.get(&key)?;
                Some(
                    secret
                        .data
                        .iter()
                        .flatten()
                        .map(|(key, _)| key.as_str())
                        .collect(),
                )
            }
        }
    }

    /// Reports an object that is missing, or those of the keys (with their paths) that are.
    fn check(&mut self, kind: Kind, name: &str, optional: Option<bool>, path: &str, keys: &[(String, &str)]) {
        if optional == Some(true) || name.is_empty() {
            return;
        }
        let what = match kind {
            Kind::ConfigMap => "ConfigMap",
            Kind::Secret => "Secret",
        };
        let full = format!("{what} {}/{name}", self.namespace);
        let found = match self.keys(kind, name) {
            None => vec![Dangling {
                path: path.to_owned(),
                message: format!("Not found: {name:?}: {full} is in none of the files"),
            }],
            Some(known) => {
                let missing = keys
                    .iter()
                    .filter(|(_, key)| !key.is_empty() && !known.contains(key));
                let message = |key: &str| format!("Not found: {key:?}: {full} has no such key");
                missing
                    .map(|(path, key)| Dangling {
                        path: path.clone(),
                        message: message(key),
                    })
                    .collect()
            }
        };
        self.found.extend(found);
    }

    fn pull_secret(&mut self, name: &str, path: &str) {
        self.check(Kind::Secret, name, None, path, &[]);
        let key = (self.namespace.to_owned(), name.to_owned());
        if let Some(Err(problem)) = self.objects.secrets.get(&key).map(pull_secrets::check) {
            self.found.push(Dangling {
                path: path.to_owned(),
                message: format!(
                    "Invalid value: {name:?}: Secret {}/{name} is no pull secret: {problem}",
                    self.namespace
                ),
            });
        }
    }

    fn container(&mut self, container: &Container, path: &str) {
        for (index, source) in container.env_from.iter().flatten().enumerate() {
            let path = format!("{path}.envFrom[{index}]");
            if let Some(map) = &source.config_map_ref {
                self.check(
                    Kind::ConfigMap,
                    &map.name,
                    map.optional,
                    &format!("{path}.configMapRef.name"),
                    &[],
                );
            }
            if let Some(secret) = &source.secret_ref {
                self.check(
                    Kind::Secret,
                    &secret.name,
                    secret.optional,
                    &format!("{path}.secretRef.name"),
                    &[],
                );
            }
        }
        for (index, variable) in container.env.iter().flatten().enumerate() {
            if let Some(from) = &variable.value_from {
                self.value_from(from, &format!("{path}.env[{index}].valueFrom"));
            }
        }
    }

    fn value_from(&mut self, from: &EnvVarSource, path: &str) {
        if let Some(of) = &from.config_map_key_ref {
            let path = format!("{path}.configMapKeyRef");
            let keys = [(format!("{path}.key"), of.key.as_str())];
            self.check(
                Kind::ConfigMap,
                &of.name,
                of.optional,
                &format!("{path}.name"),
                &keys,
            );
        }
        if let Some(of) = &from.secret_key_ref {
            let path = format!("{path}.secretKeyRef");
            let keys = [(format!("{path}.key"), of.key.as_str())];
            self.check(
                Kind::Secret,
                &of.name,
                of.optional,
                &format!("{path}.name"),
                &keys,
            );
        }
    }

    /// Claims that a container has in another way than they are.
    fn modes(&mut self, pod: &Pod, container: &Container, path: &str) {
        let mounts = container.volume_mounts.iter().flatten();
        let mounts = mounts.map(|mount| ("volumeMounts", mount.name.as_str()));
        let devices = container.volume_devices.iter().flatten();
        let devices = devices.map(|device| ("volumeDevices", device.name.as_str()));
        for (list, name) in mounts.chain(devices) {
            let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let Some(is_block) = volumes
                .find(|volume| volume.name == name)
                .and_then(|volume| self.is_block(volume))
            else {
                continue;
            };
            let mode = match (list, is_block) {
                ("volumeMounts", true) => "Block",
                ("volumeDevices", false) => "Filesystem",
                _ => continue,
            };
            self.found.push(Dangling {
                path: format!("{path}.{list}"),
                message: format!("volume {name} has volumeMode {mode}, but is specified in {list}"),
            });
        }
    }

    /// Whether a claim's volume is a block device; `None` for other volumes, and for claims that are not there.
    fn is_block(&self, volume: &Volume) -> Option<bool> {
        if volume.ephemeral.is_some() {
            // No other is made.
            return Some(false);
        }
        let name = volume.persistent_volume_claim.as_ref()?.claim_name.as_str();
        let record = self.claim_record(name)?;
        Some(record.is_block())
    }

    fn claim_record(&self, name: &str) -> Option<&ClaimRecord> {
        let mut claims = self.claims.iter();
        claims.find(|record| record.namespace() == self.namespace && record.name() == name)
    }

    fn claim(&mut self, name: &str, path: String) {
        if !name.is_empty() && self.claim_record(name).is_none() {
            let full = format!("{}/{name}", self.namespace);
            let message = format!(
                "persistentvolumeclaim {name:?} not found: PersistentVolumeClaim {full} is in none of the files, and no \
                 earlier run made it"
            );
            self.found.push(Dangling { path, message });
        }
    }

    fn volume(&mut self, volume: &Volume, path: &str) {
        if let Some(claim) = &volume.persistent_volume_claim {
            self.claim(
                &claim.claim_name,
                format!("{path}.persistentVolumeClaim.claimName"),
            );
        }
        if let Some(map) = &volume.config_map {
            let path = format!("{path}.configMap");
            self.check(
                Kind::ConfigMap,
                &map.name,
                map.optional,
                &format!("{path}.name"),
                &items(&path, map.items.as_deref()),
            );
        }
        if let Some(secret) = &volume.secret {
            let path = format!("{path}.secret");
            let name = secret.secret_name.as_deref().unwrap_or_default();
            let keys = items(&path, secret.items.as_deref());
            self.check(
                Kind::Secret,
                name,
                secret.optional,
                &format!("{path}.secretName"),
                &keys,
            );
        }
        let sources = volume
            .projected
            .as_ref()
            .and_then(|projected| projected.sources.as_deref())
            .unwrap_or_default();
        for (index, source) in sources.iter().enumerate() {
            let path = format!("{path}.projected.sources[{index}]");
            if let Some(map) = &source.config_map {
                let path = format!("{path}.configMap");
                let keys = items(&path, map.items.as_deref());
                self.check(
                    Kind::ConfigMap,
                    &map.name,
                    map.optional,
                    &format!("{path}.name"),
                    &keys,
                );
            }
            if let Some(secret) = &source.secret {
                let path = format!("{path}.secret");
                let keys = items(&path, secret.items.as_deref());
                self.check(
                    Kind::Secret,
                    &secret.name,
                    secret.optional,
                    &format!("{path}.name"),
                    &keys,
                );
            }
        }
    }
}

fn items<'a>(path: &str, items: Option<&'a [KeyToPath]>) -> Vec<(String, &'a str)> {
    let items = items.unwrap_or_default().iter().enumerate();
    items
        .map(|(index, item)| (format!("{path}.items[{index}].key"), item.key.as_str()))
        .collect()
}
