//! The pods' cgroups and the groups above them.
//!
//! A pod's group is made before its sandbox and removed after it. Groups above it (`kubepods`, `kubepods/burstable`)
//! that were missing are made on the way; a list on disk, written before they are made, says which ones are ours, and
//! they go with the last pod. Groups that somebody else made, a kubelet for example, are never removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use berth_cri::LinuxContainerResources;
use berth_cri::cgroups::{Cgroup, CgroupError, Controller, Hierarchies};
use serde_json::{Map, Value, json};

use super::cgroup_list::{Change, List, Locked};
use super::cgroup_list_before;
use crate::plan::PodCgroup;
use crate::qos;

/// Why a pod's cgroup can't be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum PodCgroupError {
    /// The kernel refused.
    #[error("{0}")]
    Cgroup(#[from] CgroupError),
    /// The path of a cgroup is not text.
    #[error("the cgroup path {} is not UTF-8", .0.display())]
    Path(PathBuf),
    /// The list of groups that are ours can't be kept.
    #[error("can't keep the list of cgroups: {0}")]
    List(#[from] io::Error),
    /// The limits can't be expressed.
    #[error("the cgroup limits are not valid: {0}")]
    Resources(#[from] serde_json::Error),
}

/// Makes and removes pods' cgroups.
pub trait PodCgroups: Send + Sync + 'static {
    /// Makes the group if it is not there, and sets its limits.
    fn ensure(&self, cgroup: &PodCgroup) -> Result<(), PodCgroupError>;
    /// Kills what is in the group and removes it. Idempotent.
    fn remove(&self, path: &Path) -> Result<(), PodCgroupError>;
    /// Whether the group is there.
    fn exists(&self, path: &Path) -> bool;
    /// Bytes of memory that are in use in the group, its page cache among them; `None` if nobody counts.
    fn memory_usage(&self, path: &Path) -> Option<u64>;
}

/// What an ordinary user has of cgroups: none.
#[derive(Clone, Copy, Debug)]
pub struct NoCgroups;

impl PodCgroups for NoCgroups {
    fn ensure(&self, _: &PodCgroup) -> Result<(), PodCgroupError> {
        Ok(())
    }

    fn remove(&self, _: &Path) -> Result<(), PodCgroupError> {
        Ok(())
    }

    fn exists(&self, _: &Path) -> bool {
        false
    }

    fn memory_usage(&self, _: &Path) -> Option<u64> {
        None
    }
}

/// The machine's cgroups.
#[derive(Clone, Debug)]
pub struct HostCgroups {
    directory: PathBuf,
    list: List,
}

impl HostCgroups {
    /// The list of groups that are ours is kept in `kubelet_root`.
    pub fn new(kubelet_root: &Path) -> Self {
        HostCgroups {
            directory: kubelet_root.to_owned(),
            list: List::new(kubelet_root),
        }
    }
}

impl PodCgroups for HostCgroups {
    fn ensure(&self, cgroup: &PodCgroup) -> Result<(), PodCgroupError> {
        let path = text(&cgroup.path)?;
        let mut list = self.list()?;
        let mut changes = Vec::new();
        for parent in parents(&cgroup.path) {
            if Cgroup::open(text(parent)?)?.is_none() {
                changes.push(Change::Ours(parent.to_owned()));
            }
        }
        changes.push(Change::Requests(cgroup.path.clone(), cgroup.milli_cpu));
        list.note(changes)?;
        let group = Cgroup::create(path)?;
        set_tier_shares(&list, &cgroup.path)?;
        Ok(group.apply(&serde_json::from_value(oci_resources(&cgroup.resources))?)?)
    }

    fn remove(&self, path: &Path) -> Result<(), PodCgroupError> {
        if let Some(group) = Cgroup::open(text(path)?)? {
            group.kill_all()?;
            group.delete()?;
        }
        // Other runtimes also make it in hierarchies without a controller (`name=systemd`).
        remove_empty(path)?;
        self.forget(path)
    }

    fn exists(&self, path: &Path) -> bool {
        text(path).is_ok_and(|path| matches!(Cgroup::open(path), Ok(Some(_))))
    }

    fn memory_usage(&self, path: &Path) -> Option<u64> {
        let roots = hierarchy_roots().ok()?;
        roots.iter().find_map(|root| {
            let read = |file: &str| std::fs::read_to_string(root.join(path).join(file)).ok();
            let text = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
            text.trim().parse().ok()
        })
    }
}

impl HostCgroups {
    /// Removes a group with those above it that are ours, unless there is a process in it.
    ///
    /// # Errors
    /// The kernel refuses, or the list of groups can't be written.
    pub fn remove_unused(&self, path: &Path) -> Result<(), PodCgroupError> {
        match Cgroup::open(text(path)?)? {
            Some(group) if !group.remove_if_empty() => Ok(()),
            _ => self.forget(path),
        }
    }

    /// The list, with what an earlier berth listed elsewhere.
    fn list(&self) -> io::Result<Locked<'_>> {
        let mut list = self.list.lock()?;
        cgroup_list_before::take_over(&self.directory, &mut list, |group| self.exists(group))?;
        Ok(list)
    }

    /// Removes what is empty above a group that is gone.
    fn forget(&self, path: &Path) -> Result<(), PodCgroupError> {
        let mut list = self.list()?;
        let mut changes = Vec::new();
        for parent in parents(path) {
            if !list.is_ours(parent) || !remove_empty(parent)? {
                break;
            }
            changes.push(Change::NotOurs(parent.to_owned()));
        }
        changes.push(Change::Gone(path.to_owned()));
        list.note(changes)?;
        set_tier_shares(&list, path)
    }
}

