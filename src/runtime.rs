//! Which engine runs pods: the built-in one, or another runtime behind its CRI socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use berth_cri::{CgroupDriver, Engine, EngineError, RemoteEngine, RuntimeCondition};
use berth_kubelet::standalone::Workload;
use clap::Args;

use crate::builtin_image;

/// Where containers are run.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct RuntimeArgs {
    /// Let the runtime behind this CRI socket run the pods instead of berth itself: unix:///run/containerd/containerd.sock
    #[arg(long, value_name = "ENDPOINT", group = "logged_elsewhere")]
    pub(crate) container_runtime_endpoint: Option<String>,
    /// Believe certificates of the authorities in this file (PEM) where that runtime's streaming server has TLS.
    #[arg(long, value_name = "FILE", requires = "container_runtime_endpoint")]
    pub(crate) container_runtime_streaming_ca: Option<PathBuf>,
}

/// An engine, and where the runtime behind it listens.
pub(crate) struct Runtime {
    /// What runs containers.
    pub(crate) engine: Arc<dyn Engine>,
    /// `None` for the built-in one.
    pub(crate) endpoint: Option<String>,
}

/// The runtime at an endpoint, if pods can be run on it. The error is a message for the person who typed the command.
pub(crate) async fn connect(endpoint: &str, streaming_ca: Option<&Path>) -> Result<Runtime, String> {
    let engine = RemoteEngine::connect_with(endpoint, streaming_ca)
        .await
        .map_err(|error| error.to_string())?;
    match engine.cgroup_driver().await {
        // Runtimes before 1.28 don't tell; one that has another driver refuses the first container.
        Ok(CgroupDriver::Cgroupfs) | Err(EngineError::Unimplemented(_)) => {}
        Ok(CgroupDriver::Systemd) => {
            return Err(format!(
                "{} lets systemd make cgroups, and berth run makes its pods' cgroups by files; set the runtime's cgroup driver \
                 to cgroupfs (containerd: SystemdCgroup = false).",
                engine.who()
            ));
        }
        Err(error) => return Err(error.to_string()),
    }
    let status = engine.status(false).await.map_err(|error| error.to_string())?;
    // Runtimes have others of their own, which keep no pod from running.
    let needed = |kind: &str| ["RuntimeReady", "NetworkReady"].contains(&kind);
    let lacking = |condition: &&RuntimeCondition| !condition.status && needed(&condition.kind);
    for condition in status.conditions.iter().filter(lacking) {
        eprintln!(
            "warning: {} is not ready: {} is false: {} {}",
            engine.who(),
            condition.kind,
            condition.reason,
            condition.message
        );
    }
    let endpoint = Some(engine.endpoint().to_owned());
    Ok(Runtime {
        engine: Arc::new(engine),
        endpoint,
    })
}

/// Refuses what only berth's own engine has: the image inside the program.
pub(crate) async fn check_images(runtime: &Runtime, workload: &Workload) -> Result<(), String> {
    let (Some(endpoint), true) = (&runtime.endpoint, workload.images().contains(builtin_image::NAME)) else {
        return Ok(());
    };
    let there = runtime.engine.image_status(builtin_image::NAME).await;
    match there.map_err(|error| error.to_string())? {
        Some(_) => Ok(()),
        None => Err(format!(
            "The image {} is inside berth, and the runtime at {endpoint} does not have it; name another image, or run the pod \
             without --container-runtime-endpoint.",
            builtin_image::NAME
        )),
    }
}
