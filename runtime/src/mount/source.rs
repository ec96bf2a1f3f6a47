//! What the creator prepares of a mount: its options, and for a bind mount a detached copy of its source.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::attach::{set_attributes, set_propagation};
use super::elsewhere::{Elsewhere, copy_trees};
use super::id_mapped::IdMaps;
use super::options::{Options, Propagation};
use super::proc::{check_destination, is_proc};
use super::queues::QUEUES;
use super::target::is_directory;
use crate::error::Doing;
use crate::namespaces::Namespaces;
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
    /// A copy of what the container has at a path once the mounts before this one are attached.
    Inside {
        /// The path in the container: absolute, without `..`.
        path: PathBuf,
        /// With all that is mounted below it.
        recursive: bool,
        /// The whole container hears of no mounts of others.
        private: bool,
    },
    /// A new file system of that type.
    New {
        /// The type: `proc`, `tmpfs`…
        kind: String,
        /// The source, as it is shown in mountinfo; a device for those that have one.
        source: Option<String>,
        /// The SELinux label that its root gets once it is mounted; empty leaves it as it is.
        label: String,
    },
    /// The container's view of the control groups.
    Cgroup,
    /// The mount that is there already.
    Remount,
}

/// What mounts are made from, besides their own fields.
#[derive(Debug)]
pub(crate) struct Origin<'a> {
    /// Where relative sources begin.
    pub(crate) bundle: &'a Path,
    /// The directory of the container's root, relative to the bundle, if it is one that has a name.
    pub(crate) root: Option<&'a Path>,
    /// The container's namespaces.
    pub(crate) namespaces: &'a Namespaces,
    /// The SELinux label for files, or nothing.
    pub(crate) label: &'a str,
    /// The root's propagation.
    pub(crate) propagation: Option<Propagation>,
    /// Where sources are that the creator's mount namespace does not have.
    pub(crate) elsewhere: Option<Elsewhere<'a>>,
}

/// Gets the spec's mounts ready.
pub(crate) fn prepare(mounts: &[oci::Mount], origin: &Origin<'_>) -> Result<Vec<Prepared>> {
    let mut maps = IdMaps::new(origin.namespaces);
    let mut trees = copy_trees(mounts, origin)?.into_iter();
    let prepare = |(i, mount)| prepare_one(mount, &mounts[..i], trees.next().flatten(), origin, &mut maps);
    mounts.iter().enumerate().map(prepare).collect()
}

fn prepare_one(
    mount: &oci::Mount,
    before: &[oci::Mount],
    tree: Option<OwnedFd>,
    origin: &Origin<'_>,
    maps: &mut IdMaps<'_>,
) -> Result<Prepared> {
    let destination = clean_path(&mount.destination);
    let name = destination.display().to_string();
    let mut options = Options::parse(&mount.options)?;
    let source = match (options.bind, mount.typ.as_str()) {
        _ if options.remount => Source::Remount,
        (Some(recursive), _) => bind_source(mount, (before, tree), origin, recursive, &options)?,
        (None, "bind") => bind_source(mount, (before, tree), origin, false, &options)?,
        (None, "cgroup" | "cgroup2") => Source::Cgroup,
        (None, "none" | "") => {
            return Err(Error::invalid(format!("mounts[{name}].type"), "it is missing"));
        }
        (None, kind) => {
            options.data.extend(context(kind, origin.label));
            let label = match kind {
                QUEUES if origin.namespaces.has_ipc() => origin.label,
                _ => "",
            };
            Source::New {
                kind: kind.to_owned(),
                source: (!mount.source.as_os_str().is_empty()).then(|| mount.source.display().to_string()),
                label: label.to_owned(),
            }
        }
    };
    check(mount, &destination, &source, &options)?;
    if let Source::Tree { tree, .. } = &source {
        maps.apply(tree, mount, &options)?;
    }
    Ok(Prepared {
        destination,
        source,
        options,
    })
}

/// Refuses what can't be where it is asked for, or has no meaning there.
fn check(mount: &oci::Mount, destination: &Path, source: &Source, options: &Options) -> Result<()> {
    let name = destination.display();
    let is_proc = match source {
        Source::Remount => true,
        Source::New { kind, .. } => kind == "proc",
        Source::Tree { tree, .. } => is_proc(tree),
        Source::Inside { .. } | Source::Cgroup => false,
    };
    let is_remount = matches!(source, Source::Remount);
    if !is_remount {
        check_destination(destination, is_proc)?;
    }
    if destination == Path::new("/") && !is_remount {
        let reason = "it would hide the root file system; name that in root.path";
        return Err(Error::invalid("mounts[/].destination", reason));
    }
    let mapped = options.idmap.is_some() || !mount.uid_mappings.is_empty() || !mount.gid_mappings.is_empty();
    if mapped && !matches!(source, Source::Tree { .. }) {
        let reason = match source {
            Source::Inside { .. } => "its source is inside the container, on or above another mount",
            _ => "only bind mounts can be id-mapped",
        };
        return Err(Error::unsupported(
            format!("The id mapping of the mount on {name}"),
            reason,
        ));
    }
    let is_tmpfs = matches!(source, Source::New { kind, .. } if kind == "tmpfs");
    if options.copy_up && !is_tmpfs {
        let reason = "\"tmpcopyup\" is for a tmpfs only";
        return Err(Error::invalid(format!("mounts[{name}].options"), reason));
    }
    Ok(())
}

