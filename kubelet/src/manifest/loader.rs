//! Reading the objects of all files.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::de::DeserializeOwned;

use super::claims::FoundClaim;
use super::decode::{Mistake, MistakeKind};
use super::tree::{Node, Value};
use super::{Diagnostic, Manifest, Options, Source, decode, ordinary_user, scalar, support, tree, workloads};
use crate::claims::ClaimRecord;
use crate::defaulting::default_pod;
use crate::defaults::DEFAULT_NAMESPACE;
use crate::identity::pod_uid;
use crate::validation;

/// The API that PriorityClasses are of.
const SCHEDULING: &str = "scheduling.k8s.io/v1";

/// What was read so far.
pub(super) struct Loader<'a> {
    pub(super) options: Options<'a>,
    pub(super) manifest: Manifest,
    pub(super) errors: Vec<Diagnostic>,
    /// Files without an object: those of a chart of which nothing is wanted, beside others.
    pub(super) empty: Vec<Diagnostic>,
    /// Where an object of this kind, namespace and name was found first.
    seen: BTreeMap<(String, String, String), String>,
    /// Where each pod of the manifest was found.
    pub(super) pods: Vec<Found>,
    /// Where each claim of the manifest was found.
    pub(super) claims: Vec<FoundClaim>,
    /// The claims that there are, and will be.
    pub(super) bound: Vec<ClaimRecord>,
    /// The PriorityClasses of the manifests.
    pub(super) priority_classes: Vec<PriorityClass>,
}

/// A pod's file and tree, for what is found when all files are read.
pub(super) struct Found {
    pub(super) file: String,
    pub(super) node: Node,
    pub(super) prefix: String,
}

/// An object in a file: its tree and what its paths begin with (`items[2]`, in a List).
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) file: &'a str,
    pub(super) node: &'a Node,
    pub(super) prefix: &'a str,
}

impl Place<'_> {
    pub(super) fn diagnostic(&self, line: usize, path: &str, message: String) -> Diagnostic {
        let joiner = if self.prefix.is_empty() || path.is_empty() {
            ""
        } else {
            "."
        };
        let path = format!("{}{joiner}{path}", self.prefix);
        Diagnostic {
            file: self.file.to_owned(),
            line,
            path,
            message,
            hint: String::new(),
        }
    }
}

impl<'a> Loader<'a> {
    pub(super) fn new(options: Options<'a>) -> Self {
        Self {
            options,
            manifest: Manifest::default(),
            errors: Vec::new(),
            empty: Vec::new(),
            seen: BTreeMap::new(),
            pods: Vec::new(),
            claims: Vec::new(),
            bound: Vec::new(),
            priority_classes: Vec::new(),
        }
    }
}