/// Gives the tiers above a pod their share of the CPU, where they are ours.
fn set_tier_shares(list: &Locked<'_>, pod: &Path) -> Result<(), PodCgroupError> {
    // An ordinary user may have been given groups without it.
    if !Hierarchies::get()?.supports(Controller::Cpu) {
        return Ok(());
    }
    for tier in parents(pod).filter(|tier| list.is_ours(tier)) {
        let shares = qos::tier_shares(tier, list.requested_in(tier));
        let (Some(shares), Some(group)) = (shares, Cgroup::open(text(tier)?)?) else {
            continue;
        };
        let resources = LinuxContainerResources {
            cpu_shares: Some(shares),
            ..LinuxContainerResources::default()
        };
        group.apply(&serde_json::from_value(oci_resources(&resources))?)?;
    }
    Ok(())
}

fn text(path: &Path) -> Result<&str, PodCgroupError> {
    path.to_str().ok_or_else(|| PodCgroupError::Path(path.to_owned()))
}

/// The groups above one, the nearest first, without the root.
pub(super) fn parents(path: &Path) -> impl Iterator<Item = &Path> {
    path.ancestors()
        .skip(1)
        .filter(|parent| !parent.as_os_str().is_empty() && *parent != Path::new("/"))
}

/// Removes a group from each hierarchy unless another group or a process is in it. Returns whether it is gone.
fn remove_empty(group: &Path) -> io::Result<bool> {
    let mut gone = true;
    for root in hierarchy_roots()? {
        match std::fs::remove_dir(root.join(group)) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => gone = false,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(gone)
}

/// Where the cgroup hierarchies are mounted. Looked up once: the kernel writes a line for each mount of the host, and each pod has some.
pub(crate) fn hierarchy_roots() -> io::Result<&'static [PathBuf]> {
    static ROOTS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    if let Some(known) = ROOTS.get() {
        return Ok(known);
    }
    let found = find_hierarchy_roots()?;
    Ok(ROOTS.get_or_init(|| found))
}

/// See proc_pid_mountinfo(5), field 5 and the first after the dash.
fn find_hierarchy_roots() -> io::Result<Vec<PathBuf>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let root = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let kind = kind.split(' ').next()?;
        matches!(kind, "cgroup" | "cgroup2").then(|| mount.split(' ').nth(4).map(PathBuf::from))?
    };
    Ok(table.lines().filter_map(root).collect())
}

/// The OCI `linux.resources` object of a pod's limits.
fn oci_resources(resources: &LinuxContainerResources) -> Value {
    let mut cpu = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            cpu.insert(name.to_owned(), value);
        }
    };
    put("shares", resources.cpu_shares.map(Value::from));
    put("quota", resources.cpu_quota.map(Value::from));
    put("period", resources.cpu_period.map(Value::from));
    let mut oci = json!({ "cpu": cpu });
    if let Some(limit) = resources.memory_limit {
        oci["memory"] = json!({ "limit": limit });
    }
    if let Some(limit) = resources.pids_limit {
        oci["pids"] = json!({ "limit": limit });
    }
    if !resources.hugepage_limits.is_empty() {
        let limits = resources.hugepage_limits.iter();
        let limits = limits.map(|(size, bytes)| json!({ "pageSize": size, "limit": bytes }));
        oci["hugepageLimits"] = limits.collect();
    }
    if !resources.unified.is_empty() {
        oci["unified"] = json!(resources.unified);
    }
    oci
}
