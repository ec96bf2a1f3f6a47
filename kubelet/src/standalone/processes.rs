//! `berth top`: the processes of a pod's containers, as `/proc` shows them.

use std::path::{Path, PathBuf};

use super::control::ContainerSummary;

/// A process of a container.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// The container.
    pub container: String,
    /// Its user, as the host numbers it.
    pub uid: u32,
    /// Its number on the host.
    pub pid: i32,
    /// Its parent's.
    pub ppid: i32,
    /// One letter of proc_pid_stat(5).
    pub state: char,
    /// Bytes of memory that are its.
    pub resident: u64,
    /// Hundredths of a second of processor time.
    pub cpu: u64,
    /// Its command line, or its name in brackets.
    pub command: String,
}

/// By what a container's processes are known.
enum Sign {
    /// The control group that they are in, or below.
    Group(String),
    /// Where there are no control groups, the container's PID namespace.
    Namespace(PathBuf),
}

impl Sign {
    fn of(process: &str, id: &str) -> Option<Self> {
        let namespace = || std::fs::read_link(format!("{process}/ns/pid")).ok();
        let own = std::fs::read_link("/proc/self/ns/pid").ok();
        match group_of(process, id) {
            Some(group) => Some(Self::Group(group)),
            None => namespace()
                .filter(|found| Some(found) != own.as_ref())
                .map(Self::Namespace),
        }
    }

    fn is_on(&self, process: &str) -> bool {
        match self {
            Self::Group(group) => {
                let own = std::fs::read_to_string(format!("{process}/cgroup")).unwrap_or_default();
                own.lines().any(|line| is_in(line, group))
            }
            Self::Namespace(namespace) => {
                std::fs::read_link(format!("{process}/ns/pid")).is_ok_and(|own| own == *namespace)
            }
        }
    }
}

/// The processes of these containers: those in the control group of the container's first process or below it.
pub fn processes(containers: &[ContainerSummary]) -> Vec<Process> {
    let mut signs = Vec::new();
    for container in containers.iter().filter(|container| container.pid > 0) {
        if let Some(sign) = Sign::of(&format!("/proc/{}", container.pid), &container.id) {
            signs.push((sign, container.name.clone()));
        }
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let path = entry.path();
        let path = path.to_string_lossy();
        let its = signs.iter().find(|(sign, _)| sign.is_on(&path));
        // One that has ended meanwhile is left out.
        if let Some(process) = its.and_then(|(_, container)| read(Path::new(&*path), pid, container)) {
            found.push(process);
        }
    }
    found.sort_by(|a, b| (&a.container, a.pid).cmp(&(&b.container, b.pid)));
    found
}

/// The group of a process whose path has the container's id in it.
fn group_of(process: &str, id: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("{process}/cgroup")).ok()?;
    let mut paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let path = paths.find(|path| path.contains(id))?;
    // Up to the container's own group: the first process may be in one below.
    let end = path.find(id)?
        + path[path.find(id)?..]
            .find('/')
            .unwrap_or(path.len() - path.find(id)?);
    Some(path[..end].to_owned())
}

fn is_in(line: &str, group: &str) -> bool {
    let path = line.splitn(3, ':').nth(2).unwrap_or_default();
    path.strip_prefix(group)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn read(path: &Path, pid: i32, container: &str) -> Option<Process> {
    let stat = std::fs::read_to_string(path.join("stat")).ok()?;
    let status = std::fs::read_to_string(path.join("status")).ok()?;
    let command = std::fs::read(path.join("cmdline")).ok()?;
    // The name is in parentheses and may hold any of them.
    let (head, tail) = stat.rsplit_once(") ")?;
    let name = head.split_once('(')?.1;
    let fields: Vec<&str> = tail.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let status_field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let words: Vec<_> = command
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty())
        .map(String::from_utf8_lossy)
        .collect();
    Some(Process {
        container: container.to_owned(),
        uid: u32::try_from(status_field("Uid:")?).ok()?,
        pid,
        ppid: fields.get(1)?.parse().ok()?,
        state: fields.first()?.chars().next()?,
        resident: status_field("VmRSS:").unwrap_or(0) * 1024,
        // utime and stime: fields 14 and 15, in ticks of a hundredth of a second on all of Linux's machines.
        cpu: number(11)? + number(12)?,
        command: if words.is_empty() {
            format!("[{name}]")
        } else {
            words.join(" ")
        },
    })
}
