//! Creating a container: everything up to, but not including, its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::cgroups::Cgroup;
use crate::cgroups::systemd::Scope;
use crate::channel::{Channel, Message};
use crate::check::{check_id, check_spec};
use crate::child::{self, Setup};
use crate::descriptors::MoreDescriptors;
use crate::error::Doing;
use crate::gate::Gate;
use crate::group::NewCgroup;
use crate::hooks::{self, HookState};
use crate::identity::Identity;
use crate::listener::Agent;
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::Namespaces;
use crate::net_devices::{self, MovedDevices};
use crate::oci::{self, ContainerState};
use crate::program::Program;
use crate::resctrl::Groups;
use crate::schedule::Schedule;
use crate::spawn::{kill_and_reap, spawn_in};
use crate::state::process_stat;
use crate::sys::Spawned;
use crate::{Elsewhere, Error, JoinedNamespaces, Result, Rootfs, Stdio, idmap, mount, seccomp};

/// What a container is made of.
#[derive(Debug)]
pub struct CreateArgs<'a> {
    /// The container's id; a single path component.
    pub id: &'a str,
    /// The bundle directory, absolute: relative paths of the spec start here, and hooks are told.
    pub bundle: &'a Path,
    /// The configuration. Its `linux.cgroupsPath` is relative to the root of each cgroup hierarchy, and required.
    pub spec: &'a oci::Spec,
    /// The root file system.
    pub rootfs: Rootfs,
    /// The standard streams. The spec's `process.terminal` is not looked at.
    pub stdio: Stdio,
    /// The scope that systemd makes for the container. `linux.cgroupsPath` is then [`Scope::cgroup_path`].
    pub scope: Option<&'a Scope>,
    /// Namespaces that the caller holds.
    pub namespaces: JoinedNamespaces<'a>,
    /// Where bind mounts come from; `None` is the caller's mount namespace.
    pub sources: Option<Elsewhere<'a>>,
    /// How many descriptors from 3 on the program inherits.
    pub preserve_fds: u32,
    /// Use chroot(2) where the host's root is an initramfs that pivot_root(2) refuses.
    pub no_pivot: bool,
    /// A session keyring of its own.
    pub new_keyring: bool,
    /// Fail now, not at the start, when the program is missing.
    pub find_program_now: bool,
    /// A listening socket at which another process can start the container later; see [`Created::detach`] and
    /// [`start_at`].
    pub listener: Option<OwnedFd>,
}

/// A container that is set up completely and waits before the exec of its program.
///
/// Dropping it before [`Created::start`] ends the container's process, and so does the end of this process; the
/// caller still has to reap it (waitid(2) on `pidfd`) and to delete the cgroup.
#[derive(Debug)]
pub struct Created {
    /// The first process, as the caller's pid namespace numbers it.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// When it began, in clock ticks since boot: this tells a reused pid apart. `None` if it ended early.
    pub start_time: Option<u64>,
    /// The container's control group.
    pub cgroup: Cgroup,
    /// The terminal's master, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// The process is in another user namespace than the caller.
    pub in_user_namespace: bool,
    /// What was refused by the kernel and left out, in sentences.
    pub warnings: Vec<String>,
    /// The system call filter, which processes that are added have to install too.
    pub seccomp: Option<seccomp::Program>,
    channel: Channel,
}

