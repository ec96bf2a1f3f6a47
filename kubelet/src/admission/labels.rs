//! The labels of the node, which pods choose it by.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::validation::{label_key_problem, label_value_problem};

/// What is wrong with labels that a node is said to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeLabelError {
    /// No label has such a key.
    #[error("{0:?} is no key of a label: {1}")]
    Key(String, &'static str),
    /// No label has such a value.
    #[error("the label {0} can't be {1:?}: {2}")]
    Value(String, String, &'static str),
}

/// Labels by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeLabels(BTreeMap<String, String>);

impl NodeLabels {
    /// Those that a kubelet gives every node, for this machine with this name, and `said` beside or instead of them.
    pub fn of_machine(name: &str, said: &Self) -> Self {
        let architecture = architecture();
        let own = [
            ("kubernetes.io/hostname", name),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", architecture),
        ];
        let mut all: BTreeMap<String, String> = own
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        all.extend(said.0.clone());
        Self(all)
    }

    /// The value of a label.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }
}

impl FromStr for NodeLabels {
    type Err = NodeLabelError;

    /// Reads `key=value` with commas between them, as a kubelet's option of that name does: a key alone has an empty value, and the
    /// last value of a key counts.
    fn from_str(text: &str) -> Result<Self, NodeLabelError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let all = parts.map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let (key, value) = (key.trim(), value.trim());
            if let Some(why) = label_key_problem(key) {
                return Err(NodeLabelError::Key(key.to_owned(), why));
            }
            match label_value_problem(value) {
                Some(why) => Err(NodeLabelError::Value(key.to_owned(), value.to_owned(), why)),
                None => Ok((key.to_owned(), value.to_owned())),
            }
        });
        Ok(Self(all.collect::<Result<_, _>>()?))
    }
}

/// This machine's architecture, as Kubernetes names it (`GOARCH`).
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_those_that_a_kubelet_gives_it() {
        let said: NodeLabels = "disktype=ssd, kubernetes.io/hostname=other,empty,last=a,last=b"
            .parse()
            .unwrap();
        let all = NodeLabels::of_machine("name", &said);
        for (key, value) in [
            ("kubernetes.io/hostname", Some("other")),
            ("kubernetes.io/os", Some("linux")),
            ("beta.kubernetes.io/os", Some("linux")),
            ("kubernetes.io/arch", Some(architecture())),
            ("beta.kubernetes.io/arch", Some(architecture())),
            ("disktype", Some("ssd")),
            ("empty", Some("")),
            ("last", Some("b")),
            ("none", None),
        ] {
            assert_eq!(all.get(key), value, "{key}");
        }
        let all = NodeLabels::of_machine("name", &NodeLabels::default());
        assert_eq!(all.get("kubernetes.io/hostname"), Some("name"));
    }

    #[test]
    fn what_is_no_label_is_refused() {
        for bad in ["=a", "a b=c", "a=b c", "/a=b", "X/a=b", "a=-", "a=b=c", "a/b/c=d"] {
            assert!(bad.parse::<NodeLabels>().is_err(), "{bad}");
        }
        let message = |text: &str| text.parse::<NodeLabels>().unwrap_err().to_string();
        assert!(message("a b=c").starts_with("\"a b\" is no key of a label: name part must"));
        assert!(message("a=b c").starts_with("the label a can't be \"b c\": a valid label must"));
    }
}
