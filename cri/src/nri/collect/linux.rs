//! What plugins want of the parts of a container that only Linux has.

use super::{Wishes, merge_map, removed};
use crate::nri::api::{self, Field};
use crate::nri::owners::Owners;
use crate::nri::{NriError, limits};

impl Wishes {
    pub(super) fn adjust_linux(
        &mut self,
        id: &str,
        linux: api::LinuxContainerAdjustment,
        plugin: &str,
    ) -> Result<(), NriError> {
        let owners = &mut self.others.owners;
        let wanted = self.adjust.linux.get_or_insert_default();
        let shown = self.container.linux.get_or_insert_default();
        for device in linux.devices {
            if let Some(path) = removed(&device.path) {
                wanted
                    .devices
                    .retain(|known| known.path != path && known.path != device.path);
                shown.devices.retain(|known| known.path != path);
                owners.clear_entry(id, Field::Devices, path, plugin);
            } else {
                owners.claim_entry(id, Field::Devices, &device.path, plugin)?;
                shown.devices.retain(|known| known.path != device.path);
                shown.devices.push(device.clone());
            }
            wanted.devices.push(device);
        }
        if let Some(resources) = linux.resources {
            limits::claim(owners, &resources, id, plugin)?;
            limits::merge(&resources, wanted.resources.get_or_insert_default());
            limits::merge(&resources, shown.resources.get_or_insert_default());
        }
        if !linux.cgroups_path.is_empty() {
            owners.claim(id, Field::CgroupsPath, plugin)?;
            shown.cgroups_path.clone_from(&linux.cgroups_path);
            wanted.cgroups_path = linux.cgroups_path;
        }
        if let Some(score) = linux.oom_score_adj {
            owners.claim(id, Field::OomScoreAdj, plugin)?;
            (wanted.oom_score_adj, shown.oom_score_adj) = (Some(score), Some(score));
        }
        if let Some(priority) = linux.io_priority {
            owners.claim(id, Field::IoPriority, plugin)?;
            (wanted.io_priority, shown.io_priority) = (Some(priority), Some(priority));
        }
        if let Some(policy) = linux.seccomp_policy {
            owners.claim(id, Field::SeccompPolicy, plugin)?;
            shown.seccomp_policy = Some(policy.clone());
            wanted.seccomp_policy = Some(policy);
        }
        for namespace in linux.namespaces {
            let kind = removed(&namespace.r#type).unwrap_or(&namespace.r#type).to_owned();
            owners.claim_entry(id, Field::Namespace, &kind, plugin)?;
            shown.namespaces.retain(|known| known.r#type != kind);
            if kind == namespace.r#type {
                shown.namespaces.push(namespace.clone());
            }
            wanted.namespaces.push(namespace);
        }
        let what = (id, Field::Sysctl, plugin);
        merge_map(owners, what, &linux.sysctl, &mut wanted.sysctl, &mut shown.sysctl)?;
        let what = (id, Field::LinuxNetDevices, plugin);
        merge_map(
            owners,
            what,
            &linux.net_devices,
            &mut wanted.net_devices,
            &mut shown.net_devices,
        )?;
        if let Some(scheduler) = linux.scheduler {
            owners.claim(id, Field::LinuxSched, plugin)?;
            shown.scheduler = Some(scheduler.clone());
            wanted.scheduler = Some(scheduler);
        }
        if let Some(policy) = linux.memory_policy {
            owners.claim(id, Field::MemoryPolicy, plugin)?;
            wanted.memory_policy = Some(policy);
        }
        if let Some(rdt) = linux.rdt {
            adjust_rdt(owners, id, rdt, wanted.rdt.get_or_insert_default(), plugin)?;
            shown.rdt.clone_from(&wanted.rdt);
        }
        Ok(())
    }
}

fn adjust_rdt(
    owners: &mut Owners,
    id: &str,
    rdt: api::LinuxRdt,
    wanted: &mut api::LinuxRdt,
    plugin: &str,
) -> Result<(), NriError> {
    let fields = [Field::RdtClosId, Field::RdtSchemata, Field::RdtEnableMonitoring];
    if rdt.remove {
        for field in fields {
            owners.clear(id, field, plugin);
        }
        *wanted = api::LinuxRdt {
            remove: true,
            ..Default::default()
        };
    }
    if let Some(class) = rdt.clos_id {
        owners.claim(id, Field::RdtClosId, plugin)?;
        wanted.clos_id = Some(class);
    }
    if let Some(schemata) = rdt.schemata {
        owners.claim(id, Field::RdtSchemata, plugin)?;
        wanted.schemata = Some(schemata);
    }
    if let Some(monitoring) = rdt.enable_monitoring {
        owners.claim(id, Field::RdtEnableMonitoring, plugin)?;
        wanted.enable_monitoring = Some(monitoring);
    }
    Ok(())
}
