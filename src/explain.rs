//! `berth explain`: the fields of manifests.

use std::process::ExitCode;

use berth_kubelet::manifest;
use clap::Args;

/// Describe a field of a manifest: its type, its own fields, and what berth does with it
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// For instance pod.spec.containers.livenessProbe
    #[arg(value_name = "FIELD")]
    field: String,
}

/// Describes it.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, String> {
    print!("{}", manifest::explain(&args.field)?);
    Ok(ExitCode::SUCCESS)
}
