//! What `berth run` does with every field that Kubernetes knows and that it does not act on.
//!
//! A field that is in neither table is acted on. A field may be without effect only for a reason that is written down
//! here; anything else that berth does not do is refused by name.

use super::support_claims::{CLAIM_REFUSED, CLAIM_WITHOUT_EFFECT, VOLUME_REFUSED, VOLUME_WITHOUT_EFFECT};
use super::support_priority::{CLASS_REFUSED, CLASS_WITHOUT_EFFECT};
use super::tree::{Node, Part, Value, path_parts};

/// When a rule holds.
#[derive(Clone, Copy, Debug)]
enum When {
    /// Whenever the field is there and not null.
    Present,
    /// If it has this value.
    Is(&'static str),
    /// If it has another value than this.
    IsNot(&'static str),
    /// Whenever the field is there, but this other one of the object is not.
    Without(&'static str),
}

/// A field that is not acted on, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    /// The field's path; `[]` is every item of a list.
    path: &'static str,
    when: When,
    why: &'static str,
}

pub(super) const fn present(path: &'static str, why: &'static str) -> Rule {
    Rule {
        path,
        when: When::Present,
        why,
    }
}

const fn is(path: &'static str, value: &'static str, why: &'static str) -> Rule {
    Rule {
        path,
        when: When::Is(value),
        why,
    }
}

pub(super) const fn is_not(path: &'static str, value: &'static str, why: &'static str) -> Rule {
    Rule {
        path,
        when: When::IsNot(value),
        why,
    }
}

/// A name that the API server completes where there is none: of a controller's pods it is there beside their name.
pub(super) const fn generate_name(why: &'static str) -> Rule {
    Rule {
        path: "metadata.generateName",
        when: When::Without("metadata.name"),
        why,
    }
}

const NEEDS_SERVER: &str = "it needs a Kubernetes API server";

/// Fields of a Pod that are refused. A path that begins with `*` holds for containers and init containers alike.
const REFUSED: &[Rule] = &[
    generate_name("give the pod a metadata.name"),
    present("metadata.finalizers", "nothing would ever take them off the pod"),
    present(
        "metadata.deletionTimestamp",
        "the pod of this manifest was being deleted",
    ),
    present(
        "metadata.deletionGracePeriodSeconds",
        "the pod of this manifest was being deleted",
    ),
    is(
        "spec.automountServiceAccountToken",
        "true",
        "there is no API server that could give a token",
    ),
    present(
        "spec.ephemeralContainers",
        "they are added to a pod that runs: `berth debug`",
    ),
    is_not("spec.os.name", "linux", "only Linux pods run here"),
    present(
        "spec.resourceClaims",
        "dynamic resource allocation is not done yet",
    ),
    present(
        "spec.resources.claims",
        "dynamic resource allocation is not done yet",
    ),
    present("spec.schedulingGroup", NEEDS_SERVER),
    present("spec.securityContext.windowsOptions", "only Linux pods run here"),
    present(
        "*.resources.claims",
        "dynamic resource allocation is not done yet",
    ),
    present("*.securityContext.windowsOptions", "only Linux pods run here"),
    present(
        "*.lifecycle.postStart.tcpSocket",
        "Kubernetes does not do it either; use httpGet or exec",
    ),
    present(
        "*.lifecycle.preStop.tcpSocket",
        "Kubernetes does not do it either; use httpGet or exec",
    ),
    present(
        "spec.volumes[].projected.sources[].clusterTrustBundle",
        NEEDS_SERVER,
    ),
    present("spec.volumes[].projected.sources[].podCertificate", NEEDS_SERVER),
    present(
        "spec.volumes[].projected.sources[].serviceAccountToken",
        NEEDS_SERVER,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.dataSource",
        EPHEMERAL,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.dataSourceRef",
        EPHEMERAL,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.resources.limits",
        EPHEMERAL,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.selector",
        EPHEMERAL,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.volumeAttributesClassName",
        EPHEMERAL,
    ),
    is_not(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.volumeMode",
        "Filesystem",
        EPHEMERAL,
    ),
    present(
        "spec.volumes[].ephemeral.volumeClaimTemplate.spec.volumeName",
        EPHEMERAL,
    ),
    present("spec.volumes[].awsElasticBlockStore", OTHER_VOLUME),
    present("spec.volumes[].azureDisk", OTHER_VOLUME),
    present("spec.volumes[].azureFile", OTHER_VOLUME),
    present("spec.volumes[].cephfs", OTHER_VOLUME),
    present("spec.volumes[].cinder", OTHER_VOLUME),
    present("spec.volumes[].csi", OTHER_VOLUME),
    present("spec.volumes[].fc", OTHER_VOLUME),
    present("spec.volumes[].flexVolume", OTHER_VOLUME),
    present("spec.volumes[].flocker", OTHER_VOLUME),
    present("spec.volumes[].gcePersistentDisk", OTHER_VOLUME),
    present("spec.volumes[].gitRepo", OTHER_VOLUME),
    present("spec.volumes[].glusterfs", OTHER_VOLUME),
    present("spec.volumes[].iscsi", OTHER_VOLUME),
    present("spec.volumes[].photonPersistentDisk", OTHER_VOLUME),
    present("spec.volumes[].portworxVolume", OTHER_VOLUME),
    present("spec.volumes[].quobyte", OTHER_VOLUME),
    present("spec.volumes[].rbd", OTHER_VOLUME),
    present("spec.volumes[].scaleIO", OTHER_VOLUME),
    present("spec.volumes[].storageos", OTHER_VOLUME),
    present("spec.volumes[].vsphereVolume", OTHER_VOLUME),
];

const OTHER_VOLUME: &str = "volumes that work are configMap, downwardAPI, emptyDir, ephemeral, hostPath, image, nfs, \
                            persistentVolumeClaim, projected and secret";
const ACCESS: &str = "a cluster adds this volume to its pods, and there is no API server here: take it out, with its \
                      volumeMounts";
const EPHEMERAL: &str = "an ephemeral volume is a new directory";

const SCHEDULER: &str =
    "only a scheduler acts on it, as it chooses among nodes; a kubelet does not look at it";
const NAMED: &str = "the object has a name already";
pub(super) const EXPORTED: &str =
    "an API server writes it, and its value says nothing about the pod that is to run";

/// Fields of every kind of object that are taken without effect.
const METADATA_WITHOUT_EFFECT: &[Rule] = &[
    present("metadata.creationTimestamp", EXPORTED),
    present("metadata.generateName", NAMED),
    present("metadata.generation", EXPORTED),
    present("metadata.managedFields", EXPORTED),
    present("metadata.ownerReferences", EXPORTED),
    present("metadata.resourceVersion", EXPORTED),
    present("metadata.selfLink", EXPORTED),
];

/// Fields of a Pod that are taken without effect. What they ask for is so anyway.
const WITHOUT_EFFECT: &[Rule] = &[
    present("status", "berth computes it"),
    present("spec.affinity.podAffinity", SCHEDULER),
    present("spec.affinity.podAntiAffinity", SCHEDULER),
    present(
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        SCHEDULER,
    ),
    present(
        "spec.nodeName",
        "the pod is on the node that reads its manifest, whatever that says, as a kubelet's pods from files are",
    ),
    present("spec.preemptionPolicy", SCHEDULER),
    present("spec.topologySpreadConstraints", SCHEDULER),
    present("spec.schedulerName", "no scheduler chooses a node for the pod"),
    present(
        "spec.tolerations",
        "this node has no taints, and a kubelet does not look at them for pods from files",
    ),
    present("spec.automountServiceAccountToken", "no token is mounted"),
    present("spec.enableServiceLinks", "there are no services"),
    present(
        "spec.serviceAccount",
        "it is a name that the pod may ask for, and grants nothing here",
    ),
    present(
        "spec.serviceAccountName",
        "it is a name that the pod may ask for, and grants nothing here",
    ),
    present("spec.os", "the pod runs on Linux"),
];

/// A field that is refused: its line, its path and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) line: usize,
    pub(super) path: String,
    pub(super) why: &'static str,
    /// What is in it needs no look.
    pub(super) whole: bool,
}

/// What a manifest may have besides ConfigMaps and Secrets, all of whose fields are acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Pod,
    Claim,
    Volume,
    PriorityClass,
}

