//! What plugins want of a container, put into its OCI spec. What can't be had is refused by name.

use serde_json::{Map, Value, json};

use super::NriError;
use super::api::{
    self, ContainerAdjustment, IoPrioClass, LinuxContainerAdjustment, LinuxResources, LinuxSchedulerPolicy,
};
use super::collect::removed;

/// Namespaces that are the container's own; the others are its pod's.
const OWN_NAMESPACES: [&str; 4] = ["mount", "pid", "cgroup", "time"];

/// Changes `spec` as plugins want it.
pub(crate) fn adjust(spec: &mut Value, wanted: &ContainerAdjustment) -> Result<(), NriError> {
    refuse(wanted)?;
    for (name, value) in &wanted.annotations {
        if let Some(name) = removed(name) {
            object(spec, "/annotations").remove(name);
        }
        if removed(name).is_none() {
            object(spec, "/annotations").insert(name.clone(), json!(value));
        }
    }
    environment(spec, &wanted.env);
    if !wanted.args.is_empty() {
        object(spec, "/process").insert("args".to_owned(), json!(wanted.args));
    }
    if let Some(hooks) = &wanted.hooks {
        add_hooks(spec, hooks);
    }
    for limit in &wanted.rlimits {
        let limits = list(spec, "/process", "rlimits");
        limits.retain(|known| known["type"] != *limit.r#type);
        limits.push(json!({ "type": limit.r#type, "hard": limit.hard, "soft": limit.soft }));
    }
    if let Some(linux) = &wanted.linux {
        adjust_linux(spec, linux)?;
    }
    mounts(spec, &wanted.mounts);
    Ok(())
}

fn refuse(wanted: &ContainerAdjustment) -> Result<(), NriError> {
    if let Some(device) = wanted.cdi_devices.first() {
        return Err(NriError::impossible(
            format!("the CDI device {}", device.name),
            "plugins here adjust devices and mounts themselves",
        ));
    }
    let hooks = wanted.hooks.clone().unwrap_or_default();
    if !hooks.poststart.is_empty() || !hooks.poststop.is_empty() {
        return Err(NriError::impossible(
            "a poststart or poststop hook",
            "it would hold up the pod's other containers; the events PostStartContainer and StopContainer come then",
        ));
    }
    let Some(linux) = &wanted.linux else { return Ok(()) };
    if !linux.cgroups_path.is_empty() {
        return Err(NriError::impossible(
            format!("the cgroup {}", linux.cgroups_path),
            "a container's cgroup is below its pod's, where it is found again",
        ));
    }
    if let Some(class) = linux
        .resources
        .as_ref()
        .and_then(|resources| resources.blockio_class.as_ref())
        && !class.value.is_empty()
    {
        return Err(NriError::impossible(
            format!("the block I/O class {}", class.value),
            "no classes are configured here",
        ));
    }
    for namespace in &linux.namespaces {
        let kind = removed(&namespace.r#type).unwrap_or(&namespace.r#type);
        if !OWN_NAMESPACES.contains(&kind) {
            return Err(NriError::impossible(
                format!("another {kind} namespace"),
                "it is the pod's",
            ));
        }
    }
    Ok(())
}

/// The object at `pointer`, made if it is not there. Only the last part may be missing.
fn object<'a>(spec: &'a mut Value, pointer: &str) -> &'a mut Map<String, Value> {
    let mut found = spec;
    for name in pointer.split('/').skip(1) {
        if !found.is_object() {
            *found = json!({});
        }
        found = &mut found[name];
    }
    if !found.is_object() {
        *found = json!({});
    }
    match found {
        Value::Object(object) => object,
        _ => unreachable!("it was just made an object"),
    }
}

fn list<'a>(spec: &'a mut Value, pointer: &str, name: &str) -> &'a mut Vec<Value> {
    let found = object(spec, pointer).entry(name).or_insert(Value::Null);
    if !found.is_array() {
        *found = json!([]);
    }
    match found {
        Value::Array(list) => list,
        _ => unreachable!("it was just made a list"),
    }
}

fn environment(spec: &mut Value, wanted: &[api::KeyValue]) {
    let env = list(spec, "/process", "env");
    let is = |known: &Value, name: &str| {
        known
            .as_str()
            .and_then(|text| text.split_once('='))
            .is_some_and(|(known, _)| known == name)
    };
    for variable in wanted {
        if let Some(name) = removed(&variable.key) {
            env.retain(|known| !is(known, name));
        } else {
            let value = json!(format!("{}={}", variable.key, variable.value));
            match env.iter_mut().find(|known| is(known, &variable.key)) {
                Some(known) => *known = value,
                None => env.push(value),
            }
        }
    }
}

fn add_hooks(spec: &mut Value, hooks: &api::Hooks) {
    let kinds = [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
    ];
    for (name, hooks) in kinds {
        for hook in hooks {
            let mut value = json!({ "path": hook.path, "args": hook.args, "env": hook.env });
            if let Some(timeout) = &hook.timeout {
                value["timeout"] = json!(timeout.value);
            }
            list(spec, "/hooks", name).push(value);
        }
    }
}

/// Mounts that a plugin adds come where their depth belongs: what is mounted on comes first.
fn mounts(spec: &mut Value, wanted: &[api::Mount]) {
    if wanted.is_empty() {
        return;
    }
    let mut propagation = None;
    let mounts = list(spec, "", "mounts");
    for mount in wanted {
        let target = removed(&mount.destination).unwrap_or(&mount.destination);
        mounts.retain(|known| known["destination"] != *target);
        if removed(&mount.destination).is_some() {
            continue;
        }
        for option in &mount.options {
            // What is to be seen on both sides needs a root that lets it through.
            match option.as_str() {
                "rshared" | "shared" => propagation = Some("rshared"),
                "rslave" | "slave" => propagation = propagation.or(Some("rslave")),
                _ => {}
            }
        }
        mounts.push(json!({
            "destination": mount.destination,
            "type": mount.r#type,
            "source": mount.source,
            "options": mount.options,
        }));
    }
    mounts.sort_by_key(|mount| {
        let target = mount["destination"].as_str().unwrap_or_default();
        target.split('/').filter(|part| !part.is_empty()).count()
    });
    if let Some(propagation) = propagation {
        let linux = object(spec, "/linux");
        let wider = linux
            .get("rootfsPropagation")
            .is_some_and(|known| known == "rshared");
        if !wider {
            linux.insert("rootfsPropagation".to_owned(), json!(propagation));
        }
    }
}

fn adjust_linux(spec: &mut Value, wanted: &LinuxContainerAdjustment) -> Result<(), NriError> {
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
    scheduling(spec, wanted)
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

fn scheduling(spec: &mut Value, wanted: &LinuxContainerAdjustment) -> Result<(), NriError> {
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
