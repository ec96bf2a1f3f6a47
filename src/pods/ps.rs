//! `berth ps`: the pods of this node and who runs them.

use std::process::ExitCode;

use berth_kubelet::standalone::{InspectError, Listing, Selector, View};
use clap::Args;

use super::{in_namespace, places};
use crate::root::Root;

/// List the pods of this node and who runs them
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// Only these, even if they have ended: NAME or NAMESPACE/NAME
    #[arg(value_name = "POD")]
    pods: Vec<String>,

    /// Also those that have ended
    #[arg(short, long)]
    all: bool,

    /// Only those of this namespace; without it, those of all
    #[arg(short, long, value_name = "NAMESPACE", conflicts_with = "all_namespaces")]
    namespace: Option<String>,

    /// Those of all namespaces, as without --namespace
    #[arg(short = 'A', long)]
    all_namespaces: bool,

    /// Only those with such labels: app=web,tier!=front or 'tier in (a, b)'
    #[arg(
        short = 'l',
        long,
        value_name = "LABELS",
        default_value = "",
        hide_default_value = true
    )]
    selector: Selector,

    /// table, wide, name, json, yaml, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    output: View,

    /// Print only names, as `-o name` does
    #[arg(short, long, conflicts_with = "output")]
    quiet: bool,

    /// Leave out the line of the columns' names
    #[arg(long)]
    no_headers: bool,
}

/// Lists the pods. The error is a message for the person who typed the command.
pub(crate) fn ps(args: &PsArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    let failed = |error: InspectError| error.to_string();
    let namespace = args.namespace.as_deref();
    let view = if args.quiet { &View::Name } else { &args.output };
    let listing = Listing {
        all: args.all,
        namespace: args.namespace.clone().filter(|_| !args.all_namespaces),
        names: args.pods.iter().map(|pod| in_namespace(pod, namespace)).collect(),
        selector: args.selector.clone(),
        wide: *view == View::Wide,
        without_header: args.no_headers,
    };
    if matches!(view, View::Table | View::Wide) {
        print!("{}", places.table(&listing).map_err(failed)?);
        return Ok(ExitCode::SUCCESS);
    }
    let pods = places.list(&listing).map_err(failed)?;
    let items: Vec<_> = pods
        .iter()
        .filter_map(|pod| serde_json::to_value(pod).ok())
        .collect();
    print!("{}", view.print("pod", &items, false).unwrap_or_default());
    Ok(ExitCode::SUCCESS)
}