/// The fields that are refused.
fn refused(kind: Kind) -> &'static [Rule] {
    match kind {
        Kind::Pod => REFUSED,
        Kind::Claim => CLAIM_REFUSED,
        Kind::Volume => VOLUME_REFUSED,
        Kind::PriorityClass => CLASS_REFUSED,
    }
}

/// The fields that are taken without effect.
fn ineffective(kind: Kind) -> impl Iterator<Item = &'static Rule> {
    let own = match kind {
        Kind::Pod => WITHOUT_EFFECT,
        Kind::Claim => CLAIM_WITHOUT_EFFECT,
        Kind::Volume => VOLUME_WITHOUT_EFFECT,
        Kind::PriorityClass => CLASS_WITHOUT_EFFECT,
    };
    METADATA_WITHOUT_EFFECT.iter().chain(own)
}

/// All fields of a Pod that `berth run` does not do.
pub(super) fn refusals(pod: &Node) -> Vec<Refusal> {
    let mut found = refusals_of(Kind::Pod, pod);
    for refusal in &mut found {
        let Some((volume, _)) = refusal.path.split_once(".projected.sources[") else {
            continue;
        };
        let projected = format!("{volume}.projected");
        if is_access(pod, volume) {
            *refusal = Refusal {
                line: pod.line_of(&projected),
                path: projected,
                why: ACCESS,
                whole: true,
            };
        }
    }
    found.dedup();
    found
}

