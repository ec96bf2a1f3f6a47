//! Resources that only the operator knows of.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::validation::extended_resource;

/// What is wrong with what a node is said to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtendedResourceError {
    /// It is not `name=count`.
    #[error("{0:?} is not a resource and its number, as in example.com/dongle=2")]
    Form(String),
    /// No pod could ask for it.
    #[error("the resource {0:?} {1}, as in example.com/dongle")]
    Name(String, &'static str),
}

/// Things that the node has, by name (`example.com/dongle`), and how many. They are counted, and that is all: what a pod needs of them
/// it gets by other fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtendedResources(BTreeMap<String, i64>);

impl ExtendedResources {
    /// How many there are.
    pub(crate) fn count(&self, resource: &str) -> i64 {
        self.0.get(resource).copied().unwrap_or(0)
    }
}

impl FromStr for ExtendedResources {
    type Err = ExtendedResourceError;

    /// Reads names and numbers with commas between them; the last number of a name counts.
    fn from_str(text: &str) -> Result<Self, ExtendedResourceError> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let all = parts.map(|part| {
            let form = || ExtendedResourceError::Form(part.to_owned());
            let (name, count) = part.split_once('=').ok_or_else(form)?;
            let count: u32 = count.trim().parse().map_err(|_| form())?;
            let name = name.trim();
            match extended_resource(name) {
                Some(why) => Err(ExtendedResourceError::Name(name.to_owned(), why)),
                None => Ok((name.to_owned(), i64::from(count))),
            }
        });
        Ok(Self(all.collect::<Result<_, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let all: ExtendedResources = "example.com/dongle=2, b.c/d = 1,".parse().unwrap();
        assert_eq!(
            (
                all.count("example.com/dongle"),
                all.count("b.c/d"),
                all.count("e.f/g")
            ),
            (2, 1, 0)
        );
        for bad in [
            "dongle=1",
            "a.b/c",
            "a.b/c=",
            "a.b/c=-1",
            "a.b/c=1.5",
            "kubernetes.io/c=1",
            "requests.a.b/c=1",
            "a b/c=1",
            "a.b/=1",
        ] {
            assert!(bad.parse::<ExtendedResources>().is_err(), "{bad}");
        }
    }
}
