//! `spec`: a configuration to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::ExitCode;

use serde_json::{Value, json};

use crate::arguments::{Arguments, Operands, Syntax};
use crate::failure::{Attempt, Failure};
use crate::options::Global;

/// The newest version of the runtime specification that is understood.
pub(crate) const VERSION: &str = "1.3.0";

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "spec",
    flags: &["bundle,b=DIR", "rootless"],
    operands: (Operands::None, ""),
};

/// Writes `config.json`, unless there is one.
pub(crate) fn main(_: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut spec = default_spec();
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

fn default_spec() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": VERSION,
        "process": {
            "terminal": true,
            "user": { "uid": 0, "gid": 0 },
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
            "noNewPrivileges": true
        },
        "root": { "path": "rootfs", "readonly": true },
        "hostname": "berth",
        "mounts": mounts(),
        "linux": {
            "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
            "namespaces": [
                { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mounts() -> Value {
    json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
          "options": ["nosuid", "strictatime", "mode=755", "size=65536k"] },
        { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
          "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm",
          "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"] },
        { "destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
          "options": ["nosuid", "noexec", "nodev"] },
        { "destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"] },
        { "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
          "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] }
    ])
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
