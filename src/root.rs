//! Where a node keeps its things, and the engine over them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_cni::{CniConfig, PluginPreference};
use berth_cri::{BUILT_IN_HANDLER, CgroupDriver, EngineConfig, EngineError, HandlerConfig, LocalEngine};
use berth_images::{ImageError, Store, StoreOptions};

use crate::rootless::Rootless;

/// The directories of a node. One `--root` moves all of them, so that several nodes fit on one machine.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    directory: PathBuf,
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
        let Some(given) = directory else {
            return Ok(Self::of_user().unwrap_or_else(|| Self::beneath(Path::new("/"))));
        };
        // Records outlive the directory that the command was typed in.
        let beneath = std::path::absolute(given)
            .map_err(|error| format!("The directory {} can't be used: {error}.", given.display()))?;
        Ok(Self::beneath(&beneath))
    }

    fn beneath(beneath: &Path) -> Self {
        Self {
            directory: beneath.to_owned(),
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
        }
    }

    /// An ordinary user's places, by the XDG base directory specification; `None` for root.
    fn of_user() -> Option<Self> {
        let is_users = !rustix::process::geteuid().is_root() || Rootless::here().is_some();
        let variable = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = variable("HOME").filter(|_| is_users)?;
        let lib = variable("XDG_DATA_HOME")
            .unwrap_or_else(|| home.join(".local/share"))
            .join("berth");
        // Without a directory that goes with the session there is one that stays: what is in it is known by locks.
        let run = variable("XDG_RUNTIME_DIR").map_or_else(|| lib.join("run"), |run| run.join("berth"));
        let config = variable("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        Some(Self {
            kubelet: lib.join("kubelet"),
            pod_logs: lib.join("logs/pods"),
            cni_conf: config.join("cni/net.d"),
            run,
            lib,
            ..Self::beneath(Path::new("/"))
        })
    }

    /// The image store, which is made if it is not there.
    ///
    /// # Errors
    /// Its directory can't be made or used, or its index is damaged.
    pub(crate) fn image_store(&self, options: StoreOptions) -> Result<Store, ImageError> {
        let directory = self.lib.join("images");
        berth_cri::label_new_image_directory(&directory);
        Store::open_with(&directory, options)
    }

    /// Names of images that only who names them removes: the built-in one, and those that the configuration of `berth cri`
    /// has.
    ///
    /// # Errors
    /// The configuration can't be used.
    pub(crate) fn pinned_images(&self) -> Result<Vec<String>, String> {
        let mut pinned = crate::cri::pinned_images(&self.directory)?;
        pinned.push(crate::builtin_image::NAME.to_owned());
        Ok(pinned)
    }

    /// What all of these are beneath.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The directory that was given for all of these, if one was.
    pub(crate) fn given(&self) -> Option<&Path> {
        (self.directory != Path::new("/")).then_some(&self.directory)
    }

    /// The engine over these directories.
    pub(crate) fn engine(&self, options: &EngineOptions) -> Result<LocalEngine, EngineError> {
        let images = self
            .image_store(options.store.clone())
            .map_err(|error| EngineError::Unavailable(format!("{error}.")))?;
        let conf = options.cni_conf.clone().unwrap_or_else(|| self.cni_conf.clone());
        let bin = options.cni_bin.clone().unwrap_or_else(|| self.cni_bin.clone());
        let network = CniConfig {
            preference: options.cni_preference,
            plugin_timeout: options.cni_timeout,
            ..CniConfig::new(conf, bin, self.lib.join("cni"))
        };
        let config = EngineConfig {
            log_max_size: options.log_max_size,
            log_max_files: options.log_max_files,
            pinned_images: options.pinned_images.clone(),
            cgroup_driver: options.cgroup_driver,
            cdi_spec_dirs: options.cdi_spec_dirs.clone().unwrap_or_else(|| {
                ["etc/cdi", "var/run/cdi"]
                    .map(|path| self.directory.join(path))
                    .to_vec()
            }),
            handlers: options.handlers.clone(),
            default_handler: options.default_handler.clone(),
            port_forwarder: Rootless::here()
                .filter(|here| here.alone().is_none())
                .map(|_| crate::rootless::api_socket(&self.run)),
            ..EngineConfig::new(self.lib.clone(), self.run.clone(), shim_program(), network)
        };
        LocalEngine::open(config, images)
    }
}

/// How an engine works, apart from where.
#[derive(Clone, Debug)]
pub(crate) struct EngineOptions {
    /// Rotate a container's log when it would grow past this many bytes; 0 is never.
    pub(crate) log_max_size: u64,
    /// Keep this many log files of a container, the live one included.
    pub(crate) log_max_files: u32,
    /// Who makes the pods' cgroups.
    pub(crate) cgroup_driver: CgroupDriver,
    /// Network configurations; `None` is the root's.
    pub(crate) cni_conf: Option<PathBuf>,
    /// Network plugins; `None` is the root's.
    pub(crate) cni_bin: Option<Vec<PathBuf>>,
    /// Which one runs where a network plugin is both installed and built in.
    pub(crate) cni_preference: PluginPreference,
    /// How long one call of a network plugin may take.
    pub(crate) cni_timeout: Duration,
    /// Images that garbage collection leaves alone.
    pub(crate) pinned_images: Vec<String>,
    /// Where CDI devices are described; `None` is the root's.
    pub(crate) cdi_spec_dirs: Option<Vec<PathBuf>>,
    /// Runtime handlers beside the built-in one.
    pub(crate) handlers: BTreeMap<String, HandlerConfig>,
    /// The handler of pods that name none.
    pub(crate) default_handler: String,
    /// How the image store works.
    pub(crate) store: StoreOptions,
}

impl Default for EngineOptions {
    /// As a kubelet has it.
    fn default() -> Self {
        Self {
            log_max_size: 10 << 20,
            log_max_files: 5,
            cni_conf: None,
            cni_bin: None,
            cni_preference: PluginPreference::default(),
            cni_timeout: Duration::from_secs(30),
            pinned_images: Vec::new(),
            cgroup_driver: CgroupDriver::default(),
            cdi_spec_dirs: None,
            handlers: BTreeMap::new(),
            default_handler: BUILT_IN_HANDLER.to_owned(),
            store: StoreOptions::default(),
        }
    }
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
