//! Commands that ask whoever runs a pod.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use berth_kubelet::standalone::{Caller, Host, Places, TakeOver};

use crate::builtin_image;
use crate::preflight;
use crate::root::{EngineOptions, Root};
use crate::rootless::Rootless;
use crate::runtime::Runtime;

/// This program and the places it was given, for when nobody runs a pod.
struct Program {
    root: Root,
    cgroup_root: PathBuf,
}

/// Asks about the pods of this node.
pub(crate) fn caller(root: &Root, cgroup_root: &std::path::Path) -> Caller {
    let program = Program {
        root: root.clone(),
        cgroup_root: cgroup_root.to_owned(),
    };
    Caller::new(places(root), Arc::new(program))
}

/// Where the pods of this node are.
pub(crate) fn places(root: &Root) -> Places {
    Places {
        kubelet_root: root.kubelet.clone(),
        log_root: root.pod_logs.clone(),
        run_root: root.run.clone(),
    }
}

/// The machine's side of this node.
pub(crate) fn host(
    root: &Root,
    cgroup_root: &std::path::Path,
    options: &EngineOptions,
) -> Result<Host, String> {
    let engine = root.engine(options).map_err(|error| error.to_string())?;
    let runtime = Runtime {
        engine: Arc::new(engine),
        endpoint: None,
    };
    Ok(host_with(root, cgroup_root, runtime))
}

/// The machine's side of this node with a runtime.
pub(crate) fn host_with(root: &Root, cgroup_root: &std::path::Path, runtime: Runtime) -> Host {
    Host {
        engine: runtime.engine,
        runtime_endpoint: runtime.endpoint,
        kubelet_root: root.kubelet.clone(),
        log_root: root.pod_logs.clone(),
        run_root: root.run.clone(),
        cgroup_root: cgroup_root.to_owned(),
        restart_backoff: Default::default(),
        allowed_sysctls: Default::default(),
        extended_resources: Default::default(),
        node_labels: Default::default(),
        max_pods: None,
        without_cgroups: Rootless::here().is_some_and(|here| !here.has_groups()),
        lacking: Rootless::here().map(|here| here.lacking()).unwrap_or_default(),
    }
}

#[async_trait::async_trait]
impl TakeOver for Program {
    fn host(&self) -> Result<Host, String> {
        preflight::check()?;
        // Nothing is started, so no log is ever rotated.
        host(&self.root, &self.cgroup_root, &EngineOptions::default())
    }

    async fn start_daemon(&self) -> Result<(), String> {
        if places(&self.root).daemon().is_some() {
            return Ok(());
        }
        preflight::check()?;
        // Said here, where somebody reads it.
        let engine = self
            .root
            .engine(&EngineOptions::default())
            .map_err(|error| error.to_string())?;
        builtin_image::import(engine.images())?;
        drop(engine);
        let program =
            std::env::current_exe().map_err(|error| format!("berth can't find itself: {error}."))?;
        let mut command = Command::new(program);
        if let Some(directory) = self.root.given() {
            command.arg("--root").arg(directory);
        }
        command
            .arg("--cgroup-root")
            .arg(&self.cgroup_root)
            .args(["daemon", "--background"])
            .stdin(Stdio::null());
        let output = command
            .output()
            .map_err(|error| format!("The daemon can't be started: {error}."))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "The daemon can't be started: {}",
            said.trim().trim_start_matches("berth: ")
        ))
    }
}
