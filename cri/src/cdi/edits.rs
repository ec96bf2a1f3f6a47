//! Changing an OCI configuration.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use rustix::fs::{major, minor};
use serde_json::{Map, Value, json};

use super::schema::{DeviceNode, Edits, Hook, IntelRdt, Mount};

/// Makes the changes.
pub(super) fn apply(edits: &Edits, spec: &mut Value) -> Result<(), String> {
    change(spec, &["process", "env"], |env| {
        edits.env.iter().for_each(|variable| set_variable(env, variable));
    });
    for node in &edits.device_nodes {
        add_device(spec, node)?;
    }
    for device in &edits.net_devices {
        *at(spec, &["linux", "netDevices", &device.host_interface_name]) = json!({ "name": device.name });
    }
    change(spec, &["mounts"], |mounts| {
        edits.mounts.iter().for_each(|mount| add_mount(mounts, mount));
    });
    for hook in &edits.hooks {
        change(spec, &["hooks", &hook.hook_name], |hooks| {
            hooks.push(hook_of(hook))
        });
    }
    if let Some(rdt) = &edits.intel_rdt {
        *at(spec, &["linux", "intelRdt"]) = rdt_of(rdt);
    }
    for gid in edits.additional_gids.iter().filter(|gid| **gid != 0) {
        change(spec, &["process", "user", "additionalGids"], |gids| {
            if !gids.contains(&json!(gid)) {
                gids.push(json!(gid));
            }
        });
    }
    Ok(())
}

/// The value at a path of names; objects on the way are made.
fn at<'a>(spec: &'a mut Value, path: &[&str]) -> &'a mut Value {
    path.iter().fold(spec, |value, name| {
        if !value.is_object() {
            *value = Value::Object(Map::new());
        }
        &mut value[*name]
    })
}

/// Changes the list at a path.
fn change(spec: &mut Value, path: &[&str], change: impl FnOnce(&mut Vec<Value>)) {
    let slot = at(spec, path);
    let mut list = match slot.take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    change(&mut list);
    *slot = Value::Array(list);
}

/// One of the same name is replaced where it stands.
fn set_variable(env: &mut Vec<Value>, variable: &str) {
    let name = variable.split('=').next().unwrap_or_default();
    let same = |known: &&mut Value| {
        let known = known.as_str().unwrap_or_default();
        known.split('=').next() == Some(name)
    };
    match env.iter_mut().find(same) {
        Some(known) => *known = json!(variable),
        None => env.push(json!(variable)),
    }
}

/// A mount takes the place of others on the same path, and comes before those below it.
fn add_mount(mounts: &mut Vec<Value>, mount: &Mount) {
    mounts.retain(|other| other["destination"] != mount.container_path.as_str());
    let mut added = json!({
        "destination": mount.container_path,
        "source": mount.host_path,
        "options": mount.options,
    });
    // Without a word of what it is, it is what almost all are.
    added["type"] = match mount.kind.as_str() {
        "" => json!("bind"),
        kind => json!(kind),
    };
    let below = |other: &Value| {
        let path = other["destination"].as_str().unwrap_or_default();
        std::path::Path::new(path).starts_with(&mount.container_path)
    };
    let place = mounts.iter().position(below).unwrap_or(mounts.len());
    mounts.insert(place, added);
}

fn hook_of(hook: &Hook) -> Value {
    let mut made = json!({ "path": hook.path });
    for (name, list) in [("args", &hook.args), ("env", &hook.env)] {
        if !list.is_empty() {
            made[name] = json!(list);
        }
    }
    if let Some(seconds) = hook.timeout {
        made["timeout"] = json!(seconds);
    }
    made
}

fn rdt_of(rdt: &IntelRdt) -> Value {
    let mut made = Map::new();
    for (name, text) in [
        ("closID", &rdt.clos_id),
        ("l3CacheSchema", &rdt.l3_cache_schema),
        ("memBwSchema", &rdt.mem_bw_schema),
    ] {
        if !text.is_empty() {
            made.insert(name.to_owned(), json!(text));
        }
    }
    if !rdt.schemata.is_empty() {
        made.insert("schemata".to_owned(), json!(rdt.schemata));
    }
    if rdt.enable_monitoring {
        made.insert("enableMonitoring".to_owned(), json!(true));
    }
    Value::Object(made)
}

