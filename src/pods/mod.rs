//! `berth ps`, `status`, `logs` and `stop`: the pods of this node, whoever runs them.

mod logs;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use berth_kubelet::standalone::{self, Format, Host, Places};
use clap::Args;

use crate::preflight;
use crate::root::{EngineOptions, Root};

pub(crate) use logs::{LogsArgs, logs};

/// Which pod.
#[derive(Args, Debug)]
pub(crate) struct PodArg {
    /// The pod: NAME, NAMESPACE/NAME or pod/NAME
    #[arg(value_name = "POD")]
    pod: String,

    /// The pod's namespace
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
}

impl PodArg {
    /// The pod as the node's commands take it.
    fn name(&self) -> String {
        match &self.namespace {
            Some(namespace) => {
                let name = self
                    .pod
                    .rsplit_once('/')
                    .map_or(self.pod.as_str(), |(_, name)| name);
                format!("{namespace}/{name}")
            }
            None => self.pod.clone(),
        }
    }
}

/// Runs a command that waits for several things at a time.
fn on_this_thread<F: Future>(future: F) -> Result<F::Output, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    Ok(runtime.block_on(future))
}

/// Show a pod with its status, as `kubectl get pod -o yaml` does
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pod: PodArg,

    /// yaml or json
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

/// End a pod that a killed berth left behind
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    pod: PodArg,
}

fn places(root: &Root) -> Places {
    Places {
        kubelet_root: root.kubelet.clone(),
        log_root: root.pod_logs.clone(),
    }
}

/// Lists the pods. The error is a message for the person who typed the command.
pub(crate) fn ps(root: &Root) -> Result<ExitCode, String> {
    print!("{}", places(root).table().map_err(|error| error.to_string())?);
    Ok(ExitCode::SUCCESS)
}

/// Shows a pod.
pub(crate) fn status(args: &StatusArgs, root: &Root) -> Result<ExitCode, String> {
    let pod = places(root)
        .pod(&args.pod.name())
        .map_err(|error| error.to_string())?;
    print!("{}", standalone::show(&[pod], args.output));
    Ok(ExitCode::SUCCESS)
}

/// Ends a pod.
pub(crate) fn stop(args: &StopArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    preflight::check()?;
    on_this_thread(async {
        // Nothing is started, so no log is ever rotated.
        let engine = root
            .engine(&EngineOptions::default())
            .map_err(|error| error.to_string())?;
        let host = Host {
            engine: Arc::new(engine),
            kubelet_root: root.kubelet.clone(),
            log_root: root.pod_logs.clone(),
            cgroup_root: cgroup_root.to_owned(),
            restart_backoff: Default::default(),
        };
        standalone::stop(host, &args.pod.name())
            .await
            .map_err(|error| error.to_string())
    })??;
    Ok(ExitCode::SUCCESS)
}
