//! The control groups of an ordinary user's node: a part of cgroup v2's hierarchy that was given to the user.
//!
//! It is the user's own group where that was delegated, or else a scope that the user's systemd makes. The keeper has it as
//! the root of its cgroup namespace, so that the node sees no other group, and all of berth works in it as on a machine.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use berth_cri::cgroups::OUTSIDE_PODS;
use berth_cri::cgroups::systemd::Scope;
use nix::unistd::Pid;
use rustix::fs::{Access, access};
use rustix::process::geteuid;

use super::way_out;

/// Where cgroup v2 is mounted, on machines that have it alone.
pub(super) const ROOT: &str = "/sys/fs/cgroup";
/// What is beside the node's group in one that was delegated: a group that passes controllers on has no processes itself.
pub(super) const CALLERS: &str = "berth-callers";
/// Controllers that are of use to pods.
const CONTROLLERS: [&str; 6] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb"];
/// The slice of the user's systemd that programs are in.
const SLICE: &str = "app.slice";
/// How often processes are looked for that began while others were moved.
const ROUNDS: usize = 100;
/// statfs(2)'s type.
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// Why there are none.
pub(super) const ONLY_V1: &str = "this machine has cgroup v1, parts of which can't be given to a user";

/// What a node has of control groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Groups {
    /// A group in the unified hierarchy.
    Given {
        /// Below the root of the hierarchy, with a slash before it.
        path: String,
        /// The scope that it is, of the user's systemd.
        unit: Option<String>,
    },
    /// None, and why.
    None(String),
}

impl Groups {
    pub(super) fn line(&self) -> String {
        match self {
            Self::Given { path, unit } => format!("given {} {path}", unit.as_deref().unwrap_or("-")),
            Self::None(why) => format!("none {why}"),
        }
    }

    pub(super) fn parse(line: &str) -> Self {
        let given = line.strip_prefix("given ").and_then(|rest| rest.split_once(' '));
        match given {
            Some((unit, path)) => Self::Given {
                path: path.to_owned(),
                unit: (unit != "-").then(|| unit.to_owned()),
            },
            None => Self::None(line.strip_prefix("none ").unwrap_or(line).to_owned()),
        }
    }

    /// Finds a group for a node at `run`, and puts its keeper there.
    pub(super) fn give(keeper: u32, run: &Path) -> Self {
        if !is_there() {
            return Self::None(
                "this machine has cgroup v1, parts of which can't be given to a user".to_owned(),
            );
        }
        let in_own = own().map(|own| take(&own, keeper, run));
        if let Some(Ok(path)) = in_own {
            return Self::Given { path, unit: None };
        }
        match scope_of(keeper) {
            Ok((unit, path)) => Self::Given {
                path,
                unit: Some(unit),
            },
            Err(why) => Self::None(match in_own {
                Some(Err(error)) => format!("the group that was given to you can't be used: {error}"),
                _ => format!("no group was given to you, and your systemd gives none: {why}"),
            }),
        }
    }

    /// Moves this process to where the node's own processes are, so that what it starts can go into pods' groups.
    ///
    /// # Errors
    /// A sentence: it may not go there from where it is.
    pub(super) fn enter(&self) -> Result<(), String> {
        let Self::Given { path, unit } = self else {
            return Ok(());
        };
        let place = below_root(path).join(OUTSIDE_PODS);
        let Err(error) = fs::write(place.join("cgroup.procs"), "0") else {
            return Ok(());
        };
        let refused = |why: &dyn std::fmt::Display| {
            format!(
                "The control group {path} of your node can't be entered from here ({why}). Type the command where your first one \
                 was typed, or stop all of your pods first."
            )
        };
        let Some(unit) = unit else {
            return Err(refused(&error));
        };
        let pid = Pid::this();
        scope(unit)
            .attach_below(&format!("/{OUTSIDE_PODS}"), pid)
            .map_err(|error| refused(&error.to_string().trim_end_matches('.')))
    }
}

/// Whether the machine has cgroup v2, and nothing else.
pub(super) fn is_there() -> bool {
    rustix::fs::statfs(ROOT).is_ok_and(|found| found.f_type == CGROUP2_MAGIC)
}

