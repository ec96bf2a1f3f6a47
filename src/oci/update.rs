//! `update`: changes the limits of a container.

use std::io::Read;

use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::cgroups::{Cgroup, CgroupError, Limits};
use berth_runtime::oci::{self, LinuxResources};
use berth_runtime::update_resctrl_group;
use serde_json::{Value, json};

use crate::arguments::{Arguments, Operands, Syntax, number};
use crate::exit_code::ExitCode;
use crate::failure::{Attempt, Failure, usage};
use crate::limits;
use crate::living::Living;
use crate::log;
use crate::options::Global;

pub(crate) const SYNTAX: Syntax = Syntax {
    name: "update",
    flags: &[
        "resources,r=FILE",
        "blkio-weight=N",
        "cpu-period=US",
        "cpu-quota=US",
        "cpu-burst=US",
        "cpu-rt-period=US",
        "cpu-rt-runtime=US",
        "cpu-share=N",
        "cpu-shares=N",
        "cpu-idle=0|1",
        "cpuset-cpus=LIST",
        "cpuset-mems=LIST",
        "memory=BYTES",
        "memory-reservation=BYTES",
        "memory-swap=BYTES",
        "kernel-memory=BYTES",
        "kernel-memory-tcp=BYTES",
        "pids-limit=N",
        "l3-cache-schema=SCHEMA",
        "mem-bw-schema=SCHEMA",
    ],
    operands: (Operands::One, "ID"),
};

/// What the value of a flag is.
#[derive(Clone, Copy)]
enum Kind {
    Number,
    Bytes,
    Text,
}

/// Flags that set one field of `linux.resources`: the flag, the object and its field.
const FIELDS: &[(&str, &str, &str, Kind)] = &[
    ("blkio-weight", "blockIO", "weight", Kind::Number),
    ("cpu-period", "cpu", "period", Kind::Number),
    ("cpu-quota", "cpu", "quota", Kind::Number),
    ("cpu-burst", "cpu", "burst", Kind::Number),
    ("cpu-rt-period", "cpu", "realtimePeriod", Kind::Number),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", Kind::Number),
    ("cpu-share", "cpu", "shares", Kind::Number),
    ("cpu-shares", "cpu", "shares", Kind::Number),
    ("cpu-idle", "cpu", "idle", Kind::Number),
    ("cpuset-cpus", "cpu", "cpus", Kind::Text),
    ("cpuset-mems", "cpu", "mems", Kind::Text),
    ("memory", "memory", "limit", Kind::Bytes),
    ("memory-reservation", "memory", "reservation", Kind::Bytes),
    ("memory-swap", "memory", "swap", Kind::Bytes),
    ("kernel-memory", "memory", "kernel", Kind::Bytes),
    ("kernel-memory-tcp", "memory", "kernelTCP", Kind::Bytes),
    ("pids-limit", "pids", "limit", Kind::Number),
];

/// Flags that set schemata: the flag, and the field of `linux.intelRdt`.
const SCHEMATA: &[(&str, &str)] = &[
    ("l3-cache-schema", "l3CacheSchema"),
    ("mem-bw-schema", "memBwSchema"),
];

/// Applies `linux.resources` from a file, from standard input (`-r -`), or from single flags.
pub(crate) fn main(global: &Global, arguments: &Arguments) -> Result<ExitCode, Failure> {
    let id = arguments.id()?;
    let mut resources = match arguments.text("resources")? {
        Some(file) => read(file)?,
        None => from_flags(arguments)?,
    };
    normalise(&mut resources);
    if forget_kernel_memory(&mut resources) {
        log::warning(
            global,
            "Limits of kernel memory are ignored: kernels have none any more.",
        );
    }
    let mut schemata = Vec::new();
    for (flag, field) in SCHEMATA {
        schemata.extend(arguments.text(flag)?.map(|schema| (*field, schema)));
    }
    let container = Living::look(global, id, "updated")?;
    let cgroup = container.needed_cgroup()?;
    let changed = container.state.change_config(|config| {
        let remembered = &mut config["linux"]["resources"];
        limits::complete(&mut resources, remembered);
        let before = LinuxResources {
            // They are not updated.
            devices: Vec::new(),
            ..typed(remembered.clone()).unwrap_or_default()
        };
        let set = apply(&container, &cgroup, &typed(resources.clone())?, &before)?;
        limits::remember(remembered, &resources);
        if !schemata.is_empty() {
            let lines: Vec<&str> = schemata.iter().map(|(_, schema)| *schema).collect();
            let updated = container
                .state
                .config()
                .and_then(|spec| update_resctrl_group(&spec, id, &lines));
            updated.inspect_err(|_| {
                if let Some(scope) = &container.record.scope {
                    take_back(scope, &before);
                }
                cgroup.restore(&set);
            })?;
            for (field, schema) in &schemata {
                config["linux"]["intelRdt"][field] = (*schema).into();
            }
        }
        Ok::<(), Failure>(())
    });
    container.unless_ended(changed)?;
    Ok(ExitCode::SUCCESS)
}

fn typed(resources: Value) -> Result<LinuxResources, Failure> {
    if resources.is_null() {
        return Ok(LinuxResources::default());
    }
    oci::from_value(resources).map_err(|e| usage(format!("The resources are not valid: {e}.")))
}

