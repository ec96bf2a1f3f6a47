//! Which pod and which container a person means.

use k8s_openapi::api::core::v1::Pod;

use super::inspect::InspectError;
use crate::spec::{self, Role};

/// kubectl's annotation for the container that is meant where none is named.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// `NAME`, `NAMESPACE/NAME`, `pod/NAME` or `pod/NAMESPACE/NAME`, as namespace and name; more than one where the text can be
/// read both ways, the likelier one first.
pub(super) fn readings(pod: &str) -> Vec<(&str, &str)> {
    match pod.split_once('/') {
        None => vec![("default", pod)],
        Some((kind @ ("pod" | "pods" | "po"), name)) => match name.split_once('/') {
            Some(namespaced) => vec![namespaced],
            None => vec![(kind, name), ("default", name)],
        },
        Some(namespaced) => vec![namespaced],
    }
}

/// A container of a pod, and what there is to say about the choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// Its name.
    pub container: String,
    /// Said to the person, in kubectl's words, where several containers could have been meant.
    pub notice: Option<String>,
}

/// The container of that name, or the one that is meant if none is named: that of kubectl's annotation, else the first.
///
/// # Errors
/// The pod has no such container.
pub(super) fn container(pod: &Pod, shown: &str, wanted: Option<&str>) -> Result<Chosen, InspectError> {
    let known = || names(pod);
    if let Some(wanted) = wanted {
        if spec::container(pod, wanted).is_some() || spec::is_ephemeral(pod, wanted) {
            return Ok(Chosen {
                container: wanted.to_owned(),
                notice: None,
            });
        }
        return Err(InspectError::NoContainer {
            pod: shown.to_owned(),
            container: wanted.to_owned(),
            known: known().join(", "),
        });
    }
    let annotated = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(DEFAULT_CONTAINER))
        .filter(|name| spec::container(pod, name).is_some());
    let first = spec::containers(pod).first().map(|container| &container.name);
    let container = annotated.or(first).cloned().unwrap_or_default();
    let several = known().len() > 1 && annotated.is_none();
    let notice = several.then(|| format!("Defaulted container {container:?} out of: {}", out_of(pod)));
    Ok(Chosen { container, notice })
}

/// All containers: init containers, the others, and those that were added while the pod ran.
pub(super) fn names(pod: &Pod) -> Vec<String> {
    let own = spec::all_containers(pod).map(|(container, _)| container.name.clone());
    let added = spec::ephemeral_containers(pod).into_iter();
    own.chain(added.map(|(container, _)| container.name)).collect()
}

fn out_of(pod: &Pod) -> String {
    let mains = spec::containers(pod)
        .iter()
        .map(|container| container.name.clone());
    let inits = spec::all_containers(pod).filter(|(_, role)| *role != Role::Main);
    let inits = inits.map(|(container, _)| format!("{} (init)", container.name));
    let added = spec::ephemeral_containers(pod).into_iter();
    let added = added.map(|(container, _)| format!("{} (ephem)", container.name));
    mains.chain(added).chain(inits).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    #[test]
    fn containers_are_chosen_as_kubectl_does() {
        let mut pod = testing::pod(
            r#"{"initContainers":[{"name":"i","image":"i"}],"containers":[{"name":"a","image":"i"},{"name":"b","image":"i"}]}"#,
        );
        let chosen = container(&pod, "p", None).unwrap();
        assert_eq!(chosen.container, "a");
        assert_eq!(
            chosen.notice.as_deref(),
            Some("Defaulted container \"a\" out of: a, b, i (init)")
        );
        assert_eq!(container(&pod, "p", Some("i")).unwrap().container, "i");
        assert_eq!(
            container(&pod, "p", Some("x")).unwrap_err().to_string(),
            "Pod p has no container x; it has i, a, b."
        );
        let annotations = [(DEFAULT_CONTAINER.to_owned(), "b".to_owned())].into();
        pod.metadata.annotations = Some(annotations);
        let expected = Chosen {
            container: "b".into(),
            notice: None,
        };
        assert_eq!(container(&pod, "p", None).unwrap(), expected);
        let single = testing::pod(r#"{"containers":[{"name":"a","image":"i"}]}"#);
        assert_eq!(container(&single, "p", None).unwrap().notice, None);
    }

    #[test]
    fn pods_are_named_in_three_ways() {
        assert_eq!(readings("web"), [("default", "web")]);
        assert_eq!(readings("ns/web"), [("ns", "web")]);
        assert_eq!(readings("pod/web"), [("pod", "web"), ("default", "web")]);
        assert_eq!(readings("pod/ns/web"), [("ns", "web")]);
    }
}
