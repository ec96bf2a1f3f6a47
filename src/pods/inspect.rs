//! `berth inspect`: everything that is known of pods.

use std::process::ExitCode;

use berth_kubelet::standalone::View;
use clap::Args;

use super::{in_namespace, places};
use crate::root::Root;

/// Show pods with their status
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// The pods: NAME or NAMESPACE/NAME
    #[arg(required = true, value_name = "POD")]
    pods: Vec<String>,

    /// The pods' namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// json, yaml, name, jsonpath=… or custom-columns=…
    #[arg(short, long, value_name = "FORMAT", default_value = "json")]
    output: View,
}

/// Shows them; one as itself, several as a List.
pub(crate) fn inspect(args: &InspectArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    let mut items = Vec::new();
    for pod in &args.pods {
        let pod = places
            .pod(&in_namespace(pod, args.namespace.as_deref()))
            .map_err(|error| error.to_string())?;
        items.extend(serde_json::to_value(pod));
    }
    match args.output.print("pod", &items, true) {
        Some(text) => print!("{text}"),
        None => return Err("`berth inspect` has no table; `berth ps -o wide` has.".to_owned()),
    }
    Ok(ExitCode::SUCCESS)
}
