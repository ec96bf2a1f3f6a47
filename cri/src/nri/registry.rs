//! The plugins that there are, and what they have been told of.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Weak};

use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::api::{Container, ContainerState, ContainerUpdate, PodSandbox};
use super::identity::Identity;
use super::notice::Notice;
use super::notify::Exit;
use super::plugin::Plugin;
use super::{NriConfig, Runtime, ServeError, launch};

/// Plugins that may be about to register at once.
const REGISTERING: usize = 16;

/// The runtime's side of NRI.
pub(crate) struct Nri {
    pub(super) config: NriConfig,
    pub(super) runtime: Arc<dyn Runtime>,
    /// Held while plugins are told of something: see the module.
    pub(super) hub: tokio::sync::Mutex<Hub>,
}

/// Plugins, and what they know of.
#[derive(Debug, Default)]
pub(super) struct Hub {
    /// In the order of their indices.
    plugins: Vec<Arc<Plugin>>,
    pub(super) pods: BTreeMap<String, Known>,
    pub(super) containers: BTreeMap<String, Known>,
}

/// A pod or a container that plugins know of. It is kept encoded, which takes a fraction of the space.
#[derive(Clone, Debug)]
pub(super) struct Known {
    message: Vec<u8>,
    pub(super) phase: Phase,
}

/// How far plugins know it to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    /// Its start was announced; whether it has ended meanwhile.
    Starting(Option<Exit>),
    Running,
    Stopped,
}

impl Known {
    pub(super) fn new(message: &impl Message, phase: Phase) -> Self {
        Self {
            message: message.encode_to_vec(),
            phase,
        }
    }
}

/// A filter of system calls is longer than all the rest, and of interest only while a container is being made.
fn without_policy(container: &Container) -> Container {
    let mut container = container.clone();
    if let Some(linux) = &mut container.linux {
        linux.seccomp_policy = None;
    }
    container
}

impl Nri {
    /// NRI for a runtime with these pods and containers, before any plugin.
    pub(crate) fn new(
        config: NriConfig,
        runtime: Arc<dyn Runtime>,
        pods: Vec<(PodSandbox, bool)>,
        containers: Vec<Container>,
    ) -> Self {
        let mut hub = Hub::default();
        for (pod, stopped) in pods {
            let phase = if stopped { Phase::Stopped } else { Phase::Running };
            hub.pods.insert(pod.id.clone(), Known::new(&pod, phase));
        }
        for container in containers {
            let phase = match container.state() {
                ContainerState::ContainerRunning | ContainerState::ContainerPaused => Phase::Running,
                ContainerState::ContainerCreated => Phase::Created,
                ContainerState::ContainerStopped | ContainerState::ContainerUnknown => Phase::Stopped,
            };
            hub.add_container(&container, phase);
        }
        Self {
            config,
            runtime,
            hub: tokio::sync::Mutex::new(hub),
        }
    }

    /// Starts the plugins of the directory, one after the other, and takes connections from then on.
    pub(crate) async fn serve(self: &Arc<Self>) -> Result<(), ServeError> {
        launch::all(self).await?;
        let Some(path) = self.config.socket.clone() else {
            return Ok(());
        };
        let listener = listen(&path)
            .await
            .map_err(|error| ServeError::Socket { path, error })?;
        tokio::spawn(accept(Arc::downgrade(self), listener));
        Ok(())
    }

