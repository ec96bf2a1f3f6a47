//! When and where a container's programs run: I/O priority, scheduler, and memory policy.

use serde_json::{Value, json};

use super::object;
use crate::nri::NriError;
use crate::nri::api::{self, IoPrioClass, LinuxContainerAdjustment, LinuxSchedulerPolicy};

pub(super) fn adjust(spec: &mut Value, wanted: &LinuxContainerAdjustment) -> Result<(), NriError> {
    let unknown = |what: &str, number: i32| {
        NriError::impossible(format!("{what} {number}"), "NRI 0.12 has no such value")
    };
    if let Some(priority) = &wanted.io_priority {
        let class = IoPrioClass::try_from(priority.class)
            .map_err(|_| unknown("the I/O priority class", priority.class))?;
        let process = object(spec, "/process");
        if class == IoPrioClass::IoprioClassNone {
            process.remove("ioPriority");
        } else {
            let value = json!({ "class": class.as_str_name(), "priority": priority.priority });
            process.insert("ioPriority".to_owned(), value);
        }
    }
    if let Some(scheduler) = &wanted.scheduler {
        let policy = LinuxSchedulerPolicy::try_from(scheduler.policy)
            .map_err(|_| unknown("the scheduling policy", scheduler.policy))?;
        let flags: Result<Vec<&str>, NriError> = scheduler
            .flags
            .iter()
            .map(|flag| {
                api::LinuxSchedulerFlag::try_from(*flag)
                    .map(|flag| flag.as_str_name())
                    .map_err(|_| unknown("the scheduling flag", *flag))
            })
            .collect();
        let process = object(spec, "/process");
        if policy == LinuxSchedulerPolicy::SchedNone {
            process.remove("scheduler");
        } else {
            let value = json!({
                "policy": policy.as_str_name(),
                "nice": scheduler.nice,
                "priority": scheduler.priority,
                "flags": flags?,
                "runtime": scheduler.runtime,
                "deadline": scheduler.deadline,
                "period": scheduler.period,
            });
            process.insert("scheduler".to_owned(), value);
        }
    }
    if let Some(policy) = &wanted.memory_policy {
        let mode =
            api::MpolMode::try_from(policy.mode).map_err(|_| unknown("the memory policy", policy.mode))?;
        let flags: Result<Vec<&str>, NriError> = policy
            .flags
            .iter()
            .map(|flag| {
                api::MpolFlag::try_from(*flag)
                    .map(|flag| flag.as_str_name())
                    .map_err(|_| unknown("the memory policy's flag", *flag))
            })
            .collect();
        let value = json!({ "mode": mode.as_str_name(), "nodes": policy.nodes, "flags": flags? });
        object(spec, "/linux").insert("memoryPolicy".to_owned(), value);
    }
    Ok(())
}
