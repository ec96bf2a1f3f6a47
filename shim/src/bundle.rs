//! A container's bundle: the configuration that the engine wrote, and the process that the runtime makes of it.

use std::path::{Path, PathBuf};

use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::{CreateArgs, Created, JoinedNamespaces, Rootfs as RuntimeRootfs, Stdio, create, oci};

use crate::error::RequestError;
use crate::protocol::{BUNDLES_DIR, Rootfs};
use crate::sandbox::Sandbox;
use crate::unit::Unit;

/// A bundle, read.
pub(crate) struct Bundle {
    id: String,
    pub(crate) dir: PathBuf,
    spec: oci::Spec,
    /// The scope that systemd makes for it.
    scope: Option<Scope>,
}

impl Bundle {
    /// Reads the bundle of a container of this sandbox.
    pub(crate) fn load(sandbox: &Sandbox, id: &str) -> Result<Self, RequestError> {
        let dir = sandbox.dir.join(BUNDLES_DIR).join(id);
        let mut spec = load_spec(&dir, id)?;
        refuse_late_hooks(&spec, id)?;
        let scope = match &mut spec.linux {
            Some(linux) if sandbox.has_scopes() => {
                let scope = Scope::parse(&linux.cgroups_path, id, false)?;
                linux.cgroups_path = scope.cgroup_path()?;
                Some(scope)
            }
            _ => None,
        };
        Ok(Self {
            id: id.to_owned(),
            dir,
            spec,
            scope,
        })
    }

    /// What systemd knows of it, where that makes the control groups.
    pub(crate) fn unit(&self) -> Option<Unit> {
        let linux = self.spec.linux.as_ref();
        let limits = linux.and_then(|linux| linux.resources.clone());
        self.scope.as_ref().map(|scope| Unit::new(scope.clone(), limits))
    }

    /// Whether its streams are a terminal.
    pub(crate) fn wants_terminal(&self) -> bool {
        self.spec.process.as_ref().is_some_and(|process| process.terminal)
    }

    /// Whether it is to be in groups of resctrl.
    pub(crate) fn wants_resctrl(&self) -> bool {
        self.spec
            .linux
            .as_ref()
            .is_some_and(|linux| linux.intel_rdt.is_some())
    }

    /// A terminal of the size that is asked for.
    pub(crate) fn terminal(&self) -> Stdio {
        self.spec
            .process
            .as_ref()
            .map_or_else(|| terminal_of(&oci::Process::default()), terminal_of)
    }

    /// Makes the container, stopped before its program.
    pub(crate) fn create(
        &self,
        root: &Rootfs,
        stdio: Stdio,
        sandbox: &Sandbox,
        namespaces: JoinedNamespaces<'_>,
    ) -> Result<Created, RequestError> {
        Ok(create(CreateArgs {
            id: &self.id,
            bundle: &self.dir,
            spec: &self.spec,
            rootfs: self.rootfs(root, namespaces.user.is_some()),
            stdio,
            scope: self.scope.as_ref(),
            namespaces,
            sources: Some(sandbox.sources()),
            preserve_fds: 0,
            no_pivot: false,
            new_keyring: true,
            find_program_now: false,
            listener: None,
        })?)
    }

    fn rootfs(&self, root: &Rootfs, mapped: bool) -> RuntimeRootfs {
        match root {
            Rootfs::Overlay { .. } => overlay(root, mapped),
            Rootfs::Directory => {
                let path = self.spec.root.as_ref().map(|root| root.path.clone());
                RuntimeRootfs::Path(path.unwrap_or_else(|| PathBuf::from("rootfs")))
            }
        }
    }
}

/// An overlay as the runtime has it; `mapped` with the ids of the pod's user namespace.
pub(crate) fn overlay(root: &Rootfs, mapped: bool) -> RuntimeRootfs {
    match root {
        Rootfs::Overlay { lower, upper, work } => RuntimeRootfs::Overlay {
            lower: lower.clone(),
            upper: upper.clone(),
            work: work.clone(),
            mapped,
        },
        Rootfs::Directory => RuntimeRootfs::Path(PathBuf::from("rootfs")),
    }
}

/// Hooks of a started or a deleted container would hold up every other container of the pod for as long as they run.
fn refuse_late_hooks(spec: &oci::Spec, id: &str) -> Result<(), RequestError> {
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    for (name, list) in [("poststart", &hooks.poststart), ("poststop", &hooks.poststop)] {
        if !list.is_empty() {
            let reason = format!("hooks.{name} is not supported in pods; use the pod's lifecycle hooks");
            return Err(RequestError::Bundle {
                id: id.to_owned(),
                reason,
            });
        }
    }
    Ok(())
}

/// A terminal of the size that a process asks for.
pub(crate) fn terminal_of(process: &oci::Process) -> Stdio {
    let size = process.console_size.as_ref();
    let cells = |count: u64| u16::try_from(count).unwrap_or(0);
    Stdio::Terminal {
        width: size.map_or(0, |size| cells(size.width)),
        height: size.map_or(0, |size| cells(size.height)),
        carriage_returns: true,
    }
}

/// Reads a bundle's configuration. It is large: whoever needs it rarely reads it again rather than keep it.
pub(crate) fn load_spec(bundle: &Path, id: &str) -> Result<oci::Spec, RequestError> {
    let path = bundle.join("config.json");
    let text = std::fs::read(&path).map_err(RequestError::io(format!("read {}", path.display())))?;
    serde_json::from_slice(&text).map_err(|error| RequestError::Bundle {
        id: id.to_owned(),
        reason: format!("it is not an OCI configuration: {error}"),
    })
}
