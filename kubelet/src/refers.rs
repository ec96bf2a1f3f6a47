//! Which ConfigMaps and Secrets a pod names, whether they are there or not.

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Volume};

use crate::plan::Objects;
use crate::spec;

/// What a pod can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ConfigMap,
    Secret,
}

/// Those of the objects that the pod names.
pub(crate) fn named_by(pod: &Pod, objects: &Objects) -> Objects {
    let mut named = objects.clone();
    let is_named = |kind: Kind, (namespace, name): &(String, String)| {
        namespace == spec::namespace(pod) && names(pod, kind, name)
    };
    named.config_maps.retain(|key, _| is_named(Kind::ConfigMap, key));
    named.secrets.retain(|key, _| is_named(Kind::Secret, key));
    named
}

/// Those of the objects that none of the pods names.
pub(crate) fn named_by_none<'a>(pods: impl IntoIterator<Item = &'a Pod>, objects: &Objects) -> Objects {
    let mut rest = objects.clone();
    for pod in pods {
        let named = named_by(pod, objects);
        rest.config_maps
            .retain(|key, _| !named.config_maps.contains_key(key));
        rest.secrets.retain(|key, _| !named.secrets.contains_key(key));
    }
    rest
}

fn names(pod: &Pod, kind: Kind, name: &str) -> bool {
    let spec = pod.spec.iter();
    let volumes = spec.clone().flat_map(|spec| spec.volumes.iter().flatten());
    let pull_secrets = spec.flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let ephemeral = spec::ephemeral_containers(pod);
    let containers = spec::all_containers(pod).map(|(container, _)| container);
    let mut containers = containers.chain(ephemeral.iter().map(|(container, _)| container));
    volumes.into_iter().any(|volume| volume_names(volume, kind, name))
        || kind == Kind::Secret && pull_secrets.into_iter().any(|secret| secret.name == name)
        || containers.any(|container| container_names(container, kind, name))
}

fn volume_names(volume: &Volume, kind: Kind, name: &str) -> bool {
    let projected = volume.projected.iter();
    let mut sources = projected.flat_map(|projected| projected.sources.iter().flatten());
    match kind {
        Kind::ConfigMap => {
            volume.config_map.as_ref().is_some_and(|map| map.name == name)
                || sources.any(|source| source.config_map.as_ref().is_some_and(|map| map.name == name))
        }
        Kind::Secret => {
            let secret = volume.secret.as_ref();
            secret.is_some_and(|secret| secret.secret_name.as_deref() == Some(name))
                || sources.any(|source| source.secret.as_ref().is_some_and(|secret| secret.name == name))
        }
    }
}

fn container_names(container: &Container, kind: Kind, name: &str) -> bool {
    let mut whole = container.env_from.iter().flatten();
    let mut single = container.env.iter().flatten();
    let is_it = |from: &EnvVarSource| match kind {
        Kind::ConfigMap => from
            .config_map_key_ref
            .as_ref()
            .is_some_and(|key| key.name == name),
        Kind::Secret => from.secret_key_ref.as_ref().is_some_and(|key| key.name == name),
    };
    let whole = match kind {
        Kind::ConfigMap => whole.any(|from| from.config_map_ref.as_ref().is_some_and(|map| map.name == name)),
        Kind::Secret => whole.any(|from| from.secret_ref.as_ref().is_some_and(|secret| secret.name == name)),
    };
    whole || single.any(|variable| variable.value_from.as_ref().is_some_and(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn every_place_that_names_one_counts() {
        let pod = testing::pod(
            r#"{"volumes":[{"name":"a","configMap":{"name":"a"}},{"name":"b","secret":{"secretName":"b"}},
                {"name":"c","projected":{"sources":[{"configMap":{"name":"c"}},{"secret":{"name":"d"}}]}}],
              "imagePullSecrets":[{"name":"e"}],
              "initContainers":[{"name":"i","image":"i","envFrom":[{"configMapRef":{"name":"f"}},{"secretRef":{"name":"g"}}]}],
              "containers":[{"name":"c","image":"i","env":[
                {"name":"H","valueFrom":{"configMapKeyRef":{"name":"h","key":"k"}}},
                {"name":"I","valueFrom":{"secretKeyRef":{"name":"i","key":"k"}}}]}]}"#,
        );
        let keys = |name: &str| (spec::namespace(&pod).to_owned(), name.to_owned());
        let mut all = Objects::default();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"] {
            all.config_maps.insert(keys(name), Default::default());
            all.secrets.insert(keys(name), Default::default());
        }
        let elsewhere = ("elsewhere".to_owned(), "a".to_owned());
        all.config_maps.insert(elsewhere.clone(), Default::default());
        let named = named_by(&pod, &all);
        let names =
            |keys: Vec<&(String, String)>| keys.into_iter().map(|key| key.1.clone()).collect::<String>();
        assert_eq!(names(named.config_maps.keys().collect()), "acfh");
        assert_eq!(names(named.secrets.keys().collect()), "bdegi");
        let rest = named_by_none([&pod], &all);
        assert_eq!(rest.secrets.len(), 5);
        assert!(rest.config_maps.contains_key(&elsewhere));
    }
}
