//! Processes, as `/proc` shows them.

use std::fs;
use std::path::Path;

/// A process that belongs to a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its pid, as the host numbers it.
    pub pid: i32,
    /// Its command line, or its name in brackets.
    pub command: String,
    /// One letter of proc_pid_stat(5): `Z` is a zombie.
    pub state: char,
    /// Why it is said to belong to the node.
    pub because: &'static str,
}

/// The node's processes, those that `own` says are the test's left out: by cgroup, by a word of the command line or the
/// environment, or by a namespace shared with the calling thread.
pub fn processes(marker: &str, cgroup: &Path) -> Vec<Process> {
    let own = std::process::id();
    let spaces = namespaces("thread-self");
    let cgroup = cgroup.to_string_lossy();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("/proc can be listed").flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        if pid == own {
            continue;
        }
        let text = |name: &str| {
            fs::read(entry.path().join(name)).map_or_else(
                |_| String::new(),
                |bytes| String::from_utf8_lossy(&bytes).replace('\0', " "),
            )
        };
        let command = text("cmdline");
        let because = if text("cgroup").lines().any(|line| in_cgroup(line, &cgroup)) {
            "it is in the node's cgroup"
        } else if command.contains(marker) {
            "its command line names the node"
        } else if text("environ").contains(marker) {
            "its environment names the node"
        } else if namespaces(&pid.to_string())
            .iter()
            .any(|space| spaces.contains(space))
        {
            "it is in a namespace of the node"
        } else {
            continue;
        };
        let stat = text("stat");
        let (head, tail) = stat.rsplit_once(") ").unwrap_or((&stat, "?"));
        let name = head.split_once('(').map_or("?", |(_, name)| name);
        let command = if command.is_empty() {
            format!("[{name}]")
        } else {
            command.trim().to_owned()
        };
        let state = tail.chars().next().unwrap_or('?');
        found.push(Process {
            pid: pid.cast_signed(),
            command,
            state,
            because,
        });
    }
    found.sort();
    found
}

/// Whether a line of proc_pid_cgroup(5), `ID:CONTROLLERS:PATH`, is the cgroup or one below it.
fn in_cgroup(line: &str, cgroup: &str) -> bool {
    let path = line.splitn(3, ':').nth(2).unwrap_or("");
    path.strip_prefix(cgroup)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The inodes of the namespaces that a node makes for itself.
fn namespaces(process: &str) -> Vec<String> {
    ["net", "uts", "ipc", "mnt"]
        .iter()
        .filter_map(|kind| fs::read_link(format!("/proc/{process}/ns/{kind}")).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_holds_itself_and_what_is_below() {
        assert!(in_cgroup("4:memory:/t-1", "/t-1"));
        assert!(in_cgroup("4:memory:/t-1/kubepods/pod1", "/t-1"));
        assert!(!in_cgroup("4:memory:/t-10", "/t-1"));
        assert!(!in_cgroup("0::/", "/t-1"));
    }
}