/// The volume, `spec.volumes[0]`, is the one that an API server adds to every pod.
fn is_access(pod: &Node, volume: &str) -> bool {
    let [Part::Name(_), Part::Name(_), Part::Index(index)] = path_parts(volume)[..] else {
        return false;
    };
    let Some(Value::List(volumes)) = pod.at("spec.volumes").map(|volumes| &volumes.value) else {
        return false;
    };
    let name = volumes.get(index).and_then(|volume| volume.get("name")?.text());
    name.is_some_and(|name| name.starts_with("kube-api-access-"))
}

/// All fields of an object that `berth run` does not do.
pub(super) fn refusals_of(kind: Kind, pod: &Node) -> Vec<Refusal> {
    let mut found = Vec::new();
    for rule in refused(kind) {
        if let When::Without(other) = rule.when
            && pod.at(other).is_some_and(|other| !other.is_null())
        {
            continue;
        }
        for path in expanded(rule.path) {
            apply(rule, pod, pod.line, &path, String::new(), &mut found);
        }
    }
    found
}

/// A Pod without the fields that are refused. A hook of a kind that is refused goes as a whole.
pub(super) fn without<'a>(pod: &Node, refused: impl Iterator<Item = &'a str>) -> Node {
    let mut rest = pod.clone();
    for path in refused {
        let whole = path.strip_suffix(".tcpSocket").unwrap_or(path);
        remove(&mut rest, &path_parts(whole));
    }
    rest
}

fn remove(node: &mut Node, path: &[Part<'_>]) {
    match (&mut node.value, path) {
        (Value::Map(fields), [Part::Name(name)]) => fields.retain(|(key, _)| key.name != *name),
        (Value::Map(fields), [Part::Name(name), rest @ ..]) => {
            fields
                .iter_mut()
                .filter(|(key, _)| key.name == *name)
                .for_each(|(_, child)| remove(child, rest));
        }
        (Value::List(items), [Part::Index(index), rest @ ..]) => {
            if let Some(item) = items.get_mut(*index) {
                remove(item, rest);
            }
        }
        _ => {}
    }
}

/// Why a field of a Pod is taken without effect, if it is.
pub fn without_effect(path: &str) -> Option<&'static str> {
    without_effect_of(Kind::Pod, path)
}

/// Why a field of an object is taken without effect, if it is.
pub(super) fn without_effect_of(kind: Kind, path: &str) -> Option<&'static str> {
    let path = path.trim_end_matches("[]");
    ineffective(kind)
        .find(|rule| rule.path == path)
        .map(|rule| rule.why)
}

/// What becomes of a field, as a sentence without its end.
pub(super) fn describe(kind: Kind, path: &str) -> String {
    let rules = refused(kind)
        .iter()
        .filter(|rule| expanded(rule.path).iter().any(|known| covers(known, path)));
    let mut said: Vec<String> = rules
        .map(|rule| match rule.when {
            When::Present => format!("refused: {}", rule.why),
            When::Is(value) => format!("refused if it is {value}: {}", rule.why),
            When::IsNot(value) => format!("refused unless it is {value}: {}", rule.why),
            When::Without(other) => format!("refused without {other}: {}", rule.why),
        })
        .collect();
    if let Some(why) = without_effect_of(kind, path) {
        let or = if said.is_empty() { "" } else { "else " };
        said.push(format!("{or}taken without effect: {why}"));
    }
    if said.is_empty() {
        let above = without_effect_above(kind, path);
        return above.map_or_else(
            || "works".to_owned(),
            |why| format!("taken without effect: {why}"),
        );
    }
    said.join("\n    ")
}

/// The same in a word, for a list; empty for what is acted on.
pub(super) fn mark(kind: Kind, path: &str) -> &'static str {
    let mut rules = refused(kind)
        .iter()
        .filter(|rule| expanded(rule.path).iter().any(|known| covers(known, path)));
    match rules.next().map(|rule| rule.when) {
        None if without_effect_of(kind, path).is_some() => " (without effect)",
        None if without_effect_above(kind, path).is_some() => " (without effect)",
        None => "",
        Some(When::Present) => " (refused)",
        Some(_) => " (in part)",
    }
}

