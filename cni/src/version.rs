//! Versions of the CNI specification.

use std::fmt;

/// A version of the specification that configurations and results can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SpecVersion {
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl SpecVersion {
    /// All of them, the oldest first.
    pub(crate) const ALL: [SpecVersion; 4] = [
        SpecVersion::V0_3_1,
        SpecVersion::V0_4_0,
        SpecVersion::V1_0_0,
        SpecVersion::V1_1_0,
    ];

    pub(crate) fn parse(text: &str) -> Option<SpecVersion> {
        SpecVersion::ALL.into_iter().find(|v| v.as_str() == text)
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            SpecVersion::V0_3_1 => "0.3.1",
            SpecVersion::V0_4_0 => "0.4.0",
            SpecVersion::V1_0_0 => "1.0.0",
            SpecVersion::V1_1_0 => "1.1.0",
        }
    }

    /// CHECK, and the previous result at DEL, came with 0.4.0.
    pub(crate) fn has_check(self) -> bool {
        self >= SpecVersion::V0_4_0
    }

    /// STATUS and GC came with 1.1.0.
    pub(crate) fn has_status_and_gc(self) -> bool {
        self >= SpecVersion::V1_1_0
    }

    /// For messages: all versions that are understood.
    pub(crate) fn understood() -> String {
        SpecVersion::ALL.map(SpecVersion::as_str).join(", ")
    }
}

impl fmt::Display for SpecVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
