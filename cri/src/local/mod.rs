//! The built-in engine: sandboxes and containers by way of one shim per pod.
//!
//! Everything it knows is on disk or in the shims; memory holds a copy that events keep up to date. A sandbox belongs
//! to the engine that holds its lock, so that several programs can share one root directory. An engine takes over the
//! sandboxes of a dead one when their pod is asked for ([`adopt`]).

mod adopt;
mod apparmor;
mod attach;
mod bundle;
mod cgroups;
mod checkpoint;
mod conditions;
mod container;
mod devices;
mod disk;
mod engine;
mod events;
mod exec;
mod exec_sync;
mod features;
mod handlers;
pub mod host_ports;
mod image;
mod logs;
mod mounts;
mod network;
mod parents;
mod plugins;
mod port_forward;
mod privileges;
mod records;
mod registry;
mod relabel;
mod resources;
mod sandbox;
mod selinux;
mod shim_client;
mod shim_process;
pub(crate) mod signals;
mod spec;
mod status;
mod tree;
mod usage;
mod user_namespace;
mod users;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use berth_images::Store;
use berth_shim::protocol::ExitRecord;
use nix::fcntl::Flock;
use tokio::sync::{mpsc, watch};

pub use disk::disk_usage;
pub use handlers::{BUILT_IN as BUILT_IN_HANDLER, HandlerConfig};
pub use privileges::is_capability;
pub use selinux::label_new_image_directory;

use crate::engine::EngineError;
use crate::nri::Nri;
use crate::types::{CgroupDriver, ContainerId, EngineEvent, SandboxId, UnixNanos};
use records::{ContainerRecord, SandboxDirs, SandboxRecord};
use shim_client::ShimClient;

/// What the engine works with.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What survives a reboot: records, writable layers (`/var/lib/berth`).
    pub lib_dir: PathBuf,
    /// What does not: the shims' directories (`/run/berth`).
    pub run_dir: PathBuf,
    /// The `berth-oci` program.
    pub shim_program: PathBuf,
    /// Where networks are configured, and what is used if none is.
    pub network: berth_cni::CniConfig,
    /// Rotate a container's log when it would grow past this many bytes (`containerLogMaxSize`).
    pub log_max_size: u64,
    /// Keep this many log files of a container (`containerLogMaxFiles`).
    pub log_max_files: u32,
    /// Images that garbage collection leaves alone: names as they are pulled; a `*` at the end stands for anything.
    pub pinned_images: Vec<String>,
    /// Who makes the pods' cgroups.
    pub cgroup_driver: CgroupDriver,
    /// Where CDI devices are described; a later directory's files win.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// Runtime handlers beside the built-in one, which is called [`BUILT_IN_HANDLER`].
    pub handlers: BTreeMap<String, HandlerConfig>,
    /// The handler of pods that name none.
    pub default_handler: String,
    /// Where [`host_ports`] are asked for, where the machine has another network than the engine.
    pub port_forwarder: Option<PathBuf>,
}

impl EngineConfig {
    /// Everything as a kubelet has it by default.
    #[must_use]
    pub fn new(
        lib_dir: PathBuf,
        run_dir: PathBuf,
        shim_program: PathBuf,
        network: berth_cni::CniConfig,
    ) -> Self {
        Self {
            lib_dir,
            run_dir,
            shim_program,
            network,
            log_max_size: 10 << 20,
            log_max_files: 5,
            pinned_images: Vec::new(),
            cgroup_driver: CgroupDriver::default(),
            cdi_spec_dirs: vec!["/etc/cdi".into(), "/var/run/cdi".into()],
            handlers: BTreeMap::new(),
            default_handler: BUILT_IN_HANDLER.to_owned(),
            port_forwarder: None,
        }
    }
}

/// The built-in engine. Cheap to clone.
#[derive(Clone)]
pub struct LocalEngine {
    inner: Arc<Inner>,
}

struct Inner {
    config: EngineConfig,
    images: Store,
    network: berth_cni::Network,
    bounding: BTreeSet<String>,
    sandboxes: Mutex<registry::Registry>,
    /// Held by whoever looks for cgroups above a sandbox's own, or takes one away.
    parents: Mutex<()>,
    /// Held from the look whether a pod has a sandbox until it has.
    reserving: Mutex<()>,
    /// The pods whose sandboxes were looked for on disk; `None` stands for all.
    adopted: Mutex<HashSet<Option<String>>>,
    subscribers: Mutex<Vec<mpsc::UnboundedSender<EngineEvent>>>,
    layers: disk::Layers,
    meter: Arc<usage::Meter>,
    /// Not there unless plugins are served.
    nri: OnceLock<Arc<Nri>>,
    known_handlers: handlers::Known,
    probed: features::Probed,
}

/// A sandbox in memory.
struct Sandbox {
    id: SandboxId,
    dirs: SandboxDirs,
    /// Held as long as this engine owns the sandbox.
    _lock: Flock<std::fs::File>,
    /// Held by whoever makes or removes the sandbox or one of its containers.
    changing: Arc<tokio::sync::Mutex<()>>,
    /// Held by whoever checkpoints one of its containers: criu locks the network of all of them.
    checkpointing: Arc<tokio::sync::Mutex<()>>,
    /// It is being made, or what a kill left half made is being removed: nobody but plugins is to know of it.
    making: AtomicBool,
    /// What an engine before left of it is known here, as far as anybody can tell.
    taken_over: watch::Sender<bool>,
    /// Why it could not be made, for all that waited for it.
    failure: Mutex<Option<EngineError>>,
    record: Mutex<SandboxRecord>,
    /// `None` before the shim runs and after it ended.
    shim: Mutex<Option<Shim>>,
    containers: Mutex<BTreeMap<ContainerId, Arc<Container>>>,
    execs: exec::Pending,
    usage: usage::Kept,
}