/// Creates a container. The caller must be single-threaded: the container's process begins as a copy of it.
///
/// # Errors
/// When the configuration is invalid or asks for what can't be done, or the kernel refuses; nothing is left behind.
pub fn create(args: CreateArgs<'_>) -> Result<Created> {
    check_id(args.id)?;
    protect_creator()?;
    let spec = args.spec;
    let (linux, process) = check_spec(spec)?;
    let nobody = oci::Process {
        cwd: "/".into(),
        ..oci::Process::default()
    };
    let identity = Identity::new(process.unwrap_or(&nobody))?;
    let namespaces = Namespaces::new(linux, &args.namespaces)?;
    net_devices::check(linux, namespaces.has_network())?;
    let sysctls = crate::check::sysctls(linux, &namespaces)?;
    let filter = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let agent = match (&linux.seccomp, &filter) {
        (Some(profile), Some(filter)) => Agent::of(profile, filter, args.bundle)?,
        _ => None,
    };
    let propagation = crate::check::root_propagation(linux)?;
    let read_only = args.rootfs.is_read_only() || spec.root.as_ref().is_some_and(|r| r.readonly);
    let place = place_for_hooks(&args);
    let descriptors = MoreDescriptors::for_mounts(spec.mounts.len());
    let (root, mounts, unopened) = if namespaces.opens_inside() {
        let root = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "open the root directory".to_owned())?;
        (root, Vec::new(), Some(args.rootfs))
    } else {
        let origin = mount::Origin {
            bundle: args.bundle,
            root: args.rootfs.directory(),
            namespaces: &namespaces,
            label: &linux.mount_label,
            propagation,
            elsewhere: args.sources,
        };
        let mounts = mount::prepare(&spec.mounts, &origin)?;
        let root = args.rootfs.open(
            args.bundle,
            propagation,
            namespaces.joined_user(),
            &linux.mount_label,
        )?;
        (root, mounts, None)
    };
    let resctrl = Groups::create(linux.intel_rdt.as_ref(), args.id)?;
    NewCgroup::check(linux)?;
    let make_group = || NewCgroup::create(spec, linux, args.scope);
    let mut cgroup = NewCgroup::comes_first(args.scope)?.then(make_group).transpose()?;
    let (creator, process_end) = Channel::pair().doing(|| "make a socket pair".to_owned())?;
    let setup = Setup {
        id: args.id,
        bundle: args.bundle,
        spec,
        linux,
        root,
        propagation,
        place,
        unopened,
        read_only,
        mounts,
        namespaces: &namespaces,
        sysctls,
        process: process.unwrap_or(&nobody),
        identity,
        schedule: Schedule::new(process.unwrap_or(&nobody))?,
        memory_policy: linux.memory_policy.as_ref().map(MemoryPolicy::new).transpose()?,
        program: process.map(Program::new).transpose()?,
        seccomp: filter.as_ref(),
        stdio: args.stdio,
        channel: process_end,
        entry_files: cgroup.as_ref().map(NewCgroup::entry_files).transpose()?,
        gate: args.listener.map_or(Gate::Channel, Gate::Listener),
        preserve_fds: args.preserve_fds,
        usual_descriptors: descriptors.before(),
        no_pivot: args.no_pivot,
        new_keyring: args.new_keyring,
        find_program_now: args.find_program_now,
    };
    // What only the container's process needs, above all its ends of pipes, is closed here when the closure returns.
    let shows_maps = namespaces.is_rootless() && namespaces.new_maps().is_some();
    if shows_maps {
        // A user may only write the maps of a process that hides nothing. It hides again before it enters anything.
        show_creator()?;
    }
    let begin_in = cgroup.as_ref().and_then(NewCgroup::begin_in);
    let spawned = spawn_in(&namespaces, begin_in, move || child::main(setup))?;
    if shows_maps {
        protect_creator()?;
    }
    // Upon failure the process goes first, and then its group.
    let spawned = Guard(Some(spawned));
    if let Some(cgroup) = &cgroup {
        // Before the process goes on, which shows its group at that time as the root of a new cgroup namespace.
        cgroup.attach(spawned.pid())?;
    }
    let warnings = introduce(&creator, spawned.pid(), &namespaces, spec)?;
    let cgroup = match &mut cgroup {
        Some(cgroup) => cgroup,
        none => {
            // Meanwhile the process makes its mounts.
            let cgroup = none.insert(make_group()?);
            tell(&creator, &Message::Groups(cgroup.entry_files()?))?;
            cgroup
        }
    };
    if let Some(groups) = &resctrl {
        groups.assign(spawned.pid().as_raw())?;
    }
    let devices = move_net_devices(linux, &namespaces, spawned.pid())?;
    let pid = spawned.pid().as_raw();
    let state = hook_state(spec, args.id, args.bundle, Some(pid), ContainerState::Creating);
    let start_time = process_stat(pid).map(|(_, began)| began);
    let mut accompanied = Accompanied {
        terminal: None,
        warnings,
    };
    let ready = accompanied.until_ready(&creator, spec, agent.as_ref(), &state);
    ready.map_err(|error| cgroup.explain(error, linux))?;
    let Some(Spawned { pid, pidfd }) = spawned.keep() else {
        return Err(Error::Vanished("it has no pid".to_owned()));
    };
    let cgroup = cgroup.keep()?;
    devices.keep();
    if let Some(groups) = resctrl {
        groups.keep();
    }
    Ok(Created {
        pid,
        pidfd,
        start_time,
        cgroup,
        terminal: accompanied.terminal,
        in_user_namespace: namespaces.has_user(),
        warnings: accompanied.warnings,
        seccomp: filter,
        channel: creator,
    })
}

