//! What a pod's containers share, and the shim holds: its cgroup, a mount namespace, the pod's `/dev/shm`, and the
//! pause with the pod's namespaces.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::cgroups::systemd::Scope;
use berth_runtime::cgroups::{Cgroup, CgroupError, ENTER, Hierarchies, Subgroup, leave_all};
use berth_runtime::{Elsewhere, JoinedNamespaces, Pause, PauseArgs, UserIds, label_queues, oci, start_pause};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, open, statx};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::process::{WaitOptions, waitpid};

use crate::protocol::{IdMapping, SandboxConfig, UserNamespace};

/// The directory in the sandbox's on which the pod's `/dev/shm` is mounted.
const SHM_DIR: &str = "shm";

/// Why a pod's sandbox could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The cgroup could not be made or entered.
    #[error("The pod's cgroup can't be used: {0}")]
    Cgroup(#[from] CgroupError),
    /// The pause did not start.
    #[error("The pod's namespaces can't be made: {0}")]
    Pause(#[from] berth_runtime::Error),
    /// Something else was refused.
    #[error("Could not {doing}: {source}.")]
    Io {
        /// What was attempted, beginning with a verb.
        doing: &'static str,
        /// The answer.
        source: io::Error,
    },
}

/// The mount namespace that the shim began in. What is mounted there later is not always seen in the shim's own: only where
/// the host's mounts are shared.
struct Host {
    mounts: OwnedFd,
    root: OwnedFd,
}

impl Host {
    fn here() -> io::Result<Host> {
        let open = |path, flags| open(path, flags | OFlags::CLOEXEC, Mode::empty());
        Ok(Host {
            mounts: open("/proc/self/ns/mnt", OFlags::RDONLY)?,
            root: open("/", OFlags::PATH)?,
        })
    }
}

/// A pod's sandbox.
pub(crate) struct Sandbox {
    pub(crate) dir: PathBuf,
    host: Host,
    cgroup: Cgroup,
    /// Where systemd makes the control groups.
    scope: Option<Scope>,
    pause: Pause,
    pause_lives: bool,
}

impl Sandbox {
    /// Enters the cgroup, makes the mount namespace, and starts the pause. What was made goes with this process, except
    /// for the cgroup.
    pub(crate) fn set_up(dir: &Path, config: &SandboxConfig, cgroup: Cgroup) -> Result<Self, SandboxError> {
        enter(&cgroup)?;
        set_oom_score(config.oom_score_adj);
        let failed = |doing| move |source: io::Error| SandboxError::Io { doing, source };
        let host = Host::here().map_err(failed("hold the host's mount namespace"))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(io::Error::from)
            .map_err(failed("make a mount namespace"))?;
        keep_mounts_private(dir).map_err(failed("keep the pod's mounts from the host"))?;
        if config.runtime.is_some() && config.scope.is_none() {
            hide_unused_hierarchies().map_err(failed("hide cgroup hierarchies that are not used"))?;
        }
        if config.ipc {
            mount_shm(dir, config).map_err(failed("mount the pod's /dev/shm"))?;
        }
        let pause = hold_namespaces(config)?;
        if let Some(ipc) = &pause.namespaces.ipc
            && !config.mount_label.is_empty()
        {
            label_queues(ipc, &config.mount_label)?;
        }
        Ok(Self {
            dir: dir.to_owned(),
            host,
            cgroup,
            scope: config.scope.clone(),
            pause,
            pause_lives: true,
        })
    }

    /// The pod's namespaces, for a container to join.
    pub(crate) fn namespaces(&self) -> JoinedNamespaces<'_> {
        let held = &self.pause.namespaces;
        JoinedNamespaces {
            user: held.user.as_ref().map(AsFd::as_fd),
            network: held.network.as_ref().map(AsFd::as_fd),
            ipc: held.ipc.as_ref().map(AsFd::as_fd),
            uts: held.uts.as_ref().map(AsFd::as_fd),
            pid: held.pid.as_ref().map(AsFd::as_fd),
        }
    }

    /// Where containers' bind mounts come from: the host, but for what the shim has mounted for the pod.
    pub(crate) fn sources(&self) -> Elsewhere<'_> {
        Elsewhere {
            namespace: self.host.mounts.as_fd(),
            root: self.host.root.as_fd(),
            except: &self.dir,
        }
    }

    /// Whether systemd makes the control groups.
    pub(crate) fn has_scopes(&self) -> bool {
        self.scope.is_some()
    }

    /// A group for a program that works for the pod, in which all that it starts is found again; `None` where no hierarchy
    /// is free of limits.
    pub(crate) fn program_group(&self, name: &str) -> Result<Option<Subgroup>, CgroupError> {
        self.cgroup.subgroup(name)
    }

    /// The pause's process id while it lives.
    pub(crate) fn pause_pid(&self) -> Option<i32> {
        self.pause_lives.then(|| self.pause.pid.as_raw())
    }

    /// The pause was reaped.
    pub(crate) fn pause_ended(&mut self) {
        self.pause_lives = false;
    }

    /// Ends the pause. The mount namespace goes with this process.
    pub(crate) fn end_pause(&mut self) {
        if self.pause_lives {
            let pause = rustix::process::Pid::from_raw(self.pause.pid.as_raw());
            let _ = rustix::process::pidfd_send_signal(&self.pause.pidfd, rustix::process::Signal::KILL);
            let _ = waitpid(pause, WaitOptions::empty());
            self.pause_lives = false;
        }
    }

    /// Leaves the cgroup, which can't be removed from within, and removes it. Leaving takes 5 to 33 ms where there is a
    /// unified hierarchy.
    pub(crate) fn remove_cgroup(&self) {
        if let Err(error) = leave_all().and_then(|()| self.cgroup.delete()) {
            eprintln!(
                "The pod's cgroup {} is left behind: {error}",
                self.cgroup.path().as_str()
            );
        }
        if let Some(Err(error)) = self.scope.as_ref().map(Scope::stop) {
            eprintln!("The pod's scope is left behind: {error}");
        }
    }
}

