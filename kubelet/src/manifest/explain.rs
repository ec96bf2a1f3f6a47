//! `berth explain`: the fields of a manifest, their types, what they are for, and what berth does with them.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use serde::de::DeserializeOwned;

use super::described::{Described, described};
use super::nearest::nearest;
use super::shape::{Shape, shape};
use super::support::{self, Kind};

/// Text is broken here, as kubectl does.
const WIDTH: usize = 80;

/// Explains a field such as `pod.spec.containers.livenessProbe`; lists are passed through. `recursive`: all fields below it,
/// by name and type only.
///
/// # Errors
/// There is no such field; the sentence names the one that may be meant.
pub fn explain(path: &str, recursive: bool) -> Result<String, String> {
    let (object, names) = object(path)?;
    let explained = object.field(&names)?;
    Ok(explained.text(recursive))
}

/// The fields below one, each with what it is for, for who types a path. None if there is no such field.
pub fn fields_below(path: &str) -> Vec<(&'static str, &'static str)> {
    let Ok((object, names)) = object(path) else {
        return Vec::new();
    };
    let Ok(field) = object.field(&names) else {
        return Vec::new();
    };
    let said = |name: &&'static str| (*name, described(&field.shape.name, name).unwrap_or_default().text);
    field.shape.fields.iter().map(said).collect()
}

/// A kind of object: how its types are asked, and whose tables tell what becomes of the fields; all of them are acted on
/// without one.
struct Object {
    kind: &'static str,
    about: &'static str,
    shape: fn(&[&str]) -> Shape,
    rules: Option<Kind>,
}

fn object(path: &str) -> Result<(Object, Vec<&str>), String> {
    let mut names = path.split('.');
    let kind = names.next().unwrap_or_default();
    let names: Vec<&str> = names.map(|name| name.trim_end_matches("[]")).collect();
    fn of<T: DeserializeOwned>(names: &[&str]) -> Shape {
        shape::<T>(names)
    }
    let object = |kind, about, shape, rules| Object {
        kind,
        about,
        shape,
        rules,
    };
    let object = match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => object("Pod", POD, of::<Pod>, Some(Kind::Pod)),
        "configmap" | "configmaps" | "cm" => object("ConfigMap", CONFIG_MAP, of::<ConfigMap>, None),
        "secret" | "secrets" => object("Secret", SECRET, of::<Secret>, None),
        "persistentvolumeclaim" | "persistentvolumeclaims" | "pvc" => object(
            "PersistentVolumeClaim",
            CLAIM,
            of::<PersistentVolumeClaim>,
            Some(Kind::Claim),
        ),
        "persistentvolume" | "persistentvolumes" | "pv" => object(
            "PersistentVolume",
            VOLUME,
            of::<PersistentVolume>,
            Some(Kind::Volume),
        ),
        "priorityclass" | "priorityclasses" | "pc" => object(
            "PriorityClass",
            PRIORITY_CLASS,
            of::<PriorityClass>,
            Some(Kind::PriorityClass),
        ),
        _ => {
            return Err(format!(
                "{kind:?} is no kind that can be run; Pod, ConfigMap, Secret, PersistentVolumeClaim, PersistentVolume and \
                 PriorityClass are."
            ));
        }
    };
    Ok((object, names))
}

const POD: &str =
    "Containers that run together: they share an address, volumes and a fate. The unit that a node runs.";
const CONFIG_MAP: &str = "Settings that pods read as environment variables or as files.";
const SECRET: &str = "A ConfigMap for what only those who need it may read; its files are kept in memory.";
const CLAIM: &str = "A place for files that outlives the pods that use it. berth binds it to a PersistentVolume of its \
                     manifests, or to a directory of its own.";
const VOLUME: &str = "Where the files of a claim are: a directory of this machine, or an NFS export.";

const PRIORITY_CLASS: &str = "A name for a priority, which pods of the same manifests have by it.";

/// A field of an object, or the whole object.
struct Field<'a> {
    object: &'a Object,
    /// From the object on.
    names: Vec<&'a str>,
    /// As the tables have it.
    path: String,
    shape: Shape,
    said: Described,
}