/// A sandbox's live shim.
#[derive(Clone)]
struct Shim {
    client: ShimClient,
    /// `None` after it died: the sandbox is not ready any more.
    pause_pid: Option<i32>,
}

/// A container in memory.
struct Container {
    id: ContainerId,
    record: Mutex<ContainerRecord>,
    /// Held while its limits change. It is not the sandbox's lock: plugins change the limits of one container while another
    /// one of the pod is made.
    limits: tokio::sync::Mutex<()>,
    run: watch::Sender<RunState>,
    log: logs::LogCounter,
    usage: usage::Kept,
}

/// Where a container's first process is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum RunState {
    /// Made, or being made; its program does not run yet.
    Created { pid: i32 },
    /// Its program runs.
    Running { pid: i32 },
    /// An engine before had it, and its shim has not answered this one yet.
    Unheard,
    /// It was reaped.
    Exited(ExitRecord),
    /// Its shim ended without a word of it.
    Unknown { since: UnixNanos },
}

impl LocalEngine {
    /// An engine over the directories of `config`. Nothing that is there already is touched until it is asked for.
    ///
    /// # Errors
    /// The directories can't be made, or the network configuration is not valid.
    pub fn open(config: EngineConfig, images: Store) -> Result<Self, EngineError> {
        for directory in [config.lib_dir.join("sandboxes"), config.run_dir.join("sandboxes")] {
            std::fs::create_dir_all(&directory).map_err(|error| {
                EngineError::Unavailable(format!(
                    "The directory {} can't be made: {error}.",
                    directory.display()
                ))
            })?;
        }
        let network = network::load(&config.network)?;
        let bounding = privileges::bounding_set().map_err(|error| {
            EngineError::Unavailable(format!("berth can't read its own capabilities: {error}."))
        })?;
        let inner = Inner {
            config,
            images,
            network,
            bounding,
            sandboxes: Mutex::default(),
            parents: Mutex::default(),
            reserving: Mutex::default(),
            adopted: Mutex::default(),
            subscribers: Mutex::default(),
            layers: disk::Layers::default(),
            meter: Arc::default(),
            nri: OnceLock::new(),
            known_handlers: handlers::Known::default(),
            probed: features::Probed::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// The image store behind the engine.
    #[must_use]
    pub fn images(&self) -> &Store {
        &self.inner.images
    }

    /// Gives back what pods that are gone still hold of the network: addresses, links and firewall rules.
    ///
    /// # Errors
    /// The network state can't be read, or a plugin failed.
    pub async fn reconcile_network(&self) -> Result<Vec<String>, EngineError> {
        network::reconcile(&self.inner).await
    }

    /// Sentences for the person who runs the node: what of the host will keep pods from using the network, and what to
    /// do about it.
    pub async fn network_advice(&self) -> Vec<String> {
        network::advice(&self.inner).await
    }

    /// Runs `operation` to its end even if the caller is dropped: half an operation leaves half an object.
    async fn whole<T, F>(&self, operation: impl FnOnce(Arc<Inner>) -> F) -> Result<T, EngineError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, EngineError>> + Send + 'static,
    {
        let task = tokio::spawn(operation(Arc::clone(&self.inner)));
        task.await
            .unwrap_or_else(|error| Err(EngineError::Internal(format!("The engine failed: {error}."))))
    }
}

impl Inner {
    fn sandbox(&self, id: &SandboxId) -> Result<Arc<Sandbox>, EngineError> {
        let sandbox = lock(&self.sandboxes).get(id).cloned();
        let sandbox = sandbox.filter(|sandbox| !sandbox.making.load(Ordering::Acquire));
        sandbox.ok_or_else(|| EngineError::NotFound(format!("There is no sandbox {id}.")))
    }

    /// Whether the sandbox was not removed meanwhile.
    fn has(&self, sandbox: &Sandbox) -> bool {
        lock(&self.sandboxes).contains(&sandbox.id)
    }

    fn container(&self, id: &ContainerId) -> Result<(Arc<Sandbox>, Arc<Container>), EngineError> {
        let sandbox = lock(&self.sandboxes).of_container(id);
        let found = sandbox.and_then(|sandbox| {
            let container = lock(&sandbox.containers).get(id).cloned();
            let container = container.filter(|container| container.is_made());
            container.map(|container| (sandbox, container))
        });
        found.ok_or_else(|| EngineError::NotFound(format!("There is no container {id}.")))
    }

    /// The sandboxes of a pod, the oldest first; of every pod without a UID.
    fn sandboxes_of(&self, pod_uid: Option<&str>) -> Vec<Arc<Sandbox>> {
        let mut sandboxes = match pod_uid {
            Some(uid) => lock(&self.sandboxes).of_pod(uid),
            None => lock(&self.sandboxes).all(),
        };
        sandboxes.sort_by_key(|sandbox| {
            let record = lock(&sandbox.record);
            (record.created_at, record.config.attempt)
        });
        sandboxes
    }

    fn dirs(&self, id: &SandboxId) -> SandboxDirs {
        SandboxDirs {
            lib: self.config.lib_dir.join("sandboxes").join(&id.0),
            run: self.config.run_dir.join("sandboxes").join(&id.0),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// 64 random hexadecimal digits.
fn new_id() -> Result<String, EngineError> {
    let mut bytes = [0; 32];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|error| EngineError::Internal(format!("The kernel gives no random numbers: {error}.")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
