//! ConfigMaps and Secrets of pods that run: what differs, and `berth apply` of some that no pod of the files names.
//!
//! There is no list of them: each pod has those that it was given. So one that comes alone is for the pods that name it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use super::control::{CallError, Caller};
use super::detached::Detached;
use crate::plan::Objects;
use crate::refers;
use crate::spec;
use crate::worker::PodRecord;

type Key = (String, String);

/// What became of a ConfigMap or Secret that was applied without a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedObject {
    /// Pods that had another of that name, or none, and have it now: `NAMESPACE/NAME`.
    pub changed: Vec<String>,
    /// Pods that have it already.
    pub unchanged: Vec<String>,
    /// Pods that name it and that nobody runs.
    pub not_run: Vec<String>,
}

/// A pod that is to have other objects.
struct Change {
    record: PodRecord,
    now: Objects,
}

impl Caller {
    /// Gives pods that run the objects which they name, and says what became of each, by `configmap/NAME` and
    /// `secret/NAME`. Only says it if `dry_run`.
    ///
    /// # Errors
    /// One is immutable, and nothing is changed then; or who runs a pod can't be asked.
    pub async fn apply_objects(
        &self,
        objects: &Objects,
        dry_run: bool,
    ) -> Result<BTreeMap<String, AppliedObject>, CallError> {
        let mut applied: BTreeMap<String, AppliedObject> = labels(objects)
            .map(|label| (label, AppliedObject::default()))
            .collect();
        let mut changes = Vec::new();
        for record in self.places().running()? {
            let named = refers::named_by(&record.pod, objects);
            if labels(&named).next().is_none() {
                continue;
            }
            let pod = format!("{}/{}", spec::namespace(&record.pod), spec::name(&record.pod));
            let before = self.objects_of(&record).await?;
            let differing = match &before {
                Some(before) => changed(before, &named)?,
                None => Objects::default(),
            };
            for label in labels(&named) {
                let one = applied.entry(label.clone()).or_default();
                let list = match &before {
                    None => &mut one.not_run,
                    Some(_) if labels(&differing).any(|other| other == label) => &mut one.changed,
                    Some(_) => &mut one.unchanged,
                };
                list.push(pod.clone());
                list.sort_unstable();
            }
            if let Some(before) = before.filter(|_| labels(&differing).next().is_some()) {
                let now = with(before, &named);
                changes.push(Change { record, now });
            }
        }
        for Change { record, now } in changes.into_iter().filter(|_| !dry_run) {
            let name = format!("{}/{}", spec::namespace(&record.pod), spec::name(&record.pod));
            self.change(&name, &record.pod, &now).await?;
        }
        Ok(applied)
    }

    /// What a pod has of ConfigMaps and Secrets, as who runs it says; `None` if nobody does.
    pub(super) async fn objects_of(&self, record: &PodRecord) -> Result<Option<Objects>, CallError> {
        match self.asked_objects(record).await? {
            Some(objects) => Ok(Some(objects)),
            // The daemon has it, and begins only when something is to be done.
            None => Ok(Detached::new(&self.places().kubelet_root)
                .load(&record.uid())
                .ok()
                .map(|workload| workload.into_parts().1)),
        }
    }
}

/// What a pod has after it was given these: an object that is not among them stays as it is, as with kubectl.
pub(super) fn with(before: Objects, given: &Objects) -> Objects {
    let mut now = before;
    now.config_maps.extend(given.config_maps.clone());
    now.secrets.extend(given.secrets.clone());
    now
}

/// Those of the given objects that are new to a pod, or have another content.
///
/// # Errors
/// One that the pod has is immutable, and differs.
pub(super) fn changed(before: &Objects, given: &Objects) -> Result<Objects, CallError> {
    if let Some(immutable) = changed_immutable(before, given) {
        return Err(CallError::Refused(format!(
            "{immutable} is immutable, and its content differs: give it another name."
        )));
    }
    let mut changed = given.clone();
    changed
        .config_maps
        .retain(|key, map| before.config_maps.get(key) != Some(map));
    changed
        .secrets
        .retain(|key, secret| before.secrets.get(key) != Some(secret));
    Ok(changed)
}