impl Object {
    fn field<'a>(&'a self, names: &[&'a str]) -> Result<Field<'a>, String> {
        let mut field = Field {
            object: self,
            names: Vec::new(),
            path: String::new(),
            shape: (self.shape)(&[]),
            said: Described {
                text: self.about,
                ..Described::default()
            },
        };
        for name in names {
            let known = field.shape.fields;
            let Some(known_name) = known.iter().find(|known| *known == name) else {
                let hint = nearest(name, known);
                let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
                return Err(format!("{} has no field {name:?}{hint}", field.shape.name));
            };
            field = field.child(known_name);
        }
        Ok(field)
    }
}

impl<'a> Field<'a> {
    fn child(&self, name: &'static str) -> Field<'a> {
        let names: Vec<&'a str> = self.names.iter().copied().chain([name]).collect();
        let shape = (self.object.shape)(&names);
        Field {
            object: self.object,
            path: join(&self.path, name, shape.list),
            shape,
            said: described(&self.shape.name, name).unwrap_or_default(),
            names,
        }
    }

    fn children(&self) -> impl Iterator<Item = (&'static str, Field<'a>)> {
        self.shape.fields.iter().map(|name| (*name, self.child(name)))
    }

    /// What a list says of it in a word.
    fn mark(&self) -> &'static str {
        self.object
            .rules
            .map_or("", |rules| support::mark(rules, &self.path))
    }

    fn line(&self, name: &str) -> String {
        let required = if self.said.required { " -required-" } else { "" };
        format!("{name} <{}>{required}{}", self.shape.text(), self.mark())
    }

    fn text(&self, recursive: bool) -> String {
        let version = match self.object.rules {
            Some(Kind::PriorityClass) => "scheduling.k8s.io/v1",
            _ => "v1",
        };
        let mut text = format!("KIND:       {}\nVERSION:    {version}\n\n", self.object.kind);
        if let Some(name) = self.names.last() {
            text.push_str(&format!("FIELD: {}\n\n", self.line(name)));
        }
        text.push_str(&format!("DESCRIPTION:\n{}", wrapped(self.said.text, 4)));
        if let Some(default) = self.said.default {
            text.push_str(&format!("\nDEFAULT:\n{}", wrapped(default, 4)));
        }
        if let Some(values) = self.said.values {
            text.push_str(&format!("\nVALUES:\n{}", wrapped(values, 4)));
        }
        if !self.names.is_empty() {
            let becomes = self
                .object
                .rules
                .map(|rules| support::describe(rules, &self.path));
            let becomes = becomes.unwrap_or_else(|| "works".to_owned());
            text.push_str("\nBERTH:\n");
            becomes
                .lines()
                .for_each(|line| text.push_str(&wrapped(line.trim(), 4)));
        }
        if !self.shape.fields.is_empty() {
            text.push_str("\nFIELDS:\n");
            if recursive {
                self.tree(2, &mut text);
            } else {
                self.children()
                    .for_each(|(name, child)| child.entry(name, &mut text));
                text.truncate(text.trim_end().len() + 1);
            }
        }
        text
    }

    fn entry(&self, name: &str, text: &mut String) {
        text.push_str(&format!("  {}\n{}", self.line(name), wrapped(self.said.text, 4)));
        let default = self.said.default.map(|default| format!("Default: {default}."));
        let values = self.said.values.map(|values| format!("Values: {values}."));
        let rest: Vec<String> = default.into_iter().chain(values).collect();
        text.push_str(&wrapped(&rest.join(" "), 4));
        text.push('\n');
    }

    fn tree(&self, indent: usize, text: &mut String) {
        for (name, child) in self.children() {
            text.push_str(&format!("{:indent$}{}\n", "", child.line(name)));
            child.tree(indent + 2, text);
        }
    }
}

/// Lines of words that are no longer than [`WIDTH`] if that can be; none for no words.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        if length == 0 || length + 1 + word.chars().count() > WIDTH {
            if length > 0 {
                lines.push('\n');
            }
            lines.push_str(&format!("{:indent$}{word}", ""));
            length = indent + word.chars().count();
        } else {
            lines.push(' ');
            lines.push_str(word);
            length += 1 + word.chars().count();
        }
    }
    if length > 0 {
        lines.push('\n');
    }
    lines
}