/// What is not said of a device is asked of the host's. One without an owner is the container's user's.
fn add_device(spec: &mut Value, node: &DeviceNode) -> Result<(), String> {
    let host = match node.host_path.as_str() {
        "" => node.path.as_str(),
        path => path,
    };
    let is_complete = !node.kind.is_empty() && (node.major != 0 || node.kind == "p");
    let found = match found(host) {
        Ok(found) => Some(found),
        Err(_) if is_complete => None,
        Err(reason) => return Err(format!("The CDI device node {host} can't be used: {reason}.")),
    };
    let (kind, numbers) = match &found {
        Some(found) if !is_complete => {
            let wanted = if node.kind == "u" { "c" } else { node.kind.as_str() };
            if !wanted.is_empty() && wanted != found.kind {
                return Err(format!(
                    "The CDI device node {host} is of the type {:?}, not {:?}.",
                    found.kind, node.kind
                ));
            }
            (found.kind, found.numbers)
        }
        _ => (node.kind.as_str(), (node.major, node.minor)),
    };
    let own = |name: &str| spec["process"]["user"][name].as_u64().filter(|id| *id > 0);
    let ids = [
        ("uid", node.uid.map(u64::from).or_else(|| own("uid"))),
        ("gid", node.gid.map(u64::from).or_else(|| own("gid"))),
    ];
    let mut device = json!({ "path": node.path, "type": kind, "major": numbers.0, "minor": numbers.1 });
    if let Some(mode) = node.file_mode.or_else(|| found.map(|found| found.mode)) {
        device["fileMode"] = json!(mode & 0o7777);
    }
    for (name, id) in ids {
        if let Some(id) = id {
            device[name] = json!(id);
        }
    }
    change(spec, &["linux", "devices"], |devices| {
        devices.retain(|other| other["path"] != node.path.as_str());
        devices.push(device);
    });
    let access = match node.permissions.as_str() {
        "" => "rwm",
        "none" => return Ok(()),
        some => some,
    };
    if kind != "p" {
        let kind = if kind == "u" { "c" } else { kind };
        let rule =
            json!({ "allow": true, "type": kind, "major": numbers.0, "minor": numbers.1, "access": access });
        change(spec, &["linux", "resources", "devices"], |rules| rules.push(rule));
    }
    Ok(())
}

/// A device of the host.
struct Found {
    kind: &'static str,
    numbers: (u32, u32),
    mode: u32,
}

/// Links are not followed: the container's node would be named by where they lead today.
fn found(path: &str) -> Result<Found, String> {
    let metadata = fs::symlink_metadata(path).map_err(|error| error.to_string())?;
    let kind = match metadata.file_type() {
        kind if kind.is_block_device() => "b",
        kind if kind.is_char_device() => "c",
        kind if kind.is_fifo() => "p",
        _ => return Err("it is not a device of this host".to_owned()),
    };
    Ok(Found {
        kind,
        numbers: (major(metadata.rdev()), minor(metadata.rdev())),
        mode: metadata.mode(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(edits: &Value) -> Result<Value, String> {
        let mut spec = json!({
            "process": { "env": ["A=1", "B=2"], "user": { "uid": 7, "gid": 0 } },
            "mounts": [{ "destination": "/m/below" }, { "destination": "/x" }],
            "linux": { "devices": [{ "path": "/dev/n" }], "resources": { "devices": [{ "allow": false }] } },
        });
        apply(&serde_json::from_value(edits.clone()).unwrap(), &mut spec).map(|()| spec)
    }

    #[test]
    fn each_edit_has_its_place() {
        let spec = edited(&json!({
            "env": ["B=new", "C=3"],
            "mounts": [{ "hostPath": "/h", "containerPath": "/m", "options": ["ro", "rbind"] },
                       { "hostPath": "/h", "containerPath": "/x", "type": "tmpfs" }],
            "hooks": [{ "hookName": "createRuntime", "path": "/hook", "args": ["hook", "a"], "timeout": 3 }],
            "intelRdt": { "closID": "c", "enableMonitoring": true },
            "netDevices": [{ "hostInterfaceName": "eth7", "name": "net1" }],
            "additionalGids": [0, 5, 5],
        }))
        .unwrap();
        assert_eq!(spec["process"]["env"], json!(["A=1", "B=new", "C=3"]));
        let mounts: Vec<_> = spec["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["destination"])
            .collect();
        assert_eq!(mounts, ["/m", "/m/below", "/x"]);
        assert_eq!(spec["mounts"][2]["type"], "tmpfs");
        assert_eq!(
            spec["hooks"],
            json!({ "createRuntime": [{ "path": "/hook", "args": ["hook", "a"], "timeout": 3 }] })
        );
        assert_eq!(
            spec["linux"]["intelRdt"],
            json!({ "closID": "c", "enableMonitoring": true })
        );
        assert_eq!(spec["linux"]["netDevices"], json!({ "eth7": { "name": "net1" } }));
        assert_eq!(spec["process"]["user"]["additionalGids"], json!([5]));
    }

    #[test]
    fn device_nodes_are_completed_from_the_host() {
        let spec = edited(&json!({ "deviceNodes": [
            { "path": "/dev/n", "hostPath": "/dev/null", "permissions": "r", "gid": 9 },
            { "path": "/dev/made", "type": "b", "major": 99, "minor": 1, "fileMode": 0o640, "permissions": "none" },
        ] }))
        .unwrap();
        let mode = fs::metadata("/dev/null").unwrap().mode() & 0o7777;
        let asked = json!({ "path": "/dev/n", "type": "c", "major": 1, "minor": 3, "fileMode": mode, "uid": 7, "gid": 9 });
        let made =
            json!({ "path": "/dev/made", "type": "b", "major": 99, "minor": 1, "fileMode": 0o640, "uid": 7 });
        assert_eq!(spec["linux"]["devices"], json!([asked, made]));
        let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "r" });
        assert_eq!(
            spec["linux"]["resources"]["devices"],
            json!([{ "allow": false }, rule])
        );
    }

    #[test]
    fn device_nodes_that_are_not_there_are_refused() {
        for (node, reason) in [
            (json!({ "path": "/dev/no-such-device" }), "/dev/no-such-device"),
            (json!({ "path": "/etc/hostname" }), "not a device"),
            (json!({ "path": "/dev/null", "type": "b" }), "type"),
        ] {
            let error = edited(&json!({ "deviceNodes": [node] })).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