/// A directory of the hierarchy.
pub(super) fn below_root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path.trim_start_matches('/'))
}

/// The group of this process in the unified hierarchy.
fn current() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .map(str::to_owned)
}

/// This process's group, if it is the top of what was given to the user: whoever gives it makes the group the user's, and
/// not the one above; in what systemd makes for a user, where all is the user's, there is a mark.
fn own() -> Option<String> {
    let current = current()?;
    let path = current
        .strip_suffix(&format!("/{CALLERS}"))
        .unwrap_or(&current)
        .to_owned();
    let directory = below_root(&path);
    let is_users = |path: &Path| fs::metadata(path).is_ok_and(|found| found.uid() == geteuid().as_raw());
    let writable = ["", "cgroup.procs", "cgroup.subtree_control"]
        .iter()
        .all(|file| access(directory.join(file), Access::WRITE_OK).is_ok());
    let is_top = directory == Path::new(ROOT) || directory.parent().is_some_and(|above| !is_users(above));
    (is_users(&directory) && writable && (is_top || is_marked(&directory))).then_some(path)
}

/// systemd 251 and newer mark what has `Delegate=`.
fn is_marked(directory: &Path) -> bool {
    let mut value = [0; 8];
    let read = rustix::fs::getxattr(directory, "user.delegate", &mut value);
    read.is_ok_and(|count| value.get(..count) == Some(b"1"))
}

/// Makes the node's group in one that was given to the user, with all of its controllers. Returns its path.
fn take(own: &str, keeper: u32, run: &Path) -> io::Result<String> {
    let directory = below_root(own);
    let path = format!("{}/{}", own.trim_end_matches('/'), name(run));
    let (node, callers) = (below_root(&path), directory.join(CALLERS));
    // What a killed keeper left: a group that passes controllers on takes no process.
    way_out::remove(&node, || fs::remove_dir(&node))?;
    for made in [&node, &callers] {
        match fs::create_dir(made) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    fs::write(node.join("cgroup.procs"), keeper.to_string())?;
    move_all(&directory, &callers)?;
    let available = fs::read_to_string(directory.join("cgroup.controllers"))?;
    for name in CONTROLLERS {
        if available.split_whitespace().any(|known| known == name) {
            // What is refused is missing, and limits that need it are refused by name.
            let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{name}"));
        }
    }
    Ok(path)
}

/// The same for each node, so that what a killed one left is found.
fn name(run: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    run.hash(&mut hasher);
    format!("berth-{:016x}", hasher.finish())
}

fn move_all(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..ROUNDS {
        let listed = fs::read_to_string(from.join("cgroup.procs"))?;
        if listed.is_empty() {
            return Ok(());
        }
        for pid in listed.lines() {
            match fs::write(to.join("cgroup.procs"), pid) {
                // It has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => {}
                moved => moved?,
            }
        }
    }
    Err(io::Error::other(
        "processes begin in it faster than they can be moved",
    ))
}

fn scope(unit: &str) -> Scope {
    Scope {
        unit: unit.to_owned(),
        slice: SLICE.to_owned(),
        user: true,
    }
}

/// Asks the user's systemd for a scope. Returns its name and its group.
fn scope_of(keeper: u32) -> Result<(String, String), String> {
    let unit = format!("berth-{keeper}.scope");
    let scope = scope(&unit);
    let made = scope
        .start_with(Pid::from_raw(keeper.cast_signed()), "Pods of berth")
        .and_then(|()| scope.cgroup_path());
    let path = made.map_err(|error| error.to_string().trim_end_matches('.').to_owned())?;
    Ok((unit, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood() {
        for groups in [
            Groups::None("this machine has cgroup v1".to_owned()),
            Groups::Given {
                path: "/a b/c".to_owned(),
                unit: None,
            },
            Groups::Given {
                path: "/user.slice/x.scope".to_owned(),
                unit: Some("x.scope".to_owned()),
            },
        ] {
            assert_eq!(Groups::parse(&groups.line()), groups);
        }
    }

    #[test]
    fn a_node_finds_its_group_again() {
        assert_eq!(name(Path::new("/run/a")), name(Path::new("/run/a")));
        assert_ne!(name(Path::new("/run/a")), name(Path::new("/run/b")));
    }
}