impl Loader<'_> {
    /// Reads a file.
    pub(super) fn source(&mut self, source: Source<'_>) {
        let documents = match tree::parse(source.text) {
            Ok(documents) => documents,
            Err(error) => {
                let (file, line) = (source.name.to_owned(), error.line);
                self.errors.push(Diagnostic {
                    file,
                    line,
                    path: String::new(),
                    message: error.message,
                    hint: String::new(),
                });
                return;
            }
        };
        if documents.is_empty() {
            let message = "there is no object in it".to_owned();
            let (file, path, hint) = (source.name.to_owned(), String::new(), String::new());
            self.empty.push(Diagnostic {
                file,
                line: 0,
                path,
                message,
                hint,
            });
        }
        for node in &documents {
            self.object(Place {
                file: source.name,
                node,
                prefix: "",
            });
        }
    }

    fn object(&mut self, place: Place<'_>) {
        let field = |name| place.node.get(name).and_then(Node::text);
        if !matches!(place.node.value, Value::Map(_)) {
            let message = "expected an object with apiVersion and kind".to_owned();
            return self.errors.push(place.diagnostic(place.node.line, "", message));
        }
        let missing: Vec<&str> = ["apiVersion", "kind"]
            .into_iter()
            .filter(|name| field(name).is_none())
            .collect();
        for name in &missing {
            self.errors
                .push(place.diagnostic(place.node.line, name, "Required value".to_owned()));
        }
        let (Some(version), Some(kind)) = (field("apiVersion"), field("kind")) else {
            return;
        };
        match (version, kind) {
            ("v1", "Pod") => self.pod(place),
            ("v1", "ConfigMap") => self.config_map(place),
            ("v1", "Secret") => self.secret(place),
            ("v1", "PersistentVolumeClaim") => self.claim(place),
            ("v1", "PersistentVolume") => self.volume(place),
            (SCHEDULING, "PriorityClass") => self.priority_class(place),
            (
                "v1",
                "List"
                | "PodList"
                | "ConfigMapList"
                | "SecretList"
                | "PersistentVolumeClaimList"
                | "PersistentVolumeList",
            )
            | (SCHEDULING, "PriorityClassList") => self.list(place, version, kind),
            _ => {
                let line = place.node.line_of("kind");
                let mut error = place.diagnostic(line, "kind", format!("{version} {kind} can't be run"));
                let advice = workloads::advice(version, kind);
                error.hint = advice.hint;
                if advice.can_be_left_out {
                    self.report_unless_lenient(error);
                } else {
                    self.errors.push(error);
                }
            }
        }
    }

    fn list(&mut self, place: Place<'_>, version: &str, kind: &str) {
        let Some(Value::List(items)) = place.node.get("items").map(|items| &items.value) else {
            return self.errors.push(place.diagnostic(
                place.node.line,
                "items",
                "expected a list".to_owned(),
            ));
        };
        if !place.prefix.is_empty() {
            let message = "a List in a List".to_owned();
            return self
                .errors
                .push(place.diagnostic(place.node.line, "kind", message));
        }
        for (index, item) in items.iter().enumerate() {
            let prefix = format!("items[{index}]");
            // Items of a typed list may leave out what the list says.
            let typed = with_type(item, version, kind);
            self.object(Place {
                node: typed.as_ref().unwrap_or(item),
                prefix: &prefix,
                ..place
            });
        }
    }

    fn pod(&mut self, place: Place<'_>) {
        let before = self.errors.len();
        let refusals = support::refusals(place.node);
        for refusal in &refusals {
            let message = "not supported by `berth run`".to_owned();
            let mut diagnostic = place.diagnostic(refusal.line, &refusal.path, message);
            refusal.why.clone_into(&mut diagnostic.hint);
            self.report_unless_lenient(diagnostic);
        }
        let impossible = match self.options.user {
            Some(user) => ordinary_user::impossible(place.node, user),
            None => Vec::new(),
        };
        // Nothing is said of a field twice.
        let already = |path: &str| refusals.iter().any(|refusal| refusal.path == path);
        for one in impossible.iter().filter(|one| !already(&one.path)) {
            let message = "not possible for an ordinary user".to_owned();
            let mut diagnostic = place.diagnostic(one.line, &one.path, message);
            diagnostic.hint.clone_from(&one.why);
            self.report_unless_lenient(diagnostic);
        }
        let lenient = self.options.lenient;
        let paths = refusals
            .iter()
            .filter(|refusal| lenient || refusal.whole)
            .map(|refusal| refusal.path.as_str())
            .chain(impossible.iter().filter(|_| lenient).map(|one| one.path.as_str()));
        let stripped = support::without(place.node, paths);
        let place = Place {
            node: &stripped,
            ..place
        };
        let Some(mut pod) = self.decode::<Pod>(place) else {
            return;
        };
        pod.status = None;
        let uid = pod_uid(&pod, self.options.node);
        default_pod(&mut pod);
        // Validation of what could not be read would only repeat it.
        if self.errors.len() == before {
            for error in validation::validate_pod(&pod) {
                let line = place.node.line_of(&error.path);
                self.errors
                    .push(place.diagnostic(line, &error.path, error.to_string()));
            }
        }
        self.note_name(
            place,
            "Pod",
            pod.metadata.namespace.as_deref(),
            pod.metadata.name.as_deref(),
        );
        pod.metadata.uid = Some(uid.0.clone());
        pod.metadata.generation = Some(1);
        self.manifest.pods.push((uid, pod));
        let (file, prefix) = (place.file.to_owned(), place.prefix.to_owned());
        self.pods.push(Found {
            file,
            node: place.node.clone(),
            prefix,
        });
    }

    /// Reads an object; a mistake is reported. The object may be there although mistakes were found.
    pub(super) fn decode<T: DeserializeOwned>(&mut self, place: Place<'_>) -> Option<T> {
        let (object, mistakes) = decode::decode(place.node);
        for mistake in mistakes {
            self.mistake(place, mistake);
        }
        object
    }

    fn mistake(&mut self, place: Place<'_>, mistake: Mistake) {
        let Mistake { line, path, kind } = mistake;
        match kind {
            MistakeKind::Unknown(near) => {
                let mut diagnostic = place.diagnostic(line, &path, "unknown field".to_owned());
                diagnostic.hint = near
                    .map(|near| format!("did you mean {near:?}?"))
                    .unwrap_or_default();
                self.report_unless_lenient(diagnostic);
            }
            MistakeKind::Duplicate(first) => {
                let message = format!("the field is there twice, first on line {first}");
                self.errors.push(place.diagnostic(line, &path, message));
            }
            MistakeKind::Type(message) => self.errors.push(place.diagnostic(line, &path, message)),
            MistakeKind::Value(message) => {
                let mut error = place.diagnostic(line, &path, format!("Invalid value: {message}"));
                if path.starts_with("data[") || path.starts_with("binaryData[") {
                    "the values of this field are base64".clone_into(&mut error.hint);
                }
                self.errors.push(error);
            }
        }
    }

    pub(super) fn report_unless_lenient(&mut self, diagnostic: Diagnostic) {
        if self.options.lenient {
            self.manifest.warnings.push(diagnostic);
        } else {
            self.errors.push(diagnostic);
        }
    }

    /// Two objects of one kind and name can't be told apart.
    pub(super) fn note_name(
        &mut self,
        place: Place<'_>,
        kind: &str,
        namespace: Option<&str>,
        name: Option<&str>,
    ) {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return;
        };
        let namespace = namespace.unwrap_or(DEFAULT_NAMESPACE);
        let shown = if namespace.is_empty() {
            name.to_owned()
        } else {
            format!("{namespace}/{name}")
        };
        let key = (kind.to_owned(), namespace.to_owned(), name.to_owned());
        let line = place.node.line_of("metadata.name");
        let here = format!("{}:{line}", place.file);
        if let Some(first) = self.seen.get(&key) {
            let message = format!("Duplicate value: {name:?}: {kind} {shown} is in {first} already");
            self.errors.push(place.diagnostic(line, "metadata.name", message));
        } else {
            self.seen.insert(key, here);
        }
    }
}

/// An item of a `PodList`, with `apiVersion` and `kind` if it leaves them out.
fn with_type(item: &Node, version: &str, list_kind: &str) -> Option<Node> {
    let kind = list_kind.strip_suffix("List").filter(|kind| !kind.is_empty())?;
    let Value::Map(fields) = &item.value else {
        return None;
    };
    let mut fields = fields.clone();
    for (name, text) in [("apiVersion", version), ("kind", kind)] {
        if item.get(name).is_none() {
            let value = Value::Scalar(text.to_owned(), scalar::Meaning::Str);
            let key = tree::Key {
                name: name.to_owned(),
                line: item.line,
            };
            fields.push((
                key,
                Node {
                    line: item.line,
                    value,
                },
            ));
        }
    }
    Some(Node {
        line: item.line,
        value: Value::Map(fields),
    })
}
