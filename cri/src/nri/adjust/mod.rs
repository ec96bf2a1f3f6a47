//! What plugins want of a container, put into its OCI spec. What can't be had is refused by name.

mod linux;
mod scheduling;

use serde_json::{Map, Value, json};

use super::NriError;
use super::api::{self, ContainerAdjustment};
use super::collect::removed;

/// Namespaces that are the container's own; the others are its pod's.
const OWN_NAMESPACES: [&str; 4] = ["mount", "pid", "cgroup", "time"];

/// Changes `spec` as plugins want it. `inject` adds the CDI devices of those names; its error is a sentence.
///
/// # Errors
/// Something of it can't be had.
pub(crate) fn adjust(
    spec: &mut Value,
    wanted: &ContainerAdjustment,
    inject: impl FnOnce(&mut Value, &[String]) -> Result<(), String>,
) -> Result<(), NriError> {
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
    // Before what plugins say of devices and mounts themselves, as upstream has it: that wins.
    let devices: Vec<String> = wanted
        .cdi_devices
        .iter()
        .map(|device| device.name.clone())
        .collect();
    if !devices.is_empty() {
        inject(spec, &devices).map_err(|reason| {
            NriError::impossible(
                format!("the CDI device {}", devices.join(", ")),
                reason.trim_end_matches('.'),
            )
        })?;
    }
    for limit in &wanted.rlimits {
        let limits = list(spec, "/process", "rlimits");
        limits.retain(|known| known["type"] != *limit.r#type);
        limits.push(json!({ "type": limit.r#type, "hard": limit.hard, "soft": limit.soft }));
    }
    if let Some(linux) = &wanted.linux {
        linux::adjust(spec, linux)?;
    }
    mounts(spec, &wanted.mounts);
    Ok(())
}

fn refuse(wanted: &ContainerAdjustment) -> Result<(), NriError> {
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
