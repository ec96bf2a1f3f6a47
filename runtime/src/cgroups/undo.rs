//! Taking limits back that were set before another one was refused.

use crate::oci::LinuxResources;

use super::file::Directory;
use super::hierarchy::Kind;
use super::{Cgroup, Controller, Result};

/// What the control files held that [`Cgroup::update`] wrote to.
#[derive(Debug)]
pub struct Limits(Vec<Limit>);

/// One file's content.
#[derive(Debug)]
struct Limit {
    /// Index of the group's directory.
    directory: usize,
    file: String,
    content: String,
}

/// The files that resources are written to, of either version, except those that depend on what is asked for.
const FILES: &[(Controller, &[&str])] = &[
    (
        Controller::Memory,
        &[
            "memory.max",
            "memory.swap.max",
            "memory.low",
            "memory.limit_in_bytes",
            "memory.memsw.limit_in_bytes",
            "memory.soft_limit_in_bytes",
            "memory.swappiness",
            "memory.oom_control",
        ],
    ),
    (
        Controller::Cpu,
        &[
            "cpu.weight",
            "cpu.idle",
            "cpu.max",
            "cpu.max.burst",
            "cpu.shares",
            "cpu.cfs_period_us",
            "cpu.cfs_quota_us",
            "cpu.cfs_burst_us",
            "cpu.rt_period_us",
            "cpu.rt_runtime_us",
        ],
    ),
    (Controller::CpuSet, &["cpuset.cpus", "cpuset.mems"]),
    (Controller::Pids, &["pids.max"]),
    (
        Controller::BlockIo,
        &[
            "io.max",
            "io.weight",
            "io.bfq.weight",
            "blkio.weight",
            "blkio.weight_device",
            "blkio.bfq.weight",
            "blkio.bfq.weight_device",
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.read_iops_device",
            "blkio.throttle.write_iops_device",
        ],
    ),
    (Controller::NetCls, &["net_cls.classid"]),
    (Controller::NetPrio, &["net_prio.ifpriomap"]),
    (Controller::Rdma, &["rdma.max"]),
];

impl Cgroup {
    /// As [`Cgroup::apply`], but upon an error everything is as it was before. Returns that, for [`Cgroup::restore`].
    ///
    /// # Errors
    /// As [`Cgroup::apply`].
    pub fn update(&self, resources: &LinuxResources) -> Result<Limits> {
        let limits = self.limits(resources)?;
        self.apply(resources).inspect_err(|_| self.restore(&limits))?;
        Ok(limits)
    }

    /// What is set now of all that these resources may change.
    fn limits(&self, resources: &LinuxResources) -> Result<Limits> {
        let mut limits = Vec::new();
        let mut add = |directory: Option<usize>, file: &str| -> Result<()> {
            if let Some(directory) = directory
                && let Some(content) = read(&self.directories[directory], file)?
            {
                limits.push(Limit {
                    directory,
                    file: file.to_owned(),
                    content,
                });
            }
            Ok(())
        };
        let having = |controller: Controller| {
            let mut all = self.directories.iter();
            all.position(|d| d.hierarchy.controllers.contains(controller))
        };
        for (controller, files) in FILES {
            let directory = having(*controller);
            files.iter().try_for_each(|file| add(directory, file))?;
        }
        for limit in &resources.hugepage_limits {
            for kind in ["max", "rsvd.max", "limit_in_bytes", "rsvd.limit_in_bytes"] {
                let size = &limit.page_size;
                if !size.contains('/') {
                    add(having(Controller::HugeTlb), &format!("hugetlb.{size}.{kind}"))?;
                }
            }
        }
        let unified = self.directories.iter().position(|d| d.hierarchy.kind == Kind::V2);
        // The others are refused, or configure no resource.
        let known = |file: &str| {
            let prefix = file.split('.').next();
            !file.contains('/') && Controller::ALL.iter().any(|c| prefix == Some(c.v2_name()))
        };
        for file in resources.unified.keys().filter(|file| known(file)) {
            add(unified, file)?;
        }
        Ok(Limits(limits))
    }

    /// Sets again what has changed since. What the kernel refuses stays as it is.
    pub fn restore(&self, limits: &Limits) {
        // The kernel takes some limits in one order only, such as memory before memory and swap.
        for _ in 0..2 {
            for limit in &limits.0 {
                restore(&self.directories[limit.directory], limit);
            }
        }
    }
}

/// A cpuset that has processes can't be made empty again, which is to have the parent's: it is given what it had by that.
fn read(directory: &Directory, file: &str) -> Result<Option<String>> {
    let content = directory.read_if_present(file)?;
    if file.starts_with("cpuset.") && content.as_ref().is_some_and(|content| content.trim().is_empty()) {
        return directory.read_if_present(&format!("{file}.effective"));
    }
    Ok(content)
}

fn restore(directory: &Directory, limit: &Limit) {
    let Ok(Some(now)) = read(directory, &limit.file) else {
        return;
    };
    for line in changes(&limit.file, &limit.content, &now) {
        let _ = directory.write(&limit.file, &line);
    }
}

/// What has to be written to a file, in order, for it to hold what it held before.
fn changes(file: &str, before: &str, now: &str) -> Vec<String> {
    if before == now {
        return Vec::new();
    }
    if file == "memory.oom_control" {
        let disabled = |text: &str| text.lines().any(|line| line == "oom_kill_disable 1");
        let differs = disabled(before) != disabled(now);
        return differs
            .then(|| u8::from(disabled(before)).to_string())
            .into_iter()
            .collect();
    }
    let Some(unset) = unset(file) else {
        return vec![before.trim_end().to_owned()];
    };
    let key = |line: &str| line.split(' ').next().unwrap_or_default().to_owned();
    let known: Vec<String> = before.lines().map(key).collect();
    let added = now.lines().map(key).filter(|key| !known.contains(key));
    let taken_back = added.map(|key| format!("{key} {unset}"));
    let changed = before
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line));
    taken_back.chain(changed.map(str::to_owned)).collect()
}

/// How a file that has a line for each device takes a device's limit back.
fn unset(file: &str) -> Option<&'static str> {
    match file {
        "io.max" => Some("rbps=max wbps=max riops=max wiops=max"),
        "io.weight" | "io.bfq.weight" => Some("default"),
        "rdma.max" => Some("hca_handle=max hca_object=max"),
        "net_prio.ifpriomap" => Some("0"),
        _ if file.starts_with("blkio.") && file.ends_with("_device") => Some("0"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_written() {
        for (file, before, now, expected) in [
            ("pids.max", "max\n", "max\n", &[][..]),
            ("pids.max", "max\n", "5\n", &["max"]),
            (
                "io.max",
                "8:0 rbps=1 wbps=max riops=max wiops=max\n",
                "8:0 rbps=2 wbps=max riops=max wiops=max\n8:16 rbps=9 wbps=max riops=max wiops=max\n",
                &[
                    "8:16 rbps=max wbps=max riops=max wiops=max",
                    "8:0 rbps=1 wbps=max riops=max wiops=max",
                ],
            ),
            ("blkio.throttle.read_bps_device", "", "8:0 5\n", &["8:0 0"]),
            (
                "io.weight",
                "default 100\n",
                "default 50\n8:0 7\n",
                &["8:0 default", "default 100"],
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n",
                "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
                &[],
            ),
            (
                "memory.oom_control",
                "oom_kill_disable 0\nunder_oom 0\n",
                "oom_kill_disable 1\nunder_oom 0\n",
                &["0"],
            ),
        ] {
            assert_eq!(changes(file, before, now), expected, "{file}");
        }
    }
}
