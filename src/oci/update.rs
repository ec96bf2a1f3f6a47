//! `update`: changes the limits of a container.

use std::io::Read;
use std::process::ExitCode;

use berth_runtime::cgroups::Cgroup;
use berth_runtime::oci::LinuxResources;
use lexopt::Arg;
use serde_json::{Value, json};

use crate::failure::{Attempt, Failure, usage};
use crate::options::{Global, number, text};

/// Options that set one field of `linux.resources`: name, object, field.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("memory", "memory", "limit"),
    ("memory-swap", "memory", "swap"),
    ("memory-reservation", "memory", "reservation"),
    ("cpu-shares", "cpu", "shares"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-period", "cpu", "period"),
    ("pids-limit", "pids", "limit"),
];

/// Applies `linux.resources` from a file, from standard input (`-r -`), or from single options.
pub(crate) fn main(global: &Global, mut parser: lexopt::Parser) -> Result<ExitCode, Failure> {
    let (mut id, mut resources) = (None, json!({}));
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("resources") | Arg::Short('r') => resources = read(&text(parser.value()?)?)?,
            Arg::Long("cpuset-cpus") => resources["cpu"]["cpus"] = text(parser.value()?)?.into(),
            Arg::Long("cpuset-mems") => resources["cpu"]["mems"] = text(parser.value()?)?.into(),
            Arg::Long(name) => match NUMBERS.iter().find(|(option, ..)| *option == name) {
                Some((_, object, field)) => {
                    let value: i64 = number(&mut parser)?;
                    resources[*object][*field] = value.into();
                }
                None => return Err(argument.unexpected().into()),
            },
            Arg::Value(value) if id.is_none() => id = Some(text(value)?),
            Arg::Value(_) | Arg::Short(_) => return Err(argument.unexpected().into()),
        }
    }
    let id = id.ok_or_else(|| usage("The container's id is missing."))?;
    let resources: LinuxResources =
        serde_json::from_value(resources).map_err(|e| usage(format!("The resources are not valid: {e}.")))?;
    let state = global.root.open(&id)?;
    let record = state.record()?;
    match Cgroup::open(&record.cgroup)? {
        Some(cgroup) => cgroup.apply(&resources)?,
        None => return Err(usage(format!("The container {id} has no cgroup."))),
    }
    Ok(ExitCode::SUCCESS)
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
    serde_json::from_str(&text).map_err(|e| usage(format!("The resources in {path} are not valid: {e}.")))
}
