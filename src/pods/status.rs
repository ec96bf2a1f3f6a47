//! `berth status`: a pod with its status.

use std::process::ExitCode;

use berth_kubelet::standalone::{self, Format};
use clap::Args;

use super::{PodArg, places};
use crate::root::Root;

/// Show a pod with its status, as `kubectl get pod -o yaml` does
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pod: PodArg,

    /// yaml or json
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

/// Shows a pod.
pub(crate) fn status(args: &StatusArgs, root: &Root) -> Result<ExitCode, String> {
    let pod = places(root)
        .pod(&args.pod.name())
        .map_err(|error| error.to_string())?;
    print!("{}", standalone::show(&[pod], args.output));
    Ok(ExitCode::SUCCESS)
}