/// Moves devices of the host into the network namespace that the container's process is in, or is about to join.
fn move_net_devices(linux: &oci::Linux, namespaces: &Namespaces, pid: Pid) -> Result<MovedDevices> {
    if linux.net_devices.is_empty() {
        return Ok(MovedDevices::default());
    }
    if let Some(joined) = namespaces.joined_network() {
        return net_devices::move_in(linux, joined);
    }
    let path = format!("/proc/{pid}/ns/net");
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let own = open(&path, flags, Mode::empty()).doing(|| format!("open {path}"))?;
    net_devices::move_in(linux, own.as_fd())
}

/// The root's own path, if hooks of the host could look for it. Some, such as those that add a GPU's driver, enter the
/// container's mount namespace before it has become the root directory there.
fn place_for_hooks(args: &CreateArgs<'_>) -> Option<PathBuf> {
    let hooks = args.spec.hooks.as_ref()?;
    let any =
        [&hooks.prestart, &hooks.create_runtime, &hooks.create_container].map(Vec::is_empty) != [true; 3];
    match &args.rootfs {
        // Without pivot_root(2) the host's paths stay, and must not lead to the container's mounts.
        Rootfs::Path(path) if any && !args.no_pivot => Some(args.bundle.join(path)),
        _ => None,
    }
}

/// The container's process begins as a copy of this one, and processes of a joined PID namespace see it from then on:
/// they may neither trace it nor open its files in /proc, such as its executable.
pub(crate) fn protect_creator() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).doing(|| "keep the process private".to_owned())
}

fn show_creator() -> Result<()> {
    set_dumpable_behavior(DumpableBehavior::Dumpable).doing(|| "show the process to its user".to_owned())
}

/// What came from the container's process while it set itself up.
struct Accompanied {
    terminal: Option<OwnedFd>,
    warnings: Vec<String>,
}

/// Gives the process its ids and its OOM score. Returns what was refused and left out.
fn introduce(channel: &Channel, pid: Pid, namespaces: &Namespaces, spec: &oci::Spec) -> Result<Vec<String>> {
    if let Some((uids, gids)) = namespaces.new_maps() {
        idmap::write_maps(pid, uids, gids)?;
    }
    let score = spec.process.as_ref().and_then(|process| process.oom_score_adj);
    let warning = score.and_then(|score| set_oom_score(pid, score));
    if namespaces.new_maps().is_some() || namespaces.needs_middle() {
        tell(channel, &Message::Mapped)?;
    }
    Ok(warning.into_iter().collect())
}

