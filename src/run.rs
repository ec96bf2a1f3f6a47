//! `berth run`: pods from manifests, in the foreground.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use berth_cri::LocalEngine;
use berth_kubelet::manifest::Manifest;
use berth_kubelet::standalone::{self, Format, Taken, Workload};
use clap::Args;

use crate::builtin_image;
use crate::files::{Files, make_claims};
use crate::node_args::NodeArgs;
use crate::pods::{caller, host_with, on_this_thread, show_first_pulls};
use crate::preflight;
use crate::root::Root;
use crate::rootless::Rootless;
use crate::runtime::{self, Runtime, RuntimeArgs};

/// Run pods from manifests until they end, or until Ctrl-C ends them
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    files: Files,

    /// Only warn of fields that are unknown or not supported, and of other kinds of documents, and leave them out
    #[arg(long)]
    lenient: bool,

    /// Hand the pods to the daemon and return, on a terminal once their images are here; `berth logs -f` shows them, `berth stop`
    /// ends them
    #[arg(
        short,
        long,
        group = "handed_over",
        conflicts_with = "output",
        conflicts_with = "container_runtime_endpoint"
    )]
    detach: bool,

    /// Print the pods with their last status when they have ended
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,

    #[command(flatten)]
    node: NodeArgs,

    #[command(flatten)]
    runtime: RuntimeArgs,
}

impl RunArgs {
    fn container_runtime_is_given(&self) -> bool {
        self.runtime.container_runtime_endpoint.is_some()
    }
}

/// Runs the pods. The error is a message for the person who typed the command.
pub(crate) fn run(args: &RunArgs, root: &Root, cgroup_root: &Path) -> Result<ExitCode, String> {
    let manifest = args.files.load(args.lenient, root)?;
    for warning in &manifest.warnings {
        eprintln!("warning: {warning}");
    }
    if manifest.pods.is_empty() {
        return Err(format!("There is no Pod in {}.", args.files));
    }
    preflight::check()?;
    if let Some(why) = Rootless::here().as_ref().and_then(Rootless::alone) {
        eprintln!(
            "warning: your pods reach each other and nothing else, and no image can be pulled for them: {why}; `berth image \
             pull` uses the machine's network"
        );
    }
    if args.container_runtime_is_given() && Rootless::here().is_some() {
        return Err(
            "Pods on another runtime need control groups, which an ordinary user does not have; run berth as root."
                .to_owned(),
        );
    }
    let claims = make_claims(&manifest, root, false)?;
    if args.detach {
        claims.iter().for_each(|line| println!("{line}"));
        return detach(root, cgroup_root, manifest);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("The kernel gives no event queue: {error}."))?;
    let ended = runtime.block_on(run_pods(args, root, cgroup_root, manifest))?;
    if let Some(format) = args.output {
        print!("{}", standalone::show(&ended.pods, format));
    }
    Ok(ExitCode::from(ended.exit_code))
}

/// Hands the pods to the daemon.
fn detach(root: &Root, cgroup_root: &Path, manifest: Manifest) -> Result<ExitCode, String> {
    let caller = caller(root, cgroup_root);
    let pods: Vec<_> = manifest.pods.into_iter().map(|(_, pod)| pod).collect();
    on_this_thread(async {
        let workload = Workload {
            pods,
            objects: manifest.objects,
        };
        let taken = caller.run(workload.pods.clone(), &workload.objects).await;
        for Taken { pod, unchanged } in taken.map_err(|error| error.to_string())? {
            let name = pod.strip_prefix("default/").unwrap_or(&pod);
            println!("pod/{name} {}", if unchanged { "unchanged" } else { "created" });
        }
        show_first_pulls(root, &caller, &workload).await;
        Ok(ExitCode::SUCCESS)
    })?
}

async fn run_pods(
    args: &RunArgs,
    root: &Root,
    cgroup_root: &Path,
    manifest: Manifest,
) -> Result<standalone::Ended, String> {
    let runtime = match &args.runtime.container_runtime_endpoint {
        Some(endpoint) => {
            let ca = args.runtime.container_runtime_streaming_ca.as_deref();
            runtime::connect(endpoint, ca).await?
        }
        None => built_in(args, root).await?,
    };
    let pods = manifest.pods.into_iter().map(|(_, pod)| pod).collect();
    let workload = Workload {
        pods,
        objects: manifest.objects,
    };
    runtime::check_images(&runtime, &workload).await?;
    let host = args.node.applied(host_with(root, cgroup_root, runtime));
    standalone::run(host, workload)
        .await
        .map_err(|error| error.to_string())
}

/// berth's own engine, with the image inside the program.
async fn built_in(args: &RunArgs, root: &Root) -> Result<Runtime, String> {
    let engine = root
        .engine(&args.node.engine())
        .map_err(|error| error.to_string())?;
    builtin_image::import(engine.images())?;
    tidy_network(&engine).await;
    Ok(Runtime {
        engine: Arc::new(engine),
        endpoint: None,
    })
}

/// Takes back what pods of killed berths still hold of the network, and says what of the host is in the way of new ones.
/// Neither keeps pods from being tried.
async fn tidy_network(engine: &LocalEngine) {
    if let Err(error) = engine.reconcile_network().await {
        eprintln!("warning: {error}");
    }
    for advice in engine.network_advice().await {
        eprintln!("warning: {advice}");
    }
}
