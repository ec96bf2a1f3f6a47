//! `berth wait`: until pods are as somebody wants them.

use std::process::ExitCode;
use std::time::Duration;

use berth_kubelet::standalone::{Until, parse_duration};
use clap::Args;

use super::which::Which;
use super::{on_this_thread, places, shown};
use crate::root::Root;

/// Wait until pods are ready, gone, or anything else that their status tells
#[derive(Args, Debug)]
pub(crate) struct WaitArgs {
    #[command(flatten)]
    which: Which,

    /// The pods' namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// condition=NAME[=VALUE], jsonpath=PATH[=VALUE], create or delete
    #[arg(long = "for", value_name = "WHAT")]
    until: Until,

    /// Give up after this time; 0 looks once
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
    timeout: Duration,
}

/// Waits. Exit code 1 if the time is over before.
pub(crate) fn wait(args: &WaitArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    on_this_thread(async {
        let deadline = tokio::time::Instant::now() + args.timeout;
        let pods = args.which.names(&places, args.namespace.as_deref())?;
        if pods.is_empty() {
            return Err("There is no such pod to wait for.".to_owned());
        }
        for pod in &pods {
            match tokio::time::timeout_at(deadline, places.wait(pod, &args.until)).await {
                Ok(waited) => waited.map_err(|error| error.to_string())?,
                Err(_) => {
                    return Err(format!(
                        "timed out waiting for the condition on pods/{}",
                        shown(pod)
                    ));
                }
            }
            println!("pod/{} condition met", shown(pod));
        }
        Ok(ExitCode::SUCCESS)
    })?
}
