//! The platform that images are chosen for.

use serde::Deserialize;

/// What a manifest in an index is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Platform {
    #[serde(default)]
    pub(crate) os: String,
    #[serde(default)]
    pub(crate) architecture: String,
    #[serde(default)]
    pub(crate) variant: Option<String>,
}

impl Platform {
    /// This machine's.
    pub(crate) fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: None,
        }
    }

    /// How well an image for `self` runs here: 0 is best, `None` is not at all.
    pub(crate) fn rank(&self, host: &Self, level: u8) -> Option<u8> {
        if self.os != host.os || self.architecture != host.architecture {
            return None;
        }
        let variant = self.variant.as_deref().unwrap_or("");
        match (self.architecture.as_str(), variant) {
            (_, "") | ("arm64", "v8") => Some(0),
            // The newest instructions that this processor has.
            ("amd64", _) => match variant.strip_prefix('v').and_then(|n| n.parse::<u8>().ok()) {
                Some(n) if n >= 1 && n <= level => Some(n),
                _ => None,
            },
            _ => None,
        }
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) if !variant.is_empty() => write!(f, "/{variant}"),
            _ => Ok(()),
        }
    }
}

/// The x86-64 psABI's micro-architecture level of this processor; 1 elsewhere.
pub(crate) fn host_level() -> u8 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::is_x86_feature_detected as has;
        let v2 = has!("cmpxchg16b") && has!("popcnt") && has!("sse4.2") && has!("ssse3");
        let v3 = v2
            && has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe");
        let v4 = v3
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        1 + u8::from(v2) + u8::from(v3) + u8::from(v4)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_ranked() {
        let platform = |os: &str, architecture: &str, variant: &str| Platform {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant: (!variant.is_empty()).then(|| variant.to_owned()),
        };
        let amd64 = platform("linux", "amd64", "");
        let arm64 = platform("linux", "arm64", "");
        let table = [
            (&amd64, platform("linux", "amd64", ""), 3, Some(0)),
            (&amd64, platform("linux", "amd64", "v3"), 3, Some(3)),
            (&amd64, platform("linux", "amd64", "v4"), 3, None),
            (&amd64, platform("linux", "amd64", "x"), 3, None),
            (&amd64, platform("linux", "386", ""), 3, None),
            (&amd64, platform("windows", "amd64", ""), 3, None),
            (&amd64, platform("unknown", "unknown", ""), 3, None),
            (&arm64, platform("linux", "arm64", "v8"), 1, Some(0)),
            (&arm64, platform("linux", "arm64", ""), 1, Some(0)),
            (&arm64, platform("linux", "arm64", "v9"), 1, None),
            (&arm64, platform("linux", "arm", "v7"), 1, None),
        ];
        for (host, image, level, rank) in table {
            assert_eq!(image.rank(host, level), rank, "{image} on {host}");
        }
    }
}
