//! `berth top`: the processes of a pod.

use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone::{CallError, Process, View, binary_bytes, processes, table};
use clap::Args;

use super::{PodArg, caller, on_this_thread};
use crate::root::Root;

/// Show the processes of a pod's containers, as the host numbers them
#[derive(Args, Debug)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    pod: PodArg,

    /// Only those of this container
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// table, json, yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
}

/// Shows them.
pub(crate) fn top(args: &TopArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    let containers = on_this_thread(async {
        if let Some(name) = &args.container {
            caller.places().choose(&pod, Some(name))?;
        }
        caller.containers(&pod).await
    })?;
    let mut containers = containers.map_err(|error: CallError| error.to_string())?;
    containers.retain(|container| args.container.as_ref().is_none_or(|name| container.name == *name));
    let found = processes(&containers);
    if found.is_empty() {
        return Err(format!("No container of pod {pod} runs, so it has no processes."));
    }
    let values: Vec<_> = found
        .iter()
        .filter_map(|one| serde_json::to_value(one).ok())
        .collect();
    let text = args.output.print("process", &values, false).unwrap_or_else(|| {
        let header = [
            "CONTAINER",
            "UID",
            "PID",
            "PPID",
            "STATE",
            "TIME",
            "RSS",
            "COMMAND",
        ];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        rows.extend(found.iter().map(row));
        table(&rows)
    });
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn row(process: &Process) -> Vec<String> {
    let seconds = process.cpu / 100;
    vec![
        process.container.clone(),
        process.uid.to_string(),
        process.pid.to_string(),
        process.ppid.to_string(),
        process.state.to_string(),
        format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60),
        binary_bytes(process.resident),
        process.command.clone(),
    ]
}
