//! The manifests that are named in a command line.

use std::fmt;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use berth_kubelet::claims::{ClaimStore, Made};
use berth_kubelet::manifest::{self, InputError, Manifest, Options, Source};
use clap::Args;

use crate::root::Root;
use crate::rootless::Rootless;

/// Files with manifests.
#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
pub(crate) struct Files {
    /// YAML or JSON files with Pods, ConfigMaps, Secrets, PersistentVolumeClaims and PersistentVolumes, or directories of them;
    /// `-` is standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,

    /// The same, as kubectl has it
    #[arg(short, long, value_name = "FILE")]
    filename: Vec<PathBuf>,
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.all().map(|file| file.display().to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        self.files.iter().chain(&self.filename)
    }

    /// Reads them. The error is a message for the person who typed the command.
    pub(crate) fn load(&self, lenient: bool, root: &Root) -> Result<Manifest, String> {
        let manifest = self.read(lenient, root)?;
        if manifest.pods.is_empty() && manifest.claims.is_empty() {
            return Err(format!("There is no Pod and no PersistentVolumeClaim in {self}."));
        }
        Ok(manifest)
    }

    /// The same; files that have only ConfigMaps and Secrets will do.
    pub(crate) fn load_any(&self, lenient: bool, root: &Root) -> Result<Manifest, String> {
        self.checked(self.read(lenient, root)?)
    }

    /// The same; those that have only PersistentVolumes and PriorityClasses will do, too.
    pub(crate) fn load_all(&self, lenient: bool, root: &Root) -> Result<Manifest, String> {
        let manifest = self.read(lenient, root)?;
        if manifest.volumes.is_empty() && manifest.priority_classes.is_empty() {
            return self.checked(manifest);
        }
        Ok(manifest)
    }

    fn checked(&self, manifest: Manifest) -> Result<Manifest, String> {
        let objects = &manifest.objects;
        let without = objects.config_maps.is_empty() && objects.secrets.is_empty();
        if manifest.pods.is_empty() && manifest.claims.is_empty() && without {
            return Err(format!(
                "There is no Pod, ConfigMap, Secret or PersistentVolumeClaim in {self}."
            ));
        }
        Ok(manifest)
    }

    fn read(&self, lenient: bool, root: &Root) -> Result<Manifest, String> {
        let mut texts = Vec::new();
        for file in self.all() {
            for file in manifests_in(file)? {
                texts.push((file.display().to_string(), text_of(&file)?));
            }
        }
        let sources: Vec<Source<'_>> = texts.iter().map(|(name, text)| Source { name, text }).collect();
        let node = root.lib.display().to_string();
        let claims = ClaimStore::new(&root.kubelet)
            .list()
            .map_err(|error| format!("{error}."))?;
        let options = Options {
            lenient,
            node: &node,
            claims: &claims,
            user: Rootless::rules(),
        };
        manifest::load(&sources, options).map_err(|errors| errors.to_string())
    }
}

/// Makes the claims of manifests; a line for each, as kubectl says it. A dry run only says it.
pub(crate) fn make_claims(manifest: &Manifest, root: &Root, dry_run: bool) -> Result<Vec<String>, String> {
    let store = ClaimStore::new(&root.kubelet);
    let made = if dry_run {
        store.compare_all(&manifest.claims, &manifest.volumes)
    } else {
        store.make_all(&manifest.claims, &manifest.volumes)
    };
    let line = |(name, made): (String, Made)| {
        let name = name.strip_prefix("default/").unwrap_or(&name);
        let word = match made {
            Made::Created => "created",
            Made::Unchanged => "unchanged",
            Made::Changed => "configured",
        };
        let dry = if dry_run { " (dry run)" } else { "" };
        format!("persistentvolumeclaim/{name} {word}{dry}")
    };
    Ok(made
        .map_err(|error| format!("{error}."))?
        .into_iter()
        .map(line)
        .collect())
}

/// The file, or the manifests in a directory by their names, not those below it.
fn manifests_in(file: &Path) -> Result<Vec<PathBuf>, String> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let failed = |error: std::io::Error| format!("{}: can't be read: {error}.", file.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir(file).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        if matches!(ending, Some("yaml" | "yml" | "json")) && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        return Err(format!("{} has no .yaml, .yml or .json.", file.display()));
    }
    found.sort();
    Ok(found)
}

fn text_of(file: &Path) -> Result<String, String> {
    if file != Path::new("-") {
        let read = std::fs::File::open(file)
            .map_err(InputError::from)
            .and_then(manifest::read);
        return read.map_err(|error| format!("{}: {error}", file.display()));
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        eprintln!("Reading a manifest from the terminal; end it with Ctrl-D.");
    }
    manifest::read(stdin.lock()).map_err(|error| format!("Standard input: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_its_manifests() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = manifests_in(&repository.join("examples")).unwrap();
        let names: Vec<_> = found
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        assert_eq!(names, ["hello.yaml", "web.yaml"]);
        let without = manifests_in(&repository.join("hack")).unwrap_err();
        assert!(
            without.ends_with("hack has no .yaml, .yml or .json."),
            "{without}"
        );
        // What is not there is said by who reads it.
        let missing = repository.join("missing.yaml");
        assert_eq!(manifests_in(&missing).unwrap(), [missing]);
    }
}
