//! `spec`: a configuration to begin with.

use std::fs::OpenOptions;
use std::io::Write;

use serde_json::{Value, json};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure};
use crate::options::Global;

/// The newest version of the runtime specification that is understood.
pub(crate) const VERSION: &str = "1.3.0";

/// What is in a configuration to begin with, its version aside.
const DEFAULT: &str = include_str!("default_config.json");

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "spec",
    flags: &["bundle,b=DIR", "rootless"],
    operands: (Operands::None, ""),
};

/// Writes `config.json`, unless there is one.
pub(crate) fn main(_: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut spec: Value = serde_json::from_str(DEFAULT)
        .map_err(std::io::Error::from)
        .attempt(|| "read the default configuration".to_owned())?;
    spec["ociVersion"] = VERSION.into();
    if let Some(namespaces) = spec["linux"]["namespaces"]
        .as_array_mut()
        .filter(|_| has_unified_hierarchy())
    {
        namespaces.push(json!({ "type": "cgroup" }));
    }
    if arguments.switch("rootless")? {
        let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
        make_rootless(&mut spec, uid.as_raw(), gid.as_raw());
    }
    let bundle = arguments.path("bundle").unwrap_or_default();
    let path = bundle.join("config.json");
    let doing = || format!("write {}", path.display());
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .attempt(doing)?;
    file.write_all(format!("{spec:#}\n").as_bytes()).attempt(doing)?;
    Ok(ExitCode::SUCCESS)
}

/// The host's control groups are version 2 only. On version 1 containers usually see their host's groups.
fn has_unified_hierarchy() -> bool {
    const CGROUP2_MAGIC: u64 = 0x6367_7270;
    let found = rustix::fs::statfs("/sys/fs/cgroup");
    found.is_ok_and(|stat| u64::try_from(stat.f_type).is_ok_and(|kind| kind == CGROUP2_MAGIC))
}

/// For a user without root's powers: a user namespace where this user is root, the host's network, no limits, and of
/// the mounts only what such a namespace may mount.
fn make_rootless(spec: &mut Value, uid: u32, gid: u32) {
    let linux = &mut spec["linux"];
    linux["uidMappings"] = json!([{ "containerID": 0, "hostID": uid, "size": 1 }]);
    linux["gidMappings"] = json!([{ "containerID": 0, "hostID": gid, "size": 1 }]);
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({ "type": "user" }));
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| mount["destination"] != "/sys" && mount["destination"] != "/sys/fs/cgroup");
        for mount in mounts.iter_mut() {
            if let Some(options) = mount["options"].as_array_mut() {
                // Only one id is mapped.
                options.retain(|option| !option.as_str().is_some_and(|o| o.starts_with("gid=")));
            }
        }
        mounts.push(json!({ "destination": "/sys", "type": "none", "source": "/sys",
            "options": ["rbind", "nosuid", "noexec", "nodev", "ro"] }));
    }
}
