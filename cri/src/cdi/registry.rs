//! Which devices the files describe.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::schema::{Edits, Specification};
use super::yaml;

/// A file that is larger describes no devices.
const MAX_FILE: u64 = 4 << 20;

/// What all files say.
#[derive(Debug, Default)]
pub(super) struct Registry {
    specifications: Vec<Source>,
    /// Files that can't be used, and why.
    broken: Vec<String>,
}

#[derive(Debug)]
struct Source {
    path: PathBuf,
    /// A larger one wins.
    priority: usize,
    specification: Specification,
}

impl Registry {
    /// Reads the files of the directories, of which a later one wins. What can't be read or makes no sense is no obstacle
    /// for devices of other files.
    pub(super) fn read(directories: &[PathBuf]) -> Self {
        let mut registry = Self::default();
        for (priority, directory) in directories.iter().enumerate() {
            for path in files(directory) {
                match read_file(&path) {
                    Ok(specification) => registry.specifications.push(Source {
                        path,
                        priority,
                        specification,
                    }),
                    Err(reason) => registry.broken.push(format!("{}: {reason}", path.display())),
                }
            }
        }
        registry
    }

    /// What changes for the devices: first what their files say for all devices, once, then each one's own.
    pub(super) fn edits(&self, devices: &[String]) -> Result<Vec<&Edits>, String> {
        let mut edits: Vec<&Edits> = Vec::new();
        let mut common: BTreeMap<&Path, ()> = BTreeMap::new();
        for device in devices {
            let (source, own) = self.find(device)?;
            if common.insert(&source.path, ()).is_none() {
                edits.push(&source.specification.container_edits);
            }
            edits.push(own);
        }
        Ok(edits)
    }

    fn find(&self, device: &str) -> Result<(&Source, &Edits), String> {
        let (kind, name) = device.split_once('=').unwrap_or_default();
        let of_device = |source: &Source| source.specification.kind == kind;
        let mut found: Vec<(&Source, &Edits)> = Vec::new();
        for source in self.specifications.iter().filter(|source| of_device(source)) {
            let mut all = source.specification.devices.iter();
            if let Some(own) = all.find(|own| own.name == name) {
                found.push((source, &own.container_edits));
            }
        }
        let highest = found.iter().map(|(source, _)| source.priority).max();
        found.retain(|(source, _)| Some(source.priority) == highest);
        match found.as_slice() {
            [one] => Ok(*one),
            [] if self.broken.is_empty() => Err(format!("There is no CDI device {device} on this node.")),
            [] => Err(format!(
                "There is no CDI device {device} on this node. Files that can't be used: {}.",
                self.broken.join("; ")
            )),
            [one, other, ..] => Err(format!(
                "The CDI device {device} is described twice, by {} and by {}; remove one of the files.",
                one.0.path.display(),
                other.0.path.display()
            )),
        }
    }
}

/// A directory that is not there has none.
fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let is_file = |path: &PathBuf| {
        path.extension()
            .is_some_and(|kind| kind == "json" || kind == "yaml")
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(is_file)
        .collect();
    files.sort();
    files
}

fn read_file(path: &Path) -> Result<Specification, String> {
    let text = read_text(path).map_err(|error| error.to_string())?;
    // JSON is YAML too; its own reader is stricter.
    let value = match path.extension().is_some_and(|kind| kind == "json") {
        true => serde_json::from_str(&text).map_err(|error| error.to_string())?,
        false => yaml::parse(&text)?,
    };
    specification(value)
}

/// What a file says, checked.
pub(super) fn specification(value: Value) -> Result<Specification, String> {
    let specification: Specification = serde_json::from_value(value).map_err(|error| error.to_string())?;
    specification.check()?;
    Ok(specification)
}

