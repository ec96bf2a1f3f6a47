//! What the kernel holds for a node, to be compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cgroup::cgroup_directories;
use crate::process::processes;

/// Devices of the host that containers see a node of: runtimes have been seen to change the host's own.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/console",
    "/dev/ptmx",
];

/// Everything that a test could leave behind, one line a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kernel(BTreeSet<String>);

impl Kernel {
    /// Looks at the calling thread's namespaces, at the machine, and at the node's `root` and `cgroup`.
    ///
    /// `marker` is the word by which the node's processes and mounts are known.
    pub fn look(marker: &str, root: &Path, cgroup: &Path) -> Self {
        let mut things = BTreeSet::new();
        let temporary = format!("{}/", std::env::temp_dir().display());
        // A test beside this one may have had a mount when the namespace was copied, which goes with its directory.
        let others = |mount: &String| mount.starts_with(&temporary) && !mount.contains(marker);
        let mine = mounts("/proc/thread-self/mountinfo").filter(|mount| !others(mount));
        things.extend(mine.map(|mount| format!("mount {mount}")));
        let host = mounts("/proc/1/mountinfo").filter(|mount| mount.contains(marker));
        things.extend(host.map(|mount| format!("mount of the host {mount}")));
        for what in ["link", "address", "route", "rule", "netns"] {
            things.extend(listing("ip", &["-o", what, "show"]).map(|line| format!("{what} {line}")));
        }
        things.extend(listing("nft", &["list", "ruleset"]).map(|line| format!("nft {line}")));
        things.extend(
            cgroup_directories(cgroup)
                .into_iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        for process in processes(marker, cgroup) {
            let (pid, command, because) = (process.pid, process.command, process.because);
            things.insert(format!(
                "process {pid} {command} ({because}; state {})",
                process.state
            ));
        }
        things.extend(unix_sockets(marker).map(|path| format!("unix socket {path}")));
        things.extend(DEVICES.iter().map(|path| device(path)));
        things.extend(
            files(root)
                .into_iter()
                .map(|path| format!("file {}", path.display())),
        );
        Self(things)
    }

    /// What is here and was not there `before` (`+`), and the other way round (`-`), without what `allowed` says.
    pub fn difference(&self, before: &Self, allowed: impl Fn(&str) -> bool) -> Vec<String> {
        let more = self.0.difference(&before.0).map(|thing| format!("+ {thing}"));
        let less = before.0.difference(&self.0).map(|thing| format!("- {thing}"));
        more.chain(less).filter(|line| !allowed(&line[2..])).collect()
    }
}

/// `POINT TYPE SOURCE` of each mount: ids and options may differ.
fn mounts(table: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let lines: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut left = left.split(' ').skip(3);
            let (inner, point) = (left.next()?, left.next()?);
            let mut right = right.split(' ');
            Some(format!(
                "{point} ({} of {}, {inner})",
                right.next()?,
                right.next()?
            ))
        })
        .collect();
    lines.into_iter()
}

/// The lines of a command that lists; counters that change by themselves left out.
fn listing(command: &str, arguments: &[&str]) -> impl Iterator<Item = String> {
    let output = Command::new(command).args(arguments).output();
    let output =
        output.unwrap_or_else(|error| panic!("{command}: {error}; hack/setup installs what tests need"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|line| !line.is_empty())
        .collect();
    lines.into_iter()
}

/// The paths of unix sockets that name the node.
fn unix_sockets(marker: &str) -> impl Iterator<Item = String> {
    let text = fs::read_to_string("/proc/thread-self/net/unix").unwrap_or_default();
    let paths: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_whitespace().nth(7))
        .filter(|path| path.contains(marker))
        .map(str::to_owned)
        .collect();
    paths.into_iter()
}

fn device(path: &str) -> String {
    match fs::symlink_metadata(path) {
        Ok(found) => format!(
            "device {path} mode {:o} owner {}:{} number {:x} links {}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.rdev(),
            found.nlink()
        ),
        Err(error) => format!("device {path} {error}"),
    }
}

/// Files (not directories) below the root, relative to it.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                _ => found.push(
                    entry
                        .path()
                        .strip_prefix(root)
                        .unwrap_or(&entry.path())
                        .to_owned(),
                ),
            }
        }
    }
    found
}
