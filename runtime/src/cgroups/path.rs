//! A validated path below a hierarchy's root.

use std::fmt;

use super::{CgroupError, Result};

/// Path of a group below the root of each hierarchy, without a leading slash: `kubepods/burstable/pod…/…`.
///
/// No component is empty, `.` or `..`, so that joining it to a hierarchy's root cannot leave the hierarchy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CgroupPath(String);

impl CgroupPath {
    /// Checks a path. A leading and a trailing slash are dropped, as in OCI's `linux.cgroupsPath`.
    ///
    /// # Errors
    /// [`CgroupError::Path`] for an empty path, or for components that are empty, `.`, `..`, longer than 255 bytes,
    /// or that hold control characters.
    pub fn new(path: &str) -> Result<Self> {
        let refuse = |reason| {
            Err(CgroupError::Path {
                path: path.to_owned(),
                reason,
            })
        };
        let trimmed = path.strip_prefix('/').unwrap_or(path);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return refuse("it names the root of the hierarchy");
        }
        if trimmed.len() > 4000 {
            return refuse("it is longer than 4000 bytes");
        }
        for component in trimmed.split('/') {
            match component {
                "" => return refuse("it has an empty component"),
                "." | ".." => return refuse("it has a component that is . or .."),
                long if long.len() > 255 => return refuse("a component is longer than 255 bytes"),
                bad if bad.bytes().any(|b| b < 0x20 || b == 0x7f) => {
                    return refuse("a component holds a control character");
                }
                _ => {}
            }
        }
        Ok(Self(trimmed.to_owned()))
    }

    /// The path as text, without a leading slash.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The group that this one is in, if that is not the root.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// The paths of the groups above this one, outermost first, and the path itself.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0
            .match_indices('/')
            .map(|(at, _)| &self.0[..at])
            .chain(std::iter::once(self.0.as_str()))
    }

    /// A child of this group.
    ///
    /// # Errors
    /// As [`CgroupPath::new`].
    pub fn join(&self, child: &str) -> Result<Self> {
        Self::new(&format!("{}/{child}", self.0))
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_and_refuses() {
        for good in [
            "a",
            "/a",
            "a/",
            "/kubepods/burstable/pod1-2/abc",
            "system.slice:x",
            "..a/b..",
        ] {
            assert!(CgroupPath::new(good).is_ok(), "{good}");
        }
        let long = "x".repeat(256);
        for bad in [
            "",
            "/",
            "//",
            "a//b",
            "..",
            "a/../../b",
            "./a",
            "a/.",
            "a\nb",
            "a/\0",
            long.as_str(),
        ] {
            assert!(CgroupPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ancestors_are_outermost_first() {
        let path = CgroupPath::new("/a/b/c").unwrap();
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
        assert_eq!(path.parent().unwrap().as_str(), "a/b");
        assert_eq!(CgroupPath::new("a").unwrap().parent(), None);
    }
}
