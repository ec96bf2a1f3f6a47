//! `berth port-forward`: local ports that lead to a pod's loopback.

use std::path::Path;
use std::process::ExitCode;

use berth_kubelet::standalone::{LocalAddress, forward, parse_ports};
use clap::Args;

use super::{PodArg, caller, on_this_thread};
use crate::root::Root;

/// Forward local TCP ports to a pod, until Ctrl-C
#[derive(Args, Debug)]
pub(crate) struct PortForwardArgs {
    #[command(flatten)]
    pod: PodArg,

    /// LOCAL:REMOTE, PORT (the same for both) or :REMOTE (any that is free); REMOTE may be the name of a container's port
    #[arg(required = true, value_name = "PORTS")]
    ports: Vec<String>,

    /// Listen on these addresses; localhost is 127.0.0.1 and, where there is IPv6, ::1
    #[arg(
        long,
        value_name = "ADDRESS",
        value_delimiter = ',',
        default_value = "localhost"
    )]
    address: Vec<LocalAddress>,
}

/// Forwards.
pub(crate) fn port_forward(
    args: &PortForwardArgs,
    root: &Root,
    cgroup_root: &Path,
) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pod = args.pod.name();
    let manifest = caller.places().pod(&pod).map_err(|error| error.to_string())?;
    let phase = manifest
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    if let Some(phase @ ("Succeeded" | "Failed")) = phase {
        return Err(format!(
            "Pod {pod} has ended ({phase}), so that nothing listens in it any more."
        ));
    }
    let ports = args
        .ports
        .iter()
        .map(|text| parse_ports(text, &manifest).map_err(|error| format!("{error}.")))
        .collect::<Result<Vec<_>, String>>()?;
    let say = |text: &str| match text.strip_prefix("error: ") {
        Some(_) => eprintln!("{text}"),
        None => println!("{text}"),
    };
    on_this_thread(forward(&caller, &pod, &ports, &args.address, say))?.map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}
