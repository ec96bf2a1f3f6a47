//! Names of pods that stay the same.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A pod's UID: a UUID in its usual form, or whatever the API server gave.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodUid(pub String);

impl fmt::Display for PodUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