/// `ConfigMap NAME` and `Secret NAME`, for sentences.
pub(super) fn names(objects: &Objects) -> impl Iterator<Item = String> {
    let maps = objects
        .config_maps
        .keys()
        .map(|(_, name)| format!("ConfigMap {name}"));
    maps.chain(objects.secrets.keys().map(|(_, name)| format!("Secret {name}")))
}

/// `configmap/NAME` and `secret/NAME`, with the namespace if it is not `default`.
fn labels(objects: &Objects) -> impl Iterator<Item = String> {
    let label = |kind: &str, (namespace, name): &Key| match namespace.as_str() {
        crate::defaults::DEFAULT_NAMESPACE => format!("{kind}/{name}"),
        _ => format!("{kind}/{namespace}/{name}"),
    };
    let maps = objects.config_maps.keys().map(move |key| label("configmap", key));
    maps.chain(objects.secrets.keys().map(move |key| label("secret", key)))
}

/// One that was said never to change, and has.
fn changed_immutable(before: &Objects, after: &Objects) -> Option<String> {
    let map_changed = |(key, map): (&Key, &ConfigMap)| {
        let new = after.config_maps.get(key)?;
        let differs =
            new.data != map.data || new.binary_data != map.binary_data || new.immutable != Some(true);
        (map.immutable == Some(true) && differs).then(|| format!("ConfigMap {}", key.1))
    };
    let secret_changed = |(key, secret): (&Key, &Secret)| {
        let new = after.secrets.get(key)?;
        let differs = new.data != secret.data || new.immutable != Some(true);
        (secret.immutable == Some(true) && differs).then(|| format!("Secret {}", key.1))
    };
    let map = before.config_maps.iter().find_map(map_changed);
    map.or_else(|| before.secrets.iter().find_map(secret_changed))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn objects(maps: &[(&str, Value)]) -> Objects {
        let map = |(name, spec): &(&str, Value)| {
            let key = ("default".to_owned(), (*name).to_owned());
            (key, serde_json::from_value(spec.clone()).unwrap())
        };
        Objects {
            config_maps: maps.iter().map(map).collect(),
            secrets: BTreeMap::new(),
        }
    }

    #[test]
    fn what_is_given_is_added_and_the_rest_stays() {
        let before = objects(&[
            ("same", json!({"data": {"a": "1"}})),
            ("other", json!({"data": {"a": "1"}})),
            ("kept", json!({"data": {"a": "1"}})),
        ]);
        let given = objects(&[
            ("same", json!({"data": {"a": "1"}})),
            ("other", json!({"data": {"a": "2"}})),
            ("new", json!({})),
        ]);
        let differing = changed(&before, &given).unwrap();
        assert_eq!(
            names(&differing).collect::<Vec<_>>(),
            ["ConfigMap new", "ConfigMap other"]
        );
        let now = with(before, &given);
        assert_eq!(
            labels(&now).collect::<Vec<_>>(),
            [
                "configmap/kept",
                "configmap/new",
                "configmap/other",
                "configmap/same"
            ]
        );
    }

    #[test]
    fn what_is_immutable_is_named() {
        let fixed = |word: &str| objects(&[("m", json!({"immutable": true, "data": {"a": word}}))]);
        assert!(changed(&fixed("1"), &fixed("1")).is_ok());
        let free = objects(&[("m", json!({"data": {"a": "1"}}))]);
        for after in [fixed("2"), free.clone()] {
            let error = changed(&fixed("1"), &after).unwrap_err().to_string();
            assert!(error.contains("ConfigMap m is immutable"), "{error}");
        }
        assert!(changed(&free, &fixed("2")).is_ok());
        assert!(changed(&fixed("1"), &Objects::default()).is_ok());
    }
}
