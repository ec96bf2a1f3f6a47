//! `berth ps`, `status`, `logs` and `stop`: the pods of this node, whoever runs them.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use berth_kubelet::logs::Stream;
use berth_kubelet::standalone::{self, Format, Host, Places};
use clap::Args;

use crate::preflight;
use crate::root::{EngineOptions, Root};

/// Show a pod with its status, as `kubectl get pod -o yaml` does
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// The pod: NAME or NAMESPACE/NAME
    pod: String,

    /// yaml or json
    #[arg(short, long, value_name = "FORMAT", default_value = "yaml")]
    output: Format,
}

/// Print what a container has written
#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// The pod: NAME or NAMESPACE/NAME
    pod: String,

    /// Which container; needed if there are several
    #[arg(short, long, value_name = "NAME")]
    container: Option<String>,

    /// What the container before the last restart has written
    #[arg(short, long)]
    previous: bool,

    /// Begin each line with its time
    #[arg(long)]
    timestamps: bool,
}

/// End a pod that a killed berth left behind
#[derive(Args, Debug)]
pub(crate) struct StopArgs {
    /// The pod: NAME or NAMESPACE/NAME
    pod: String,
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
    let pod = places(root).pod(&args.pod).map_err(|error| error.to_string())?;
    print!("{}", standalone::show(&[pod], args.output));
    Ok(ExitCode::SUCCESS)
}

/// Prints a log: each line to the stream that the container wrote it to.
pub(crate) fn logs(args: &LogsArgs, root: &Root) -> Result<ExitCode, String> {
    let places = places(root);
    let result = places.log(&args.pod, args.container.as_deref(), args.previous, |line| {
        let mut text = Vec::new();
        if args.timestamps {
            text.extend_from_slice(line.time.as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&line.text);
        text.push(b'\n');
        // A reader that has seen enough is no failure.
        let _ = match line.stream {
            Stream::Stdout => std::io::stdout().write_all(&text),
            Stream::Stderr => std::io::stderr().write_all(&text),
        };
    });
    result.map_err(|error| error.to_string())?;
    Ok(ExitCode::SUCCESS)
}

/// Ends a pod.
pub(crate) fn stop(args: &StopArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    preflight::check()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    runtime.block_on(async {
        // Nothing is started, so no log is ever rotated.
        let engine = root
            .engine(&EngineOptions::default())
            .map_err(|error| error.to_string())?;
        let host = Host {
            engine: Arc::new(engine),
            kubelet_root: root.kubelet.clone(),
            log_root: root.pod_logs.clone(),
            cgroup_root: cgroup_root.to_owned(),
        };
        standalone::stop(host, &args.pod)
            .await
            .map_err(|error| error.to_string())
    })?;
    Ok(ExitCode::SUCCESS)
}
