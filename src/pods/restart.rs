//! `berth restart`: containers that are started anew.

use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone::{CallError, Workload};
use clap::Args;

use super::{PodArg, caller, on_this_thread, show_pulls_again};
use crate::root::Root;

/// Start running containers of a pod anew, in their grace period and without a back-off
#[derive(Args, Debug)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pod: PodArg,

    /// Which containers; without one, all that run
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Restarts.
pub(crate) fn restart(args: &RestartArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    on_this_thread(async {
        for container in &args.containers {
            caller.places().choose(&pod, Some(container))?;
        }
        let running = caller.containers(&pod).await?;
        let running = running
            .into_iter()
            .filter(|container| container.state == "running");
        let mut names: Vec<String> = running.map(|container| container.name).collect();
        if !args.containers.is_empty() {
            names.retain(|name| args.containers.contains(name));
        }
        if names.is_empty() {
            return Err(CallError::Refused(format!(
                "No such container of pod {pod} runs, so there is none to start anew."
            )));
        }
        let before = caller
            .places()
            .restart_counts(&pod, |name| names.iter().any(|one| one == name));
        caller.restart(&pod, names.clone()).await?;
        names.iter().for_each(|name| println!("{name}"));
        // One that has gone meanwhile has nothing to show.
        if let Ok(now) = caller.places().pod(&pod) {
            let workload = Workload {
                pods: vec![now],
                ..Workload::default()
            };
            show_pulls_again(root, &caller, workload, &before).await;
        }
        Ok(())
    })?
    .map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