impl Accompanied {
    /// Does the creator's part of the setup, until the process is ready.
    fn until_ready(
        &mut self,
        channel: &Channel,
        spec: &oci::Spec,
        agent: Option<&Agent<'_>>,
        state: &HookState<'_>,
    ) -> Result<()> {
        loop {
            match channel
                .receive()
                .doing(|| "hear from the container's process".to_owned())?
            {
                Message::Terminal(master) => self.terminal = Some(master),
                Message::Listener(listener) => {
                    if let Some((agent, pid)) = agent.zip(state.pid) {
                        agent.hand_over(&listener, pid, state)?;
                    }
                }
                Message::Warning(warning) => self.warnings.push(warning),
                Message::HostHooks => {
                    if let Some(hooks) = &spec.hooks {
                        hooks::run_create_runtime(hooks, state)?;
                    }
                    tell(channel, &Message::Pid(state.pid.unwrap_or(0)))?;
                }
                Message::Ready => return Ok(()),
                Message::Failed(failure) => return Err(failure.into()),
                _ => return Err(Error::Vanished("it closed its channel".to_owned())),
            }
        }
    }
}

fn tell(channel: &Channel, message: &Message) -> Result<()> {
    match channel.send(message) {
        // It may have said why before it ended.
        Err(rustix::io::Errno::PIPE) => Ok(()),
        other => other.doing(|| "talk to the container's process".to_owned()),
    }
}

/// A score below the creator's own needs CAP_SYS_RESOURCE, which root may lack: the container then starts without it.
pub(crate) fn set_oom_score(pid: Pid, score: i32) -> Option<String> {
    let path = format!("/proc/{pid}/oom_score_adj");
    let refused = std::fs::write(&path, score.to_string()).err()?;
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == score.to_string()) {
        return None;
    }
    Some(format!(
        "The OOM score adjustment could not be set to {score}: {refused}."
    ))
}

/// The state that hooks are given.
pub fn hook_state<'a>(
    spec: &'a oci::Spec,
    id: &'a str,
    bundle: &'a Path,
    pid: Option<i32>,
    status: ContainerState,
) -> HookState<'a> {
    HookState {
        oci_version: &spec.version,
        id,
        status,
        pid,
        bundle,
        annotations: Some(&spec.annotations).filter(|annotations| !annotations.is_empty()),
    }
}

impl Created {
    /// Lets the container's program run, and returns once it does, or once the process has ended. From then on the
    /// process outlives this one.
    ///
    /// # Errors
    /// [`Error::CannotRun`] when the program is missing or can't be executed. The process has ended then, or is about
    /// to, with that exit code; the caller reaps it.
    pub fn start(&mut self) -> Result<()> {
        start_over(&self.channel)
    }

    /// Lets the container wait at its listener, independent of this process.
    ///
    /// # Errors
    /// When the container's process died.
    pub fn detach(self) -> Result<()> {
        tell(&self.channel, &Message::Detach)?;
        match self
            .channel
            .receive()
            .doing(|| "hear from the container's process".to_owned())?
        {
            Message::Detach => Ok(()),
            _ => Err(Error::Vanished("it was about to wait for its start".to_owned())),
        }
    }
}

/// Lets a detached container's program run: `socket` is connected to its listener.
///
/// # Errors
/// As [`Created::start`].
pub fn start_at(socket: OwnedFd) -> Result<()> {
    start_over(&Channel::from_socket(socket))
}

fn start_over(channel: &Channel) -> Result<()> {
    channel
        .send(&Message::Ready)
        .or_else(|errno| match errno {
            rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET => Ok(()),
            other => Err(other),
        })
        .doing(|| "tell the container's process to start".to_owned())?;
    match channel
        .receive()
        .doing(|| "hear from the container's process".to_owned())?
    {
        Message::Failed(failure) => Err(failure.into()),
        // Either the exec closed its end, or a signal ended the process first: reaping tells.
        _ => Ok(()),
    }
}

/// A process that is killed and reaped unless the container comes to be.
struct Guard(Option<Spawned>);

impl Guard {
    fn pid(&self) -> Pid {
        self.0.as_ref().map_or(Pid::from_raw(0), |spawned| spawned.pid)
    }

    fn keep(mut self) -> Option<Spawned> {
        self.0.take()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(spawned) = &self.0 {
            kill_and_reap(spawned);
        }
    }
}

/// The descriptors of a list of owners.
pub(crate) fn borrow_all(list: &[OwnedFd]) -> impl Iterator<Item = BorrowedFd<'_>> {
    list.iter().map(AsFd::as_fd)
}
