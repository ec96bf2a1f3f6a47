//! `linux.resources` of a container's spec, part by part.

use nix::errno::Errno;

use crate::oci::{LinuxNetwork, LinuxPids, LinuxResources};

use super::hierarchy::Kind;
use super::{
    Cgroup, CgroupError, Controller, Result, block_io, cpu, cpuset, create, devices, hugetlb, memory, unified,
};

impl Cgroup {
    /// Applies `linux.resources`: what is not in the spec stays as it is.
    ///
    /// Parts are applied in the spec's order, `unified` last, so that it may refine the others. What is applied before
    /// an error stays; [`Cgroup::update`] takes it back.
    ///
    /// # Errors
    /// When the kernel refuses a value, or the host can't express a part; the error names the field.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.apply_parts(resources).map_err(|error| match &error {
            CgroupError::File {
                file,
                errno: Errno::ENOENT,
                ..
            } => self
                .unified()
                .and_then(|unified| create::explain(unified, file))
                .unwrap_or(error),
            _ => error,
        })
    }

    fn apply_parts(&self, resources: &LinuxResources) -> Result<()> {
        if !resources.devices.is_empty() {
            devices::apply(self, &resources.devices)?;
        }
        if let Some(spec) = &resources.memory {
            memory::apply(self, spec)?;
        }
        if let Some(spec) = &resources.cpu {
            cpu::apply(self, spec)?;
            cpuset::apply(self, &spec.cpus, &spec.mems)?;
        }
        if let Some(spec) = &resources.pids {
            apply_pids(self, spec)?;
        }
        if let Some(spec) = &resources.block_io {
            block_io::apply(self, spec)?;
        }
        if !resources.hugepage_limits.is_empty() {
            hugetlb::apply(self, &resources.hugepage_limits)?;
        }
        if let Some(spec) = &resources.network {
            apply_network(self, spec)?;
        }
        apply_rdma(self, resources)?;
        unified::apply(self, &resources.unified)
    }
}

/// The limit of processes and threads: -1 is none. 0 is 1, as in runc: systemd takes no 0, and for who is in the group
/// already the two are the same.
fn apply_pids(group: &Cgroup, spec: &LinuxPids) -> Result<()> {
    let value = match spec.limit {
        None => return Ok(()),
        Some(..0) => "max".to_owned(),
        Some(limit) => limit.max(1).to_string(),
    };
    group
        .need(Controller::Pids, "linux.resources.pids.limit")?
        .write("pids.max", &value)
}

/// Packet classes and priorities, which only v1 hierarchies have.
fn apply_network(group: &Cgroup, spec: &LinuxNetwork) -> Result<()> {
    // 0 is the class of packets that have none.
    if let Some(class) = spec.class_id.filter(|class| *class != 0) {
        let directory = group.need(Controller::NetCls, "linux.resources.network.classID")?;
        directory.write("net_cls.classid", &class.to_string())?;
    }
    for priority in &spec.priorities {
        let directory = group.need(Controller::NetPrio, "linux.resources.network.priorities")?;
        directory.write(
            "net_prio.ifpriomap",
            &format!("{} {}", priority.name, priority.priority),
        )?;
    }
    Ok(())
}

fn apply_rdma(group: &Cgroup, resources: &LinuxResources) -> Result<()> {
    for (device, limit) in &resources.rdma {
        let directory = group.need(Controller::Rdma, "linux.resources.rdma")?;
        if directory.hierarchy.kind == Kind::V2 {
            // In a hybrid hierarchy no group has it unless it is asked for.
            create::enable(directory, &[Controller::Rdma])?;
        }
        if device.contains(char::is_whitespace) {
            return Err(CgroupError::Value {
                resource: "linux.resources.rdma".to_owned(),
                value: device.clone(),
                reason: "a device's name has no spaces".to_owned(),
            });
        }
        let handles = limit
            .hca_handles
            .map(|n| format!(" hca_handle={n}"))
            .unwrap_or_default();
        let objects = limit
            .hca_objects
            .map(|n| format!(" hca_object={n}"))
            .unwrap_or_default();
        directory.write("rdma.max", &format!("{device}{handles}{objects}"))?;
    }
    Ok(())
}
