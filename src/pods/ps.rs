//! `berth ps`: the pods of this node and who runs them.

use std::process::ExitCode;

use berth_kubelet::standalone::{InspectError, View};
use clap::Args;

use super::places;
use crate::root::Root;

/// List the pods of this node and who runs them
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// Also those that have ended
    #[arg(short, long)]
    all: bool,

    /// table, wide, name, json, yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,
}

/// Lists the pods. The error is a message for the person who typed the command.
pub(crate) fn ps(args: &PsArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    let failed = |error: InspectError| error.to_string();
    let pods = places.pods(args.all).map_err(failed)?;
    let items: Vec<_> = pods
        .iter()
        .filter_map(|pod| serde_json::to_value(pod).ok())
        .collect();
    let text = match args.output.print("pod", &items, false) {
        Some(text) => text,
        None => places
            .table(args.all, args.output == View::Wide)
            .map_err(failed)?,
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}
