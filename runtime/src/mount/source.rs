//! What the creator prepares of a mount: its options, and for a bind mount a detached copy of its source.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::attach::{set_attributes, set_propagation};
use super::options::{Options, Propagation};
use super::target::is_directory;
use crate::error::Doing;
use crate::oci;
use crate::{Error, Result};

/// A mount that only has to be attached or made inside.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// Where, in the container: absolute, without `..`.
    pub(crate) destination: PathBuf,
    /// What.
    pub(crate) source: Source,
    /// How.
    pub(crate) options: Options,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A detached copy of a mount of the host.
    Tree {
        /// The copy, with its attributes set.
        tree: OwnedFd,
        /// It is a directory, and needs one to be attached to.
        directory: bool,
    },
    /// A new file system of that type.
    New {
        /// The type: `proc`, `tmpfs`…
        kind: String,
        /// The source, as it is shown in mountinfo; a device for those that have one.
        source: Option<String>,
    },
    /// The container's view of the control groups.
    Cgroup,
}

/// Gets the spec's mounts ready.
pub(crate) fn prepare(mounts: &[oci::Mount], bundle: &Path) -> Result<Vec<Prepared>> {
    mounts.iter().map(|mount| prepare_one(mount, bundle)).collect()
}

fn prepare_one(mount: &oci::Mount, bundle: &Path) -> Result<Prepared> {
    let destination = clean(&mount.destination);
    let name = destination.display().to_string();
    let options = Options::parse(&mount.options)?;
    if !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty() {
        return Err(Error::unsupported(
            format!("The id mapping of the mount on {name}"),
            "remove its uidMappings and gidMappings",
        ));
    }
    let source = match (options.bind, mount.typ.as_str()) {
        (Some(recursive), _) => bind_source(mount, bundle, recursive, &options)?,
        (None, "bind") => bind_source(mount, bundle, true, &options)?,
        (None, "cgroup" | "cgroup2") => Source::Cgroup,
        (None, "none" | "") => {
            return Err(Error::invalid(format!("mounts[{name}].type"), "it is missing"));
        }
        (None, kind) => Source::New {
            kind: kind.to_owned(),
            source: (!mount.source.as_os_str().is_empty()).then(|| mount.source.display().to_string()),
        },
    };
    Ok(Prepared {
        destination,
        source,
        options,
    })
}

fn bind_source(mount: &oci::Mount, bundle: &Path, recursive: bool, options: &Options) -> Result<Source> {
    if mount.source.as_os_str().is_empty() {
        let field = format!("mounts[{}].source", mount.destination.display());
        return Err(Error::invalid(field, "a bind mount needs it"));
    }
    options.check_bind(&mount.destination.display().to_string())?;
    let path = bundle.join(&mount.source);
    let doing = || format!("bind-mount {}", path.display());
    let tree = clone_tree(CWD, &path, recursive).doing(doing)?;
    let slave = Propagation {
        kind: libc::MS_SLAVE,
        recursive: true,
    };
    set_propagation(&tree, options.propagation.unwrap_or(slave)).doing(doing)?;
    set_attributes(&tree, &granting_nothing(options)).doing(doing)?;
    let directory = is_directory(&tree).doing(doing)?;
    Ok(Source::Tree { tree, directory })
}

/// "rw" and its like say what a bind mount need not restrict. They don't lift what its source is restricted to, as no
/// runtime lets them; only their recursive forms, which ask for a change by name, do.
fn granting_nothing(options: &Options) -> Options {
    Options {
        clear: options.clear & libc::MOUNT_ATTR__ATIME,
        ..options.clone()
    }
}

/// A detached copy of the mount at a path: with `recursive` of all below it, too.
pub(crate) fn clone_tree(directory: impl AsFd, path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(directory, path, flags)
}

/// The path made absolute, with `.` and `..` resolved by name.
fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_can_not_climb() {
        for (path, expected) in [
            ("/a/../../b", "/b"),
            ("a/./b", "/a/b"),
            ("/..", "/"),
            ("//a", "/a"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
