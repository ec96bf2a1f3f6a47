//! A bundle: a directory with a configuration.

use std::fs::File;
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use berth_runtime::Rootfs;
use berth_runtime::cgroups;
use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::oci::{Linux, Spec, from_slice};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::failure::{Attempt, Failure, usage};
use crate::options::Global;

/// A configuration and where it was found.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The directory, absolute.
    pub(crate) path: PathBuf,
    /// `config.json` as it was read.
    pub(crate) text: Vec<u8>,
    /// The same, understood, with a cgroup path.
    pub(crate) spec: Spec,
    /// The scope that systemd is to make for it.
    pub(crate) scope: Option<Scope>,
}

impl Bundle {
    /// Reads `config.json` of the container `id`.
    pub(crate) fn load(global: &Global, path: &Path, id: &str) -> Result<Bundle, Failure> {
        let path = real_path(path).attempt(|| format!("find the bundle {}", path.display()))?;
        let config = path.join("config.json");
        let text = read(&config).attempt(|| format!("read {}", config.display()))?;
        let invalid = |reason: &str| usage(format!("{} is not valid: {reason}.", config.display()));
        let mut spec: Spec = from_slice(&text).map_err(|e| invalid(&e))?;
        let linux = spec.linux.as_mut().ok_or_else(|| invalid("linux is missing"))?;
        let scope = place(linux, id, global.systemd_cgroup)?;
        Ok(Bundle {
            path,
            text,
            spec,
            scope,
        })
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

/// The path of a directory without links or detours. Nearly always it has none, and one look at it shows that.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let plain = path.is_absolute() && path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    if plain
        && !path
            .components()
            .any(|component| component == Component::ParentDir)
        && openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
    {
        return Ok(path.to_owned());
    }
    path.canonicalize()
}

/// Reads a configuration, which must be a file, and no longer than any that makes sense.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    const LONGEST: u64 = 64 << 20;
    let wrong = |reason| std::io::Error::new(std::io::ErrorKind::InvalidInput, reason);
    // Neither a pipe nor a device may keep us waiting.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(wrong("it is not a file"));
    }
    if metadata.len() > LONGEST {
        return Err(wrong("it is larger than 64 MiB"));
    }
    // Of a file, one read gives all that there is room for; with a byte to spare it shows where the end is.
    let mut text = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0) + 1);
    let room = text.capacity();
    if rustix::io::read(&file, rustix::buffer::spare_capacity(&mut text))? == room {
        file.read_to_end(&mut text)?;
    }
    Ok(text)
}

/// The cgroup path of a spec.
pub(crate) fn cgroup(spec: &Spec) -> Option<&str> {
    Some(&spec.linux.as_ref()?.cgroups_path)
}

/// Puts into `cgroupsPath` where the group is below the root of each hierarchy.
fn place(linux: &mut Linux, id: &str, systemd: bool) -> Result<Option<Scope>, Failure> {
    if !systemd {
        linux.cgroups_path = cgroups::path_for(&linux.cgroups_path, id)?;
        return Ok(None);
    }
    let scope = Scope::parse(&linux.cgroups_path, id, !cgroups::is_host_root())?;
    linux.cgroups_path = scope.cgroup_path()?;
    Ok(Some(scope))
}
