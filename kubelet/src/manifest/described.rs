//! What is said of fields: `fields.txt`, a section for each type.
//!
//! A line is `name; required; default VALUE; values VALUES: TEXT`, with only the parts that there are. Kubernetes' own
//! descriptions are not part of the types, and are long; these are berth's.

const FIELDS: &str = include_str!("fields.txt");

/// What is said of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Described {
    /// An object can't be without it.
    pub(super) required: bool,
    /// What it is if it is not given.
    pub(super) default: Option<&'static str>,
    /// What it can be.
    pub(super) values: Option<&'static str>,
    /// What it is for: one to three sentences.
    pub(super) text: &'static str,
}

/// The field of the type, as its own section says, or one that it has together with others.
pub(super) fn described(type_name: &str, field: &str) -> Option<Described> {
    let mut found = None;
    for (types, name, rest) in lines() {
        if name != field {
            continue;
        }
        if types == type_name {
            return Some(rest);
        }
        if types.split(' ').any(|one| one == type_name) {
            found.get_or_insert(rest);
        }
    }
    found
}

/// Every line: the types of its section, the field, what is said of it.
fn lines() -> impl Iterator<Item = (&'static str, &'static str, Described)> {
    let mut types = "";
    FIELDS.lines().filter_map(move |line| {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            types = section;
            return None;
        }
        let (head, text) = line.split_once(": ").filter(|_| !line.starts_with('#'))?;
        let mut parts = head.split("; ");
        let name = parts.next()?;
        let mut said = Described {
            text,
            ..Described::default()
        };
        for part in parts {
            match part.split_once(' ') {
                Some(("default", value)) => said.default = Some(value),
                Some(("values", values)) => said.values = Some(values),
                _ => said.required |= part == "required",
            }
        }
        Some((types, name, said))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret};
    use k8s_openapi::api::scheduling::v1::PriorityClass;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::manifest::shape::shape;

    fn collect<T: DeserializeOwned>(
        path: &mut Vec<&'static str>,
        found: &mut BTreeSet<(String, &'static str)>,
    ) {
        let here = shape::<T>(path);
        for field in here.fields {
            if found.insert((here.name.clone(), field)) {
                path.push(field);
                collect::<T>(path, found);
                path.pop();
            }
        }
    }

    /// Each field of each object that a manifest may have is described once, and nothing else is.
    #[test]
    fn every_field_is_described() {
        let mut fields = BTreeSet::new();
        collect::<Pod>(&mut Vec::new(), &mut fields);
        collect::<ConfigMap>(&mut Vec::new(), &mut fields);
        collect::<Secret>(&mut Vec::new(), &mut fields);
        collect::<PersistentVolumeClaim>(&mut Vec::new(), &mut fields);
        collect::<PersistentVolume>(&mut Vec::new(), &mut fields);
        collect::<PriorityClass>(&mut Vec::new(), &mut fields);
        let mut wrong = Vec::new();
        for (name, field) in &fields {
            let own = lines()
                .filter(|(types, line, _)| types == name && line == field)
                .count();
            if own > 1 || described(name, field).is_none() {
                wrong.push(format!("{name}.{field}: {own} lines of its own"));
            }
        }
        for (types, field, said) in lines() {
            let known = |name: &str| fields.iter().any(|(one, known)| one == name && known == &field);
            if !types.split(' ').any(known) {
                wrong.push(format!("{types}.{field}: no such field"));
            }
            let sentence = said.text.ends_with('.') && said.text.len() > 4 && !said.text.contains("  ");
            if !sentence {
                wrong.push(format!("{types}.{field}: {:?} is no sentence", said.text));
            }
        }
        let read = lines().count();
        let written = FIELDS
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with(['[', '#']));
        assert_eq!(read, written.count(), "lines that can't be read");
        assert!(wrong.is_empty(), "fields.txt:\n{}", wrong.join("\n"));
    }

    #[test]
    fn a_type_s_own_line_comes_before_one_that_it_shares() {
        let period = described("Probe", "periodSeconds").unwrap();
        assert_eq!(period.default, Some("10"));
        assert!(described("Container", "name").unwrap().required);
        assert_eq!(described("Container", "nothing"), None);
        let own = described("EphemeralContainer", "ports").unwrap();
        assert_ne!(own, described("Container", "ports").unwrap());
        assert_eq!(
            described("EphemeralContainer", "workingDir"),
            described("Container", "workingDir")
        );
    }
}