/// The parameter that labels a file system's files for SELinux, where the kernel takes one.
fn context(kind: &str, label: &str) -> Option<String> {
    let labelled = !matches!(kind, "proc" | "sysfs") && kind != QUEUES && !label.is_empty();
    labelled.then(|| format!("context={label}"))
}

fn bind_source(
    mount: &oci::Mount,
    (before, tree): (&[oci::Mount], Option<OwnedFd>),
    origin: &Origin<'_>,
    recursive: bool,
    options: &Options,
) -> Result<Source> {
    if mount.source.as_os_str().is_empty() {
        let field = format!("mounts[{}].source", mount.destination.display());
        return Err(Error::invalid(field, "a bind mount needs it"));
    }
    options.check_bind(&mount.destination.display().to_string())?;
    let private = origin
        .propagation
        .is_some_and(|root| root.kind == libc::MS_PRIVATE);
    let path = origin.bundle.join(&mount.source);
    if let Some(path) = inside(&path, before, origin) {
        return Ok(Source::Inside {
            path,
            recursive,
            private,
        });
    }
    let doing = || format!("bind-mount {}", path.display());
    let tree = match tree {
        Some(tree) => tree,
        None => clone_tree(CWD, &path, recursive).doing(doing)?,
    };
    settle(&tree, options, private).doing(doing)?;
    let directory = is_directory(&tree).doing(doing)?;
    Ok(Source::Tree { tree, directory })
}

/// The path in the container of a source in the container's root that an earlier mount covers, or is made below: on the
/// host there is something else, or nothing.
pub(super) fn inside(source: &Path, before: &[oci::Mount], origin: &Origin<'_>) -> Option<PathBuf> {
    let root = clean_path(&origin.bundle.join(origin.root?));
    let source = clean_path(source);
    let path = Path::new("/").join(source.strip_prefix(&root).ok()?);
    let touches = |mount: &oci::Mount| {
        let destination = clean_path(&mount.destination);
        path.starts_with(&destination) || destination.starts_with(&path)
    };
    before.iter().any(touches).then_some(path)
}

/// Sets the attributes and the propagation of a bind mount.
pub(super) fn settle(tree: &OwnedFd, options: &Options, private: bool) -> rustix::io::Result<()> {
    // Without options that say otherwise it hears of the host's mounts, unless the whole container does not; above all
    // what is mounted below the source must not stay shared with the host when only the mount itself is spoken of.
    let usual = Propagation {
        kind: if private { libc::MS_PRIVATE } else { libc::MS_SLAVE },
        recursive: true,
    };
    let says_all = |wanted: &Propagation| wanted.recursive || wanted.kind == libc::MS_SHARED;
    let first = (!options.propagation.iter().any(says_all)).then_some(usual);
    for propagation in first.iter().chain(&options.propagation) {
        set_propagation(tree, *propagation)?;
    }
    set_attributes(tree, &granting_nothing(options))
}

/// "rw" and its like say what a bind mount need not restrict. They don't lift what its source is restricted to: callers
/// write them as a default. Only their recursive forms, which ask for a change by name, do.
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

/// A path of a container made absolute, with `.` and `..` resolved by name: it can not climb out.
pub fn clean_path(path: &Path) -> PathBuf {
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
    fn file_systems_with_files_of_their_own_get_a_label() {
        let label = "system_u:object_r:container_file_t:s0:c1,c2";
        let labelled = format!("context={label}");
        assert_eq!(context("tmpfs", label).as_deref(), Some(labelled.as_str()));
        assert_eq!(context("devpts", label).as_deref(), Some(labelled.as_str()));
        for (kind, label) in [
            ("proc", label),
            ("sysfs", label),
            ("mqueue", label),
            ("tmpfs", ""),
        ] {
            assert_eq!(context(kind, label), None, "{kind}");
        }
    }

    #[test]
    fn destinations_can_not_climb() {
        for (path, expected) in [
            ("/a/../../b", "/b"),
            ("a/./b", "/a/b"),
            ("/..", "/"),
            ("//a", "/a"),
            ("/dev/", "/dev"),
            ("dev/./shm", "/dev/shm"),
            ("/a/../b", "/b"),
        ] {
            assert_eq!(clean_path(Path::new(path)), Path::new(expected), "{path}");
        }
    }
}
