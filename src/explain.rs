//! `berth explain`: the fields of manifests.

use std::process::ExitCode;

use berth_kubelet::manifest;
use clap::Args;

use crate::print::sentence;

/// Describe a field of a manifest: its type, what it is for, its default and values, its own fields, and what berth does with it
#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// For instance pod.spec.containers.livenessProbe
    #[arg(value_name = "FIELD")]
    field: String,

    /// All fields below it, by name and type
    #[arg(long)]
    recursive: bool,
}

/// Describes it.
pub(crate) fn run(args: &ExplainArgs) -> Result<ExitCode, String> {
    print!(
        "{}",
        manifest::explain(&args.field, args.recursive).map_err(|error| sentence(&error))?
    );
    Ok(ExitCode::SUCCESS)
}
