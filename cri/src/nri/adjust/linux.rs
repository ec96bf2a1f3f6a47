//! What plugins want of the parts of a container that only Linux has.

use serde_json::{Value, json};

use super::{list, object, scheduling};
use crate::nri::NriError;
use crate::nri::api::{self, LinuxContainerAdjustment, LinuxResources};
use crate::nri::collect::removed;

pub(super) fn adjust(spec: &mut Value, wanted: &LinuxContainerAdjustment) -> Result<(), NriError> {
    for device in &wanted.devices {
        let path = removed(&device.path).unwrap_or(&device.path);
        list(spec, "/linux", "devices").retain(|known| known["path"] != *path);
        if removed(&device.path).is_none() {
            add_device(spec, device);
        }
    }
    for namespace in &wanted.namespaces {
        let kind = removed(&namespace.r#type).unwrap_or(&namespace.r#type);
        let namespaces = list(spec, "/linux", "namespaces");
        namespaces.retain(|known| known["type"] != *kind);
        if removed(&namespace.r#type).is_none() {
            let mut value = json!({ "type": kind });
            if !namespace.path.is_empty() {
                value["path"] = json!(namespace.path);
            }
            namespaces.push(value);
        }
    }
    for (name, value) in &wanted.sysctl {
        match removed(name) {
            Some(name) => object(spec, "/linux/sysctl").remove(name),
            None => object(spec, "/linux/sysctl").insert(name.clone(), json!(value)),
        };
    }
    for (name, device) in &wanted.net_devices {
        match removed(name) {
            Some(name) => object(spec, "/linux/netDevices").remove(name),
            None => object(spec, "/linux/netDevices").insert(name.clone(), json!({ "name": device.name })),
        };
    }
    if let Some(score) = &wanted.oom_score_adj {
        object(spec, "/process").insert("oomScoreAdj".to_owned(), json!(score.value));
    }
    if let Some(resources) = &wanted.resources {
        limits(spec, resources);
    }
    if let Some(rdt) = &wanted.rdt {
        resource_class(spec, rdt);
    }
    if let Some(policy) = &wanted.seccomp_policy {
        object(spec, "/linux").insert("seccomp".to_owned(), seccomp(policy));
    }
    scheduling::adjust(spec, wanted)
}

fn add_device(spec: &mut Value, device: &api::LinuxDevice) {
    let mut value = json!({
        "path": device.path,
        "type": device.r#type,
        "major": device.major,
        "minor": device.minor,
    });
    if let Some(mode) = &device.file_mode {
        value["fileMode"] = json!(mode.value);
    }
    for (name, id) in [("uid", &device.uid), ("gid", &device.gid)] {
        if let Some(id) = id {
            value[name] = json!(id.value);
        }
    }
    list(spec, "/linux", "devices").push(value);
    // The mode's bits of its owner say what may be done with it, as upstream has it; without a mode all.
    let mode = device.file_mode.as_ref().map_or(0o666, |mode| mode.value);
    let read = if mode & 0o444 == 0 { "" } else { "r" };
    let write = if mode & 0o222 == 0 { "" } else { "w" };
    list(spec, "/linux/resources", "devices").push(json!({
        "allow": true,
        "type": device.r#type,
        "major": device.major,
        "minor": device.minor,
        "access": format!("{read}{write}m"),
    }));
}

fn limits(spec: &mut Value, wanted: &LinuxResources) {
    let mut set = |group: &str, name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object(spec, &format!("/linux/resources/{group}")).insert(name.to_owned(), value);
        }
    };
    if let Some(memory) = &wanted.memory {
        let limit = memory.limit.as_ref().map(|limit| json!(limit.value));
        let swap = memory.swap.as_ref().map(|swap| json!(swap.value));
        set("memory", "limit", limit.clone());
        // A limit without a word about swap is one of both, or an old limit of both could be below the new one.
        set("memory", "swap", swap.or(limit));
        let signed = |value: &Option<api::OptionalInt64>| value.as_ref().map(|value| json!(value.value));
        let flag = |value: &Option<api::OptionalBool>| value.as_ref().map(|value| json!(value.value));
        set("memory", "reservation", signed(&memory.reservation));
        set("memory", "kernel", signed(&memory.kernel));
        set("memory", "kernelTCP", signed(&memory.kernel_tcp));
        let swappiness = memory.swappiness.as_ref().map(|value| json!(value.value));
        set("memory", "swappiness", swappiness);
        set("memory", "disableOOMKiller", flag(&memory.disable_oom_killer));
        set("memory", "useHierarchy", flag(&memory.use_hierarchy));
    }
    if let Some(cpu) = &wanted.cpu {
        let signed = |value: &Option<api::OptionalInt64>| value.as_ref().map(|value| json!(value.value));
        let unsigned = |value: &Option<api::OptionalUInt64>| value.as_ref().map(|value| json!(value.value));
        let text = |text: &String| (!text.is_empty()).then(|| json!(text));
        set("cpu", "shares", unsigned(&cpu.shares));
        set("cpu", "quota", signed(&cpu.quota));
        set("cpu", "period", unsigned(&cpu.period));
        set("cpu", "realtimeRuntime", signed(&cpu.realtime_runtime));
        set("cpu", "realtimePeriod", unsigned(&cpu.realtime_period));
        set("cpu", "cpus", text(&cpu.cpus));
        set("cpu", "mems", text(&cpu.mems));
    }
    set(
        "pids",
        "limit",
        wanted.pids.as_ref().map(|pids| json!(pids.limit)),
    );
    for (name, value) in &wanted.unified {
        set("unified", name, Some(json!(value)));
    }
    for limit in &wanted.hugepage_limits {
        let limits = list(spec, "/linux/resources", "hugepageLimits");
        limits.retain(|known| known["pageSize"] != *limit.page_size);
        limits.push(json!({ "pageSize": limit.page_size, "limit": limit.limit }));
    }
    for rule in &wanted.devices {
        let mut value = json!({ "allow": rule.allow, "access": rule.access });
        if !rule.r#type.is_empty() {
            value["type"] = json!(rule.r#type);
        }
        for (name, number) in [("major", &rule.major), ("minor", &rule.minor)] {
            if let Some(number) = number {
                value[name] = json!(number.value);
            }
        }
        list(spec, "/linux/resources", "devices").push(value);
    }
    if let Some(class) = &wanted.rdt_class {
        if class.value.is_empty() {
            object(spec, "/linux").remove("intelRdt");
        } else {
            object(spec, "/linux").insert("intelRdt".to_owned(), json!({ "closID": class.value }));
        }
    }
}