/// Sets all of the limits, or none. systemd first: it would set its own idea of them over ours.
fn apply(
    container: &Living,
    cgroup: &Cgroup,
    resources: &LinuxResources,
    before: &LinuxResources,
) -> Result<Limits, CgroupError> {
    let Some(scope) = &container.record.scope else {
        return cgroup.update(resources);
    };
    scope.update(resources)?;
    cgroup
        .update(&scope.rounded(resources))
        .inspect_err(|_| take_back(scope, before))
}

/// Tells systemd what it was told before. The error that led here matters more than one of this.
fn take_back(scope: &Scope, before: &LinuxResources) {
    let _ = scope.update(before);
}

fn from_flags(arguments: &Arguments) -> Result<Value, Failure> {
    let mut resources = json!({});
    for (flag, object, field, kind) in FIELDS {
        let Some(text) = arguments.text(flag)? else {
            continue;
        };
        resources[*object][*field] = match kind {
            Kind::Number => number::<i64>(flag, text)?.into(),
            Kind::Bytes => bytes(flag, text)?.into(),
            Kind::Text => text.into(),
        };
    }
    Ok(resources)
}

/// A size: a number of bytes, or with a unit that is a power of 1024 (`64m`, `1.5G`, `2GiB`); -1 is no limit.
fn bytes(flag: &str, text: &str) -> Result<i64, Failure> {
    if text == "-1" {
        return Ok(-1);
    }
    size(text).ok_or_else(|| usage(format!("--{flag} is {text:?}, which is not a size such as 64m.")))
}

fn size(text: &str) -> Option<i64> {
    const UNITS: [&str; 6] = ["", "k", "m", "g", "t", "p"];
    /// Nobody writes more digits after the point.
    const DIGITS: usize = 9;
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.trim_start().to_ascii_lowercase();
    let unit = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit);
    let scale = 1_i128 << (10 * UNITS.iter().position(|known| *known == unit)?);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction: String = format!("{fraction:0<DIGITS$}").chars().take(DIGITS).collect();
    let (whole, fraction): (i64, i64) = (whole.parse().ok()?, fraction.parse().ok()?);
    let total = i128::from(whole) * scale + i128::from(fraction) * scale / 1_000_000_000;
    i64::try_from(total).ok()
}

/// Adds what one value implies for another, and leaves out what can't be changed.
fn normalise(resources: &mut Value) {
    if let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut)
        && memory.get("limit") == Some(&json!(-1))
        && memory.get("swap").is_none_or(|swap| *swap == json!(0))
    {
        // Without a limit for memory there is none for memory and swap.
        memory.insert("swap".to_owned(), json!(-1));
    }
    if let Some(object) = resources.as_object_mut() {
        // Callers pass the whole of linux.resources. Device rules stay: others may have added to them.
        object.remove("devices");
    }
}

fn forget_kernel_memory(resources: &mut Value) -> bool {
    let Some(memory) = resources.get_mut("memory").and_then(Value::as_object_mut) else {
        return false;
    };
    let (kernel, tcp) = (memory.remove("kernel"), memory.remove("kernelTCP"));
    kernel.is_some_and(|v| v != json!(0)) || tcp.is_some_and(|v| v != json!(0))
}

fn read(path: &str) -> Result<Value, Failure> {
    let mut text = String::new();
    if path == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .attempt(|| "read the resources".to_owned())?;
    } else {
        text = std::fs::read_to_string(path).attempt(|| format!("read {path}"))?;
    }
    let resources: Value = serde_json::from_str(&text)
        .map_err(|e| usage(format!("The resources in {path} are not valid: {e}.")))?;
    if resources.is_object() {
        Ok(resources)
    } else {
        Err(usage(format!(
            "The resources in {path} are not valid: they are no object."
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, expected) in [
            ("-1", -1),
            ("0", 0),
            ("1048576", 1 << 20),
            ("1m", 1 << 20),
            ("1M", 1 << 20),
            ("1mb", 1 << 20),
            ("1MiB", 1 << 20),
            ("2 gb", 2 << 30),
            ("1.5k", 1536),
            ("7b", 7),
        ] {
            assert_eq!(bytes("memory", text).unwrap(), expected, "{text}");
        }
        for text in [
            "",
            "m",
            "-2",
            "1x",
            "1.5.5k",
            "1e9",
            ".k",
            "9223372036854775808",
            "9999999p",
            "0x10",
        ] {
            assert!(bytes("memory", text).is_err(), "{text}");
        }
    }

    #[test]
    fn unlimited_memory_is_unlimited_with_swap() {
        for (memory, expected) in [
            (json!({ "limit": -1 }), json!({ "limit": -1, "swap": -1 })),
            (
                json!({ "limit": -1, "swap": 0 }),
                json!({ "limit": -1, "swap": -1 }),
            ),
            (json!({ "limit": 5 }), json!({ "limit": 5 })),
            (
                json!({ "limit": -1, "swap": 7 }),
                json!({ "limit": -1, "swap": 7 }),
            ),
        ] {
            let mut resources = json!({ "memory": memory, "devices": [] });
            normalise(&mut resources);
            assert_eq!(resources, json!({ "memory": expected }));
        }
    }

    #[test]
    fn kernel_memory_is_left_out() {
        let mut resources = json!({ "memory": { "limit": 1, "kernel": 5 } });
        assert!(forget_kernel_memory(&mut resources));
        assert_eq!(resources, json!({ "memory": { "limit": 1 } }));
        assert!(!forget_kernel_memory(&mut json!({ "memory": { "kernel": 0 } })));
        assert!(!forget_kernel_memory(&mut json!({})));
    }
}
