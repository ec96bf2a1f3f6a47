//! Names of a layer's entries.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Before the name of a file that the layer deletes.
const WHITEOUT: &[u8] = b".wh.";
/// Says that nothing of the layers below shows in this directory.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Before names that AUFS kept for itself.
const AUFS: &[u8] = b".wh..wh.";

/// The longest name of an entry.
const PATH_MAX: usize = 4095;

/// An entry's place: the directory and the name in it. The root has neither.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: PathBuf,
    pub(super) name: OsString,
}

impl Place {
    /// Reads a name of an archive. It is relative, beneath the root, and has no tricks.
    pub(super) fn parse(raw: &[u8]) -> Result<Option<Self>, String> {
        if raw.starts_with(b"/") {
            return Err("its name is absolute".to_owned());
        }
        if raw.contains(&0) {
            return Err("its name has a zero byte".to_owned());
        }
        if raw.len() > PATH_MAX {
            return Err(format!("its name is longer than {PATH_MAX} bytes"));
        }
        let mut components: Vec<&[u8]> = Vec::new();
        for component in raw.split(|&b| b == b'/') {
            match component {
                b"" | b"." => {}
                b".." => return Err("its name has a `..`".to_owned()),
                _ => components.push(component),
            }
        }
        let Some(name) = components.pop() else {
            return Ok(None);
        };
        let parent = PathBuf::from(OsString::from_vec(components.join(&b'/')));
        Ok(Some(Self {
            parent,
            name: OsStr::from_bytes(name).to_owned(),
        }))
    }

    pub(super) fn path(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// What the name stands for.
    pub(super) fn marker(&self) -> Result<Marker, String> {
        if self
            .parent
            .iter()
            .any(|component| component.as_bytes().starts_with(WHITEOUT))
        {
            return Err("its name goes through a whiteout".to_owned());
        }
        let name = self.name.as_bytes();
        if name == OPAQUE {
            return Ok(Marker::Opaque);
        }
        if name.starts_with(AUFS) {
            return Ok(Marker::Ignored);
        }
        match name.strip_prefix(WHITEOUT) {
            None => Ok(Marker::File),
            Some(b"" | b"." | b"..") => Err("it is a whiteout of no file of its directory".to_owned()),
            Some(hidden) => Ok(Marker::Whiteout(OsStr::from_bytes(hidden).to_owned())),
        }
    }
}

/// What an entry's name stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// A file as any other.
    File,
    /// The deletion of a file.
    Whiteout(OsString),
    /// The deletion of all that the layers below have in its directory.
    Opaque,
    /// A leftover of AUFS.
    Ignored,
}

/// A path's prefixes, shortest first, without the root: `a`, `a/b`, `a/b/c`.
pub(super) fn prefixes(path: &Path) -> impl Iterator<Item = &Path> {
    let mut all: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
    all.reverse();
    all.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(String, String)> {
        let place = Place::parse(text.as_bytes()).unwrap()?;
        Some((
            place.parent.to_str().unwrap().to_owned(),
            place.name.to_str().unwrap().to_owned(),
        ))
    }

    #[test]
    fn names_are_relative_and_clean() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(place("a"), pair("", "a"));
        assert_eq!(place("./a//b/./c/"), pair("a/b", "c"));
        assert_eq!(place("..a/b..c"), pair("..a", "b..c"));
        for root in ["", ".", "./", "././"] {
            assert_eq!(place(root), None, "{root:?}");
        }
        for bad in [
            "/",
            "/a",
            "..",
            "a/..",
            "a/../b",
            "../a",
            "./../a",
            "a\0b",
            &"a/".repeat(3000),
        ] {
            assert!(Place::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn markers_are_told_from_files() {
        let marker = |text: &str| Place::parse(text.as_bytes()).unwrap().unwrap().marker();
        assert_eq!(marker("a/wh.b"), Ok(Marker::File));
        assert_eq!(marker("a/.wh.b"), Ok(Marker::Whiteout("b".into())));
        assert_eq!(marker("a/.wh..b"), Ok(Marker::Whiteout(".b".into())));
        assert_eq!(marker("a/.wh..wh..opq"), Ok(Marker::Opaque));
        assert_eq!(marker(".wh..wh.plnk"), Ok(Marker::Ignored));
        for bad in [".wh.", ".wh..", ".wh...", "a/.wh.b/c", ".wh..wh.plnk/c"] {
            assert!(marker(bad).is_err(), "{bad}");
        }
    }
}
