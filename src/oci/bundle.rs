//! A bundle: a directory with a configuration.

use std::path::{Path, PathBuf};

use berth_runtime::Rootfs;
use berth_runtime::oci::{Spec, from_slice};

use crate::failure::{Attempt, Failure, usage};

/// A configuration and where it was found.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The directory, absolute.
    pub(crate) path: PathBuf,
    /// `config.json` as it was read.
    pub(crate) text: Vec<u8>,
    /// The same, understood, with a cgroup path.
    pub(crate) spec: Spec,
}

impl Bundle {
    /// Reads `config.json` of the container `id`.
    pub(crate) fn load(path: &Path, id: &str) -> Result<Bundle, Failure> {
        let path = path
            .canonicalize()
            .attempt(|| format!("find the bundle {}", path.display()))?;
        let config = path.join("config.json");
        let text = std::fs::read(&config).attempt(|| format!("read {}", config.display()))?;
        let spec = parse(&text, id).map_err(|e| usage(format!("{} is not valid: {e}.", config.display())))?;
        Ok(Bundle { path, text, spec })
    }

    /// The root file system's directory.
    pub(crate) fn rootfs(&self) -> Result<Rootfs, Failure> {
        let root = self
            .spec
            .root
            .as_ref()
            .ok_or_else(|| usage("config.json: root is missing."))?;
        Ok(Rootfs::Path(self.path.join(&root.path)))
    }

    /// The container's cgroup.
    pub(crate) fn cgroup(&self) -> &str {
        cgroup(&self.spec).unwrap_or_default()
    }

    /// The standard streams are a terminal.
    pub(crate) fn terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    /// The size that the configuration wants for the terminal: columns and rows.
    pub(crate) fn terminal_size(&self) -> (u16, u16) {
        let size = self
            .spec
            .process
            .as_ref()
            .and_then(|process| process.console_size.as_ref());
        let short = |n: u64| u16::try_from(n).unwrap_or(0);
        size.map_or((0, 0), |size| (short(size.width), short(size.height)))
    }
}

/// The cgroup path of a spec.
pub(crate) fn cgroup(spec: &Spec) -> Option<&str> {
    Some(&spec.linux.as_ref()?.cgroups_path)
}

fn parse(text: &[u8], id: &str) -> Result<Spec, String> {
    let mut spec: Spec = from_slice(text)?;
    let linux = spec.linux.as_mut().ok_or("linux is missing")?;
    match linux.cgroups_path.as_str() {
        "" => linux.cgroups_path = format!("/{id}"),
        path if !path.contains('/') && path.split(':').count() == 3 => {
            return Err(format!(
                "the cgroupsPath {path:?} is for the systemd driver, which is not supported"
            ));
        }
        _ => {}
    }
    Ok(spec)
}