    /// Tells all plugins that the runtime goes away.
    pub(crate) async fn shut_down(&self) {
        let plugins = std::mem::take(&mut self.hub.lock().await.plugins);
        for plugin in plugins {
            plugin.shut_down().await;
        }
        if let Some(path) = &self.config.socket {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Lets a plugin register, tells it of what there is, and of everything from then on.
    ///
    /// # Errors
    /// A sentence on what the plugin did wrong.
    pub(super) async fn admit(
        &self,
        socket: UnixStream,
        given: Option<Identity>,
    ) -> Result<Arc<Plugin>, String> {
        let timeouts = self.config.timeouts;
        let plugin = Plugin::register(socket, Arc::clone(&self.runtime), given, timeouts).await?;
        let plugin = Arc::new(plugin);
        let updates = {
            let mut hub = self.hub.lock().await;
            let (pods, containers) = hub.state();
            let updates = plugin.synchronize(pods, containers).await?;
            hub.plugins.push(Arc::clone(&plugin));
            hub.plugins
                .sort_by(|one, other| (&one.index, &one.base).cmp(&(&other.index, &other.base)));
            updates
        };
        tracing::info!("The NRI plugin {} is there.", plugin.name());
        self.update_all(updates).await;
        Ok(plugin)
    }

    pub(super) async fn update_all(&self, updates: Vec<ContainerUpdate>) {
        for failed in self.runtime.update(updates).await {
            tracing::warn!(
                "Container {} could not be updated as NRI plugins want it.",
                failed.container_id
            );
        }
    }
}

async fn accept(nri: Weak<Nri>, listener: UnixListener) {
    let places = Arc::new(Semaphore::new(REGISTERING));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!("A connection of an NRI plugin can't be taken: {error}.");
                // Whoever is out of descriptors is so for a while.
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(nri) = nri.upgrade() else { return };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("An NRI plugin is turned away: {REGISTERING} others are about to register.");
            continue;
        };
        tokio::spawn(async move {
            let admitted = nri.admit(socket, None).await;
            drop(place);
            match admitted {
                Ok(plugin) => {
                    plugin.gone().await;
                    tracing::info!("The NRI plugin {} is gone.", plugin.name());
                }
                Err(error) => tracing::warn!("An NRI plugin is turned away: {error}"),
            }
        });
    }
}

/// A socket for root alone. One that nobody listens on any more is replaced.
async fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "there is a file that is no socket",
            ));
        }
        Ok(_) if UnixStream::connect(path).await.is_ok() => {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another runtime serves it; choose another path, or none",
            ));
        }
        Ok(_) => std::fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

impl Hub {
    /// The plugins to be asked. Those that are gone are forgotten.
    pub(super) fn asked(&mut self) -> Vec<Arc<Plugin>> {
        self.plugins.retain(|plugin| !plugin.is_gone());
        self.plugins.clone()
    }

    pub(super) fn pod(&self, id: &str) -> Option<PodSandbox> {
        let known = self.pods.get(id)?;
        PodSandbox::decode(known.message.as_slice()).ok()
    }

    pub(super) fn container(&self, id: &str) -> Option<Container> {
        let known = self.containers.get(id)?;
        Container::decode(known.message.as_slice()).ok()
    }

    pub(super) fn notice(&self, container: Container) -> Notice {
        Notice {
            pod: self.pod(&container.pod_sandbox_id).unwrap_or_default(),
            container: Some(container),
        }
    }

    pub(super) fn keep_pod(&mut self, pod: &PodSandbox) {
        if let Some(known) = self.pods.get_mut(&pod.id) {
            known.message = pod.encode_to_vec();
        }
    }

    pub(super) fn add_container(&mut self, container: &Container, phase: Phase) {
        let known = Known::new(&without_policy(container), phase);
        self.containers.insert(container.id.clone(), known);
    }

    pub(super) fn keep_container(&mut self, container: &Container) {
        if let Some(known) = self.containers.get_mut(&container.id) {
            known.message = without_policy(container).encode_to_vec();
        }
    }

    pub(super) fn set_phase(&mut self, id: &str, phase: Phase) {
        if let Some(known) = self.containers.get_mut(id) {
            known.phase = phase;
        }
    }

    /// All pods, and the containers that have not ended: those have given back what a plugin could want of them.
    fn state(&self) -> (Vec<PodSandbox>, Vec<Container>) {
        let pods = self.pods.keys().filter_map(|id| self.pod(id)).collect();
        let living = self
            .containers
            .iter()
            .filter(|(_, known)| known.phase != Phase::Stopped);
        (pods, living.filter_map(|(id, _)| self.container(id)).collect())
    }
}
