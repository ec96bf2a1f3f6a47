//! `berth explain`: the fields of a manifest, their types, and what berth does with them.
//!
//! The types are asked how they are read: each is given a reader that notes what it asks for. Kubernetes' own
//! descriptions are not part of the types, and long; what is said of a field is what this program's own tables say.

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess,
    Visitor, value::Error,
};
use serde::forward_to_deserialize_any;

use super::nearest::nearest;
use super::support::{self, Kind};

/// What a type is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Its name, or that of a JSON type.
    name: String,
    list: bool,
    map: bool,
    /// Its fields, if it is an object.
    fields: &'static [&'static str],
}

impl Shape {
    fn text(&self) -> String {
        match (self.list, self.map) {
            (true, _) => format!("[]{}", self.name),
            (_, true) => format!("map[string]{}", self.name),
            _ => self.name.clone(),
        }
    }
}

/// Explains a field such as `pod.spec.containers.livenessProbe`; lists are passed through.
///
/// # Errors
/// There is no such field; the sentence names the one that may be meant.
pub fn explain(path: &str) -> Result<String, String> {
    let mut names = path.split('.');
    let kind = names.next().unwrap_or_default();
    let names: Vec<&str> = names.map(|name| name.trim_end_matches("[]")).collect();
    match kind.to_ascii_lowercase().as_str() {
        "pod" | "pods" | "po" => describe::<Pod>("Pod", Some(Kind::Pod), &names),
        "configmap" | "configmaps" | "cm" => describe::<ConfigMap>("ConfigMap", None, &names),
        "secret" | "secrets" => describe::<Secret>("Secret", None, &names),
        "persistentvolumeclaim" | "persistentvolumeclaims" | "pvc" => {
            describe::<PersistentVolumeClaim>("PersistentVolumeClaim", Some(Kind::Claim), &names)
        }
        "persistentvolume" | "persistentvolumes" | "pv" => {
            describe::<PersistentVolume>("PersistentVolume", Some(Kind::Volume), &names)
        }
        _ => Err(format!(
            "{kind:?} is no kind that can be run; Pod, ConfigMap, Secret, PersistentVolumeClaim and PersistentVolume are."
        )),
    }
}

/// `rules`: whose tables tell what becomes of the fields; all of them are acted on without one.
fn describe<T: DeserializeOwned>(kind: &str, rules: Option<Kind>, names: &[&str]) -> Result<String, String> {
    let mut at = String::new();
    for (index, name) in names.iter().enumerate() {
        let above = shape::<T>(&names[..index]);
        if !above.fields.contains(name) {
            let hint = nearest(name, above.fields);
            let hint = hint.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
            return Err(format!("{} has no field {name:?}{hint}", above.name));
        }
        at = join(&at, name, shape::<T>(&names[..=index]).list);
    }
    let shape_of = shape::<T>(names);
    let mut text = format!("KIND:       {kind}\nVERSION:    v1\n\n");
    match names.last() {
        Some(name) => text.push_str(&format!("FIELD: {name} <{}>\n", shape_of.text())),
        None => text.push_str(&format!("TYPE: {kind}\n")),
    }
    if let Some(rules) = rules.filter(|_| !names.is_empty()) {
        text.push_str(&format!("\nBERTH:\n    {}\n", support::describe(rules, &at)));
    }
    if !shape_of.fields.is_empty() {
        text.push_str("\nFIELDS:\n");
        for field in shape_of.fields {
            let path: Vec<&str> = names.iter().copied().chain([*field]).collect();
            let child = shape::<T>(&path);
            let note = rules.map_or("", |rules| support::mark(rules, &join(&at, field, child.list)));
            text.push_str(&format!("  {field:<32}<{}>{note}\n", child.text()));
        }
    }
    Ok(text)
}

/// A path as the tables have it.
fn join(at: &str, name: &str, list: bool) -> String {
    let dot = if at.is_empty() { "" } else { "." };
    format!("{at}{dot}{name}{}", if list { "[]" } else { "" })
}