/// What opens is read only if it is a file: a pipe of that name would be waited for, and a device has no end.
fn read_text(path: &Path) -> io::Result<String> {
    let file = File::from(rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
        Mode::empty(),
    )?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text)?;
    match u64::try_from(read) {
        Ok(read) if read <= MAX_FILE => Ok(text),
        _ => Err(io::Error::other("it is larger than 4 MiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::FileType;

    fn write(directory: &Path, name: &str, text: &str) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join(name), text).unwrap();
    }

    fn describing(kind: &str, device: &str, value: &str) -> String {
        format!(
            "cdiVersion: \"0.6.0\"\nkind: {kind}\ncontainerEdits:\n  env: [ALL={value}]\ndevices:\n- name: {device}\n  containerEdits:\n    env:\n    - ONE={value}\n"
        )
    }

    fn variables(edits: &[&Edits]) -> Vec<String> {
        edits.iter().flat_map(|edits| edits.env.clone()).collect()
    }

    #[test]
    fn the_later_directory_wins() {
        let root = tempfile::tempdir().unwrap();
        let directories = ["low", "missing", "high"].map(|name| root.path().join(name));
        write(&directories[0], "a.yaml", &describing("v.com/gpu", "0", "low"));
        write(&directories[0], "b.yaml", &describing("v.com/gpu", "1", "other"));
        write(&directories[2], "c.yaml", &describing("v.com/gpu", "0", "high"));
        let registry = Registry::read(&directories);
        let names = ["v.com/gpu=0".to_owned(), "v.com/gpu=1".to_owned()];
        let edits = registry.edits(&names).unwrap();
        assert_eq!(
            variables(&edits),
            ["ALL=high", "ONE=high", "ALL=other", "ONE=other"]
        );
    }

    #[test]
    fn two_files_of_one_directory_are_a_conflict() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "a.yaml", &describing("v.com/gpu", "0", "a"));
        write(root.path(), "b.yaml", &describing("v.com/gpu", "0", "b"));
        let registry = Registry::read(&[root.path().to_owned()]);
        let error = registry.edits(&["v.com/gpu=0".to_owned()]).unwrap_err();
        assert!(error.contains("a.yaml") && error.contains("b.yaml"), "{error}");
    }

    #[test]
    fn broken_files_are_named_to_who_misses_a_device() {
        let root = tempfile::tempdir().unwrap();
        let good = r#"{"cdiVersion": "1.0.0", "kind": "v.com/nic", "devices": [{"name": "0", "containerEdits": {"env": ["A=b"]}}]}"#;
        write(root.path(), "good.json", good);
        let table = [
            (
                r#"{"cdiVersion": "9.0.0", "kind": "v/c", "devices": []}"#,
                "cdiVersion",
            ),
            (r#"{"cdiVersion": "1.0.0", "kind": "v", "devices": []}"#, "kind"),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": []}"#,
                "no devices",
            ),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": [{"name": "a", "containerEdits": {}}]}"#,
                "changes nothing",
            ),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": [{"name": "a", "containerEdits": {"env": ["=b"]}}]}"#,
                "NAME=value",
            ),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "unknown": 1, "devices": []}"#,
                "unknown",
            ),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": [{"name": "a", "containerEdits": {"hooks": [{"hookName": "x", "path": "/x"}]}}]}"#,
                "no hook",
            ),
            (
                r#"{"cdiVersion": "1.0.0", "kind": "v/c", "devices": [{"name": "a", "containerEdits": {"deviceNodes": [{"path": "/x", "permissions": "x"}]}}]}"#,
                "permissions",
            ),
        ];
        for (text, reason) in table {
            write(root.path(), "bad.json", text);
            let registry = Registry::read(&[root.path().to_owned()]);
            assert_eq!(registry.edits(&["v.com/nic=0".to_owned()]).unwrap().len(), 2);
            let error = registry.edits(&["v.com/nic=1".to_owned()]).unwrap_err();
            assert!(
                error.contains("v.com/nic=1") && error.contains("bad.json") && error.contains(reason),
                "{error}"
            );
        }
    }

    #[test]
    fn hostile_files_are_named_and_stand_in_no_other_ones_way() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        write(root.path(), "good.yaml", &describing("v.com/nic", "0", "x"));
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo.yaml"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path("endless.json")).unwrap();
        std::os::unix::fs::symlink("loop.yaml", path("loop.yaml")).unwrap();
        fs::create_dir(path("directory.yaml")).unwrap();
        fs::write(path("binary.yaml"), [0xff; 100]).unwrap();
        let long = format!("a: {}", "x".repeat(5 << 20));
        write(root.path(), "long.yaml", &long);
        write(root.path(), "deep.yaml", &"[".repeat(100_000));
        write(root.path(), "deep.json", &"[".repeat(100_000));
        write(root.path(), "map.yaml", &"? ".repeat(100_000));
        write(root.path(), "indented.yaml", &"- ".repeat(100_000));
        let mut laughs = "a: &a [x, x]\n".to_owned();
        for (name, of) in ('b'..='z').zip('a'..) {
            laughs.push_str(&format!("{name}: &{name} [*{of}, *{of}]\n"));
        }
        write(root.path(), "laughs.yaml", &laughs);
        let registry = Registry::read(&[root.path().to_owned()]);
        assert_eq!(registry.edits(&["v.com/nic=0".to_owned()]).unwrap().len(), 2);
        assert_eq!(registry.broken.len(), 11, "{:?}", registry.broken);
        let error = registry.edits(&["v.com/nic=1".to_owned()]).unwrap_err();
        for name in [
            "fifo.yaml: it is not a file",
            "endless.json: it is not a file",
            "loop.yaml: ",
            "directory.yaml: it is not a file",
            "binary.yaml: ",
            "long.yaml: it is larger",
            "deep.yaml: ",
            "deep.json: ",
            "laughs.yaml: line 1: anchors",
        ] {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
}