fn resource_class(spec: &mut Value, rdt: &api::LinuxRdt) {
    if rdt.remove {
        object(spec, "/linux").remove("intelRdt");
    }
    let values = [
        ("closID", rdt.clos_id.as_ref().map(|id| json!(id.value))),
        ("schemata", rdt.schemata.as_ref().map(|lines| json!(lines.value))),
        (
            "enableMonitoring",
            rdt.enable_monitoring.as_ref().map(|flag| json!(flag.value)),
        ),
    ];
    for (name, value) in values {
        if let Some(value) = value {
            object(spec, "/linux/intelRdt").insert(name.to_owned(), value);
        }
    }
}

fn seccomp(policy: &api::LinuxSeccomp) -> Value {
    let condition = |argument: &api::LinuxSeccompArg| {
        json!({
            "index": argument.index,
            "value": argument.value,
            "valueTwo": argument.value_two,
            "op": argument.op,
        })
    };
    let rule = |rule: &api::LinuxSyscall| {
        let args: Vec<Value> = rule.args.iter().map(condition).collect();
        let mut value = json!({ "names": rule.names, "action": rule.action, "args": args });
        if let Some(errno) = &rule.errno_ret {
            value["errnoRet"] = json!(errno.value);
        }
        value
    };
    let mut value = json!({
        "defaultAction": policy.default_action,
        "architectures": policy.architectures,
        "syscalls": policy.syscalls.iter().map(rule).collect::<Vec<Value>>(),
    });
    if let Some(errno) = &policy.default_errno {
        value["defaultErrnoRet"] = json!(errno.value);
    }
    if !policy.flags.is_empty() {
        value["flags"] = json!(policy.flags);
    }
    for (name, text) in [
        ("listenerPath", &policy.listener_path),
        ("listenerMetadata", &policy.listener_metadata),
    ] {
        if !text.is_empty() {
            value[name] = json!(text);
        }
    }
    value
}