/// As the process itself, which on v1 spares a wait in each hierarchy. It began in the unified one.
fn enter(cgroup: &Cgroup) -> Result<(), SandboxError> {
    for file in cgroup.remaining_entry_files()? {
        let entered = rustix::io::write(&file, ENTER);
        entered.map_err(|error| SandboxError::Io {
            doing: "enter the pod's cgroup",
            source: error.into(),
        })?;
    }
    Ok(())
}

/// Without CAP_SYS_RESOURCE the kernel refuses lower values than before: worth a note, not the pod.
fn set_oom_score(value: i32) {
    if let Err(error) = fs::write("/proc/self/oom_score_adj", value.to_string()) {
        eprintln!("Warning: oom_score_adj can't be set to {value}, it stays as it is: {error}.");
    }
}

/// What the shim mounts must not show on the host, where it would outlive this process. So the mount that holds the
/// sandbox's directory stops telling the host of mounts in it; all others stay as they are, so that a container can still
/// pass mounts of its volumes on to the host where it is allowed to.
fn keep_mounts_private(dir: &Path) -> io::Result<()> {
    Ok(mount_change(
        mount_point_of(dir)?,
        MountPropagationFlags::DOWNSTREAM,
    )?)
}

/// Other runtimes make groups in every hierarchy that they see, also in those that berth leaves alone: the groups above a
/// container's would stay there for ever.
fn hide_unused_hierarchies() -> io::Result<()> {
    let unused = Hierarchies::get().and_then(Hierarchies::unused);
    for mounted in unused.map_err(io::Error::other)? {
        if let Some(parent) = mounted.parent() {
            keep_mounts_private(parent)?;
        }
        unmount(&mounted, UnmountFlags::DETACH)?;
    }
    Ok(())
}

fn mount_shm(dir: &Path, config: &SandboxConfig) -> io::Result<()> {
    let target = dir.join(SHM_DIR);
    fs::create_dir_all(&target)?;
    let first = |map: &[IdMapping]| {
        map.iter()
            .find(|range| range.container == 0)
            .map_or(0, |range| range.host)
    };
    let (uid, gid) = config
        .user
        .as_ref()
        .map_or((0, 0), |user| (first(&user.uids), first(&user.gids)));
    let mut options = format!("mode=1777,size={},uid={uid},gid={gid}", config.shm_size);
    if !config.mount_label.is_empty() {
        // In quotes: a label has commas.
        options.push_str(",context=\"");
        options.push_str(&config.mount_label);
        options.push('"');
    }
    let options = CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(mount("shm", &target, "tmpfs", flags, options.as_c_str())?)
}

/// The root of the mount that a directory is in.
fn mount_point_of(dir: &Path) -> io::Result<&Path> {
    for ancestor in dir.ancestors() {
        let stat = statx(CWD, ancestor, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())?;
        if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Ok(ancestor);
        }
    }
    Ok(Path::new("/"))
}

fn hold_namespaces(config: &SandboxConfig) -> berth_runtime::Result<Pause> {
    let maps = config
        .user
        .as_ref()
        .map(|UserNamespace { uids, gids }| (mappings(uids), mappings(gids)));
    start_pause(&PauseArgs {
        network: config.network,
        ipc: config.ipc,
        hostname: config.hostname.as_deref(),
        pid: config.shared_pid,
        user: maps
            .as_ref()
            .map(|(uids, gids)| (uids.as_slice(), gids.as_slice())),
        sysctls: (!config.sysctls.is_empty()).then_some(&config.sysctls),
        user_ids: UserIds {
            uid: config.pause.uid,
            gid: config.pause.gid,
            groups: &config.pause.groups,
        },
    })
}

fn mappings(ranges: &[IdMapping]) -> Vec<oci::LinuxIdMapping> {
    let mapping = |range: &IdMapping| oci::LinuxIdMapping {
        container_id: range.container,
        host_id: range.host,
        size: range.size,
    };
    ranges.iter().map(mapping).collect()
}