/// A path as the tables have it.
fn join(at: &str, name: &str, list: bool) -> String {
    let dot = if at.is_empty() { "" } else { "." };
    format!("{at}{dot}{name}{}", if list { "[]" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(path: &str) -> String {
        explain(path, false).unwrap()
    }

    #[test]
    fn fields_have_their_types_and_what_becomes_of_them() {
        let probe = said("pod.spec.containers.livenessProbe");
        assert!(
            probe.contains("FIELD: livenessProbe <Probe>\n\nDESCRIPTION:\n    "),
            "{probe}"
        );
        assert!(probe.contains("\n  periodSeconds <integer>\n    "), "{probe}");
        assert!(probe.contains(" Default: 10. "), "{probe}");
        assert!(probe.contains("\n  httpGet <HTTPGetAction>\n"), "{probe}");
        assert!(probe.lines().all(|line| line.chars().count() <= WIDTH), "{probe}");
        let pod = said("pod");
        assert!(pod.contains("\n  spec <PodSpec> -required-\n"), "{pod}");
        let spec = said("pod.spec");
        assert!(spec.contains("  containers <[]Container> -required-\n"), "{spec}");
        assert!(spec.contains("(refused)"), "{spec}");
        let limits = said("pod.spec.containers.resources.limits");
        assert!(limits.contains("<map[string]Quantity>"), "{limits}");
        let refused = said("pod.spec.resourceClaims");
        assert!(refused.contains("refused: dynamic resource"), "{refused}");
        let unnamed = said("pod.metadata.generateName");
        assert!(
            unnamed.contains("refused without metadata.name: give the pod"),
            "{unnamed}"
        );
        assert!(
            unnamed.contains("else taken without effect: the object has a name"),
            "{unnamed}"
        );
        let nothing = said("pod.spec.schedulerName");
        assert!(nothing.contains("without effect"), "{nothing}");
        // What is in such a field, too.
        let below =
            said("pod.spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution.topologyKey");
        assert!(below.contains("without effect: only a scheduler"), "{below}");
        let required = said("pod.spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution");
        assert!(required.contains("BERTH:\n    works\n"), "{required}");
        assert!(said("pod.spec.os.name").contains("refused unless it is linux"));
        assert!(said("pc.value").contains("VERSION:    scheduling.k8s.io/v1\n"));
        assert!(said("secret.data").contains("<map[string]"));
        let policy = said("pod.spec.restartPolicy");
        assert!(
            policy.contains("\nDEFAULT:\n    Always\n\nVALUES:\n    Always, OnFailure, Never\n"),
            "{policy}"
        );
    }

    #[test]
    fn everything_below_is_a_tree() {
        let tree = explain("pod.spec.containers.lifecycle", true).unwrap();
        assert!(
            tree.contains(
                "\n  preStop <LifecycleHandler>\n    exec <ExecAction>\n      command <[]string> -required-\n"
            ),
            "{tree}"
        );
        assert!(explain("pod", true).unwrap().lines().count() > 500);
    }

    #[test]
    fn what_is_no_field_is_named() {
        assert_eq!(
            explain("pod.spec.container", false).unwrap_err(),
            "PodSpec has no field \"container\"; did you mean \"containers\"?"
        );
        assert!(explain("pod.spec.restartPolicy.x", false).is_err());
        assert!(
            explain("deployment", false)
                .unwrap_err()
                .contains("Pod, ConfigMap, Secret")
        );
    }

    #[test]
    fn fields_below_one_can_be_chosen_from() {
        let below = fields_below("pod.spec.containers.livenessProbe.httpGet");
        let names: Vec<&str> = below.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["host", "httpHeaders", "path", "port", "scheme"]);
        assert!(fields_below("pod.nothing").is_empty());
        assert!(fields_below("deployment").is_empty());
    }
}