/// Why what a field is in is taken without effect, if it is.
fn without_effect_above(kind: Kind, path: &str) -> Option<&'static str> {
    let rule = ineffective(kind).find(|rule| covers(rule.path, path))?;
    Some(rule.why)
}

/// A rule holds for its field and for all that is in it. Whether a list's brackets stand at the end makes no difference.
fn covers(rule: &str, path: &str) -> bool {
    let (rule, path) = (rule.trim_end_matches("[]"), path.trim_end_matches("[]"));
    path.strip_prefix(rule)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// A field of a Pod is refused, always or with some values.
#[cfg(test)]
pub(super) fn is_refused(path: &str) -> bool {
    is_refused_of(Kind::Pod, path)
}

/// A field of an object is refused, always or with some values.
#[cfg(test)]
pub(super) fn is_refused_of(kind: Kind, path: &str) -> bool {
    refused(kind)
        .iter()
        .any(|rule| expanded(rule.path).iter().any(|known| known == path))
}

/// When and why a field of a Pod is refused, if it is. Init containers have the same rules as containers.
#[cfg(test)]
pub(super) fn refusal(path: &str) -> Option<(String, &'static str)> {
    let rule = REFUSED
        .iter()
        .find(|rule| expanded(rule.path).iter().any(|known| known == path))?;
    let when = match rule.when {
        When::Present => String::new(),
        When::Is(value) => format!(" when `{value}`"),
        When::IsNot(value) => format!(" unless `{value}`"),
        When::Without(other) => format!(" without `{other}`"),
    };
    Some((when, rule.why))
}

fn expanded(path: &str) -> Vec<String> {
    match path.strip_prefix('*') {
        Some(rest) => vec![
            format!("spec.initContainers[]{rest}"),
            format!("spec.containers[]{rest}"),
        ],
        None => vec![path.to_owned()],
    }
}

fn apply(rule: &Rule, node: &Node, line: usize, rest: &str, at: String, found: &mut Vec<Refusal>) {
    if let Some(rest) = rest.strip_prefix("[]") {
        if let Value::List(items) = &node.value {
            for (index, item) in items.iter().enumerate() {
                apply(rule, item, item.line, rest, format!("{at}[{index}]"), found);
            }
        }
        return;
    }
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    if rest.is_empty() {
        if holds(rule.when, node) {
            found.push(Refusal {
                line,
                path: at,
                why: rule.why,
                whole: false,
            });
        }
        return;
    }
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let Value::Map(fields) = &node.value else { return };
    for (key, child) in fields.iter().filter(|(key, _)| key.name == name) {
        let at = if at.is_empty() {
            name.to_owned()
        } else {
            format!("{at}.{name}")
        };
        apply(rule, child, key.line, rest, at, found);
    }
}

fn holds(when: When, node: &Node) -> bool {
    let boolean = |text: &str| match &node.value {
        Value::Scalar(_, super::scalar::Meaning::Bool(value)) => value.to_string() == text,
        _ => node.text() == Some(text),
    };
    let empty = matches!(&node.value, Value::List(items) if items.is_empty());
    match when {
        _ if node.is_null() || empty => false,
        When::Present | When::Without(_) => true,
        When::Is(value) => boolean(value),
        When::IsNot(value) => !boolean(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tree::parse;

    fn paths(text: &str) -> Vec<String> {
        refusals(&parse(text).unwrap()[0])
            .into_iter()
            .map(|refusal| refusal.path)
            .collect()
    }

    #[test]
    fn refuses_by_path_and_value() {
        let text = "
spec:
  os: {name: windows}
  imagePullSecrets: []
  resourceClaims: null
  initContainers:
  - lifecycle: {preStop: {tcpSocket: {port: 1}}}
  containers:
  - {}
  - resources: {claims: [{name: c}]}
  volumes:
  - iscsi: {}
";
        let expected = [
            "spec.os.name",
            "spec.containers[1].resources.claims",
            "spec.initContainers[0].lifecycle.preStop.tcpSocket",
            "spec.volumes[0].iscsi",
        ];
        assert_eq!(paths(text), expected);
        assert_eq!(paths("spec: {os: {name: linux}}"), [""; 0]);
    }

    #[test]
    fn no_field_is_in_both_tables_without_a_condition() {
        for rule in REFUSED.iter().filter(|rule| matches!(rule.when, When::Present)) {
            assert_eq!(without_effect(rule.path), None, "{}", rule.path);
        }
    }
}