/// What the type at a path asks its reader for.
fn shape<T: DeserializeOwned>(names: &[&str]) -> Shape {
    let mut shape = Shape::default();
    // It is an error by design: nothing is read.
    let _ = T::deserialize(Probe {
        names,
        shape: &mut shape,
    });
    shape
}

/// Follows the names, then notes what is asked for.
struct Probe<'a> {
    names: &'a [&'a str],
    shape: &'a mut Shape,
}

fn noted<T>() -> Result<T, Error> {
    Err(Error::custom("only noted"))
}

impl Probe<'_> {
    fn note<T>(self, name: &str) -> Result<T, Error> {
        name.clone_into(&mut self.shape.name);
        noted()
    }
}

macro_rules! simple {
    ($($method:ident $name:literal)*) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            self.note($name)
        })*
    };
}

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Error;

    simple! {
        deserialize_bool "boolean"
        deserialize_i32 "integer" deserialize_i64 "integer" deserialize_u32 "integer" deserialize_u64 "integer"
        deserialize_f64 "number"
        deserialize_str "string" deserialize_string "string"
        deserialize_bytes "base64" deserialize_byte_buf "base64"
        deserialize_any "integer or string"
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: V,
    ) -> Result<V::Value, Error> {
        self.note(name)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let [next, ..] = self.names else {
            self.shape.fields = fields;
            return self.note(name);
        };
        if !fields.contains(next) {
            return noted();
        }
        visitor.visit_map(Enter(self, false))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.shape.list = self.names.is_empty();
        visitor.visit_seq(Enter(self, false))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.shape.map = self.names.is_empty();
        visitor.visit_map(Enter(self, true))
    }

    forward_to_deserialize_any! {
        i8 i16 u8 u16 f32 char unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

/// The one entry that is looked at, of a map whose keys are anything or of an object.
struct Enter<'a>(Probe<'a>, bool);

impl Enter<'_> {
    fn value(&mut self) -> Probe<'_> {
        let names = self.0.names;
        Probe {
            names: if self.1 {
                names
            } else {
                names.get(1..).unwrap_or_default()
            },
            shape: self.0.shape,
        }
    }
}

impl<'de> MapAccess<'de> for Enter<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let name = self.0.names.first().copied().unwrap_or("key");
        seed.deserialize(name.into_deserializer()).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.value())
    }
}

impl<'de> SeqAccess<'de> for Enter<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let probe = Probe {
            names: self.0.names,
            shape: self.0.shape,
        };
        seed.deserialize(probe).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_have_their_types_and_what_becomes_of_them() {
        let probe = explain("pod.spec.containers.livenessProbe").unwrap();
        assert!(probe.contains("FIELD: livenessProbe <Probe>"), "{probe}");
        assert!(
            probe.contains("  periodSeconds                   <integer>\n"),
            "{probe}"
        );
        assert!(
            probe.contains("  httpGet                         <HTTPGetAction>\n"),
            "{probe}"
        );
        let pod = explain("pod").unwrap();
        assert!(
            pod.contains("  spec                            <PodSpec>"),
            "{pod}"
        );
        let spec = explain("pod.spec").unwrap();
        assert!(
            spec.contains("  containers                      <[]Container>"),
            "{spec}"
        );
        assert!(spec.contains("(refused)"), "{spec}");
        let limits = explain("pod.spec.containers.resources.limits").unwrap();
        assert!(limits.contains("<map[string]Quantity>"), "{limits}");
        let refused = explain("pod.spec.topologySpreadConstraints").unwrap();
        assert!(refused.contains("refused: there is one node"), "{refused}");
        let nothing = explain("pod.spec.schedulerName").unwrap();
        assert!(nothing.contains("without effect"), "{nothing}");
        assert!(explain("secret.data").unwrap().contains("<map[string]"));
    }

    #[test]
    fn what_is_no_field_is_named() {
        assert_eq!(
            explain("pod.spec.container").unwrap_err(),
            "PodSpec has no field \"container\"; did you mean \"containers\"?"
        );
        assert!(explain("pod.spec.restartPolicy.x").is_err());
        assert!(
            explain("deployment")
                .unwrap_err()
                .contains("Pod, ConfigMap, Secret")
        );
    }
}
