//! Where a node keeps its things, and the engine over them.

use std::path::{Path, PathBuf};

use berth_cri::{EngineConfig, EngineError, LocalEngine};
use berth_images::Store;

/// The directories of a node. One `--root` moves all of them, so that several nodes fit on one machine.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    /// What survives a reboot.
    pub(crate) lib: PathBuf,
    /// What does not.
    pub(crate) run: PathBuf,
    /// Pods' volumes and records.
    pub(crate) kubelet: PathBuf,
    /// Containers' logs.
    pub(crate) pod_logs: PathBuf,
    /// Network configurations.
    cni_conf: PathBuf,
    /// Network plugins, the preferred directory first.
    cni_bin: Vec<PathBuf>,
}

impl Root {
    /// The usual places, or all of them beneath one directory.
    ///
    /// # Errors
    /// The directory of this process is gone, so that a relative path leads nowhere.
    pub(crate) fn new(directory: Option<&Path>) -> Result<Self, String> {
        let given = directory.unwrap_or_else(|| Path::new("/"));
        // Records outlive the directory that the command was typed in.
        let beneath = std::path::absolute(given)
            .map_err(|error| format!("The directory {} can't be used: {error}.", given.display()))?;
        Ok(Self {
            lib: beneath.join("var/lib/berth"),
            run: beneath.join("run/berth"),
            // Not `/var/lib/kubelet` and `/var/log/pods`: a stock kubelet on the same machine removes pods from there
            // that it does not know.
            kubelet: beneath.join("var/lib/berth/kubelet"),
            pod_logs: beneath.join("var/log/berth/pods"),
            cni_conf: beneath.join("etc/cni/net.d"),
            // Plugins are programs of the machine, not state of a node.
            cni_bin: vec![
                beneath.join("opt/cni/bin"),
                "/opt/cni/bin".into(),
                "/usr/lib/cni".into(),
            ],
        })
    }

    /// The directory of the image store.
    pub(crate) fn images(&self) -> PathBuf {
        self.lib.join("images")
    }

    /// The engine over these directories.
    pub(crate) fn engine(&self, logs: LogLimits) -> Result<LocalEngine, EngineError> {
        let images =
            Store::open(&self.images()).map_err(|error| EngineError::Unavailable(format!("{error}.")))?;
        let network =
            berth_cni::CniConfig::new(self.cni_conf.clone(), self.cni_bin.clone(), self.lib.join("cni"));
        let config = EngineConfig {
            lib_dir: self.lib.clone(),
            run_dir: self.run.clone(),
            shim_program: shim_program(),
            network,
            log_max_size: logs.max_size,
            log_max_files: logs.max_files,
        };
        LocalEngine::open(config, images)
    }
}

/// When container logs are rotated, and how many are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    /// Bytes.
    pub(crate) max_size: u64,
    /// Files, the live one included.
    pub(crate) max_files: u32,
}

/// `berth-oci`: where `BERTH_OCI` says, or beside this program.
fn shim_program() -> PathBuf {
    if let Some(path) = std::env::var_os("BERTH_OCI") {
        return path.into();
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|program| Some(program.parent()?.join("berth-oci")));
    beside.unwrap_or_else(|| PathBuf::from("/usr/local/bin/berth-oci"))
}
