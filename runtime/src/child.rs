//! What the process of a container does between its beginning and its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;
use rustix::process::Rlimit;

use crate::cgroups::ENTER;
use crate::channel::{Channel, Message};
use crate::create::{borrow_all, hook_state, protect_creator};
use crate::error::Doing;
use crate::gate::{Gate, Ready};
use crate::identity::Identity;
use crate::label::Labels;
use crate::memory_policy::MemoryPolicy;
use crate::mount::{self, Attached, Prepared, Propagation, Source};
use crate::namespaces::Namespaces;
use crate::oci::{ContainerState, Linux, Process, Spec};
use crate::process::{
    FilterMoment, become_root, become_user, close_on_exec, die_with_creator, expect, install_filter,
    join_keyring, report, reset_signals, warn,
};
use crate::program::Program;
use crate::schedule::{Schedule, forget_processors};
use crate::spawn::close_others;
use crate::stdio::Streams;
use crate::sysctl::{Sysctl, private_proc};
use crate::terminal::Terminal;
use crate::{Error, Result, Rootfs, Stdio, descriptors, devices, hooks, mask, personality, pivot, seccomp};

/// Everything that the process needs, made by its creator.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) linux: &'a Linux,
    pub(crate) root: OwnedFd,
    pub(crate) propagation: Option<Propagation>,
    /// Where hooks look for the root while it is made ready.
    pub(crate) place: Option<PathBuf>,
    /// What `root` and `mounts` are opened from in the container's namespaces, where the creator can't.
    pub(crate) unopened: Option<Rootfs>,
    pub(crate) read_only: bool,
    pub(crate) mounts: Vec<Prepared>,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) process: &'a Process,
    pub(crate) identity: Identity,
    /// How it is scheduled.
    pub(crate) schedule: Schedule,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    /// Without one the container can't be started.
    pub(crate) program: Option<Program>,
    pub(crate) seccomp: Option<&'a seccomp::Program>,
    pub(crate) stdio: Stdio,
    pub(crate) channel: Channel,
    /// The files by which it enters its control group, if that is there already.
    pub(crate) entry_files: Option<Vec<OwnedFd>>,
    pub(crate) gate: Gate,
    pub(crate) preserve_fds: u32,
    pub(crate) usual_descriptors: Option<Rlimit>,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) find_program_now: bool,
}

/// Runs in the new process. Returns an exit code if the program could not be executed.
pub(crate) fn main(mut setup: Setup<'_>) -> i32 {
    let ready = match prepare(&mut setup) {
        Ok(ready) => ready,
        Err(error) => return report(&error, &setup.channel),
    };
    match ready.wait(&setup) {
        Ok(starter) => report(&ready.run(&setup), starter.as_ref().unwrap_or(&setup.channel)),
        Err(error) => report(&error, &setup.channel),
    }
}

/// Sets everything up.
fn prepare(setup: &mut Setup<'_>) -> Result<Ready> {
    let labels = begin(setup)?;
    open_sources(setup)?;
    pivot::attach_root(&setup.root, setup.place.as_deref())?;
    let mut attached = mount::attach_all(&setup.root, &setup.mounts, setup.namespaces)?;
    make_dev(setup, &attached)?;
    let entry_files = receive_groups(setup)?;
    let streams = open_streams(setup, &attached)?;
    set_names(setup)?;
    set_sysctls(setup, &attached)?;
    let pid = run_hooks(setup)?;
    labels.apply()?;
    streams.install(&setup.root, setup.identity.uid())?;
    enter_cgroup(setup, entry_files, &mut attached)?;
    finish_root(setup, &attached)?;
    if let Some(limit) = setup.usual_descriptors {
        setup.mounts.clear();
        descriptors::restore(limit);
    }
    // Late, because it may leave no descriptor to spare for the steps before.
    setup
        .identity
        .raise_limits(|warning| warn(&setup.channel, warning));
    let ready = take_identity(setup, pid)?;
    setup
        .channel
        .send(&Message::Ready)
        .doing(|| "tell the runtime that the container is ready".to_owned())?;
    Ok(ready)
}

/// Cuts the ties to the creator, and enters the namespaces.
fn begin(setup: &Setup<'_>) -> Result<Labels> {
    die_with_creator()?;
    close_others(setup.preserve_fds, setup.descriptors())?;
    rustix::process::setsid().doing(|| "start a session".to_owned())?;
    reset_signals();
    let labels = Labels::open(setup.process)?;
    if setup.namespaces.new_maps().is_some() || setup.namespaces.needs_middle() {
        expect(&setup.channel, &Message::Mapped)?;
    }
    if setup.namespaces.is_rootless() {
        protect_creator()?;
    }
    if setup.namespaces.has_user() {
        become_root()?;
    }
    setup.namespaces.enter()?;
    if setup.new_keyring {
        labels.apply_to_keys()?;
        join_keyring(setup.id)?;
    }
    rustix::process::umask(Mode::empty());
    Ok(labels)
}

/// Opens what the creator left to this process: it had no privileges, or is in another mount namespace.
fn open_sources(setup: &mut Setup<'_>) -> Result<()> {
    if let Some(rootfs) = setup.unopened.take() {
        let origin = mount::Origin {
            bundle: setup.bundle,
            root: rootfs.directory(),
            namespaces: setup.namespaces,
            label: &setup.linux.mount_label,
            propagation: setup.propagation,
            elsewhere: None,
        };
        setup.mounts = mount::prepare(&setup.spec.mounts, &origin)?;
        setup.root = rootfs.open(
            setup.bundle,
            setup.propagation,
            setup.namespaces.joined_user(),
            &setup.linux.mount_label,
        )?;
    }
    Ok(())
}

/// Fills `/dev`, unless it is the host's own.
fn make_dev(setup: &Setup<'_>, attached: &Attached) -> Result<()> {
    if attached.dev_is_bound {
        return Ok(());
    }
    let extra = &setup.linux.devices;
    let bind = setup.namespaces.has_user();
    match &attached.dev {
        Some(dev) => devices::make_devices(&setup.root, dev, extra, bind),
        None => devices::make_devices(&setup.root, dev_directory(setup, attached)?, extra, bind),
    }
}

/// The container's `/dev`: what was mounted there, or the image's own.
fn dev_directory(setup: &Setup<'_>, attached: &Attached) -> Result<OwnedFd> {
    match &attached.dev {
        Some(dev) => dev.try_clone().doing(|| "hold the container's /dev".to_owned()),
        None => mount::make_directory(&setup.root, Path::new("/dev")),
    }
}

fn open_streams<'a>(setup: &'a Setup<'_>, attached: &Attached) -> Result<Streams<'a>> {
    let (size, carriage_returns) = match &setup.stdio {
        Stdio::Inherit => return Ok(Streams::Inherited),
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => {
            return Ok(Streams::Files([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]));
        }
        Stdio::Terminal {
            width,
            height,
            carriage_returns,
        } => ((*width, *height), *carriage_returns),
    };
    let terminal = Terminal::open(attached.pts.as_ref(), &setup.root, size, carriage_returns)?;
    terminal.give_to(setup.identity.uid())?;
    if !attached.dev_is_bound {
        terminal.attach_as_console(devices::make_console(dev_directory(setup, attached)?)?)?;
    }
    setup
        .channel
        .send(&Message::Terminal(terminal.master))
        .doing(|| "hand over the terminal".to_owned())?;
    Ok(Streams::Terminal(terminal.slave))
}

fn set_names(setup: &Setup<'_>) -> Result<()> {
    let names = [
        (
            "hostname",
            &setup.spec.hostname,
            rustix::system::sethostname as fn(&[u8]) -> _,
        ),
        (
            "domainname",
            &setup.spec.domainname,
            rustix::system::setdomainname,
        ),
    ];
    for (field, name, set) in names {
        if name.is_empty() {
            continue;
        }
        if !setup.namespaces.has_uts() {
            return Err(Error::invalid(
                field,
                "without a uts namespace it would change the host's",
            ));
        }
        set(name.as_bytes()).doing(|| format!("set the {field} to {name:?}"))?;
    }
    Ok(())
}

fn set_sysctls(setup: &Setup<'_>, attached: &Attached) -> Result<()> {
    if setup.sysctls.is_empty() {
        return Ok(());
    }
    let mut own = None;
    let proc = procfs(attached, &mut own)?;
    setup.sysctls.iter().try_for_each(|sysctl| sysctl.write(proc))
}

/// A procfs that this process mounted itself.
fn procfs<'a>(attached: &'a Attached, own: &'a mut Option<OwnedFd>) -> Result<&'a OwnedFd> {
    match &attached.proc {
        Some(proc) => Ok(proc),
        None => Ok(own.insert(private_proc()?)),
    }
}

/// Has the creator run the hooks of the host, and runs those of the container. Returns the pid that the host knows.
fn run_hooks(setup: &Setup<'_>) -> Result<Option<i32>> {
    let Some(hooks) = &setup.spec.hooks else {
        return Ok(None);
    };
    setup
        .channel
        .send(&Message::HostHooks)
        .doing(|| "have hooks run".to_owned())?;
    let pid = match setup
        .channel
        .receive()
        .doing(|| "hear from the runtime".to_owned())?
    {
        Message::Pid(pid) => Some(pid),
        _ => return Err(Error::Vanished("the runtime ended".to_owned())),
    };
    let state = hook_state(setup.spec, setup.id, setup.bundle, pid, ContainerState::Creating);
    hooks::run("createContainer", &hooks.create_container, &state)?;
    Ok(pid)
}

/// The creator has made the control group by now, or is about to.
fn receive_groups(setup: &mut Setup<'_>) -> Result<Vec<OwnedFd>> {
    if let Some(files) = setup.entry_files.take() {
        return Ok(files);
    }
    match setup
        .channel
        .receive()
        .doing(|| "hear of the container's cgroup".to_owned())?
    {
        Message::Groups(files) => Ok(files),
        _ => Err(Error::Vanished("the runtime ended".to_owned())),
    }
}

/// From here on everything is charged to the container.
fn enter_cgroup(setup: &Setup<'_>, entry_files: Vec<OwnedFd>, attached: &mut Attached) -> Result<()> {
    // They are closed here: a container that waits for its start holds nothing of its host's groups.
    for file in entry_files {
        rustix::io::write(file, ENTER).doing(|| "enter the container's cgroup".to_owned())?;
    }
    forget_processors();
    let outside = mount::groups_outside(&setup.mounts);
    setup.namespaces.enter_cgroup()?;
    mount::attach_cgroups(&setup.root, &setup.mounts, setup.namespaces, &outside, attached)
}

fn finish_root(setup: &Setup<'_>, attached: &Attached) -> Result<()> {
    attached.finish()?;
    mask::mask(&setup.root, &setup.linux.masked_paths, &setup.linux.mount_label)?;
    mask::make_read_only(&setup.root, &setup.linux.readonly_paths)?;
    if setup.read_only {
        pivot::make_read_only(&setup.root)?;
    }
    pivot::pivot(&setup.root, setup.no_pivot)?;
    pivot::propagate(&setup.root, setup.propagation)?;
    match setup.namespaces.joined_mount() {
        Some(namespace) => pivot::take_along(namespace),
        None => Ok(()),
    }
}

fn take_identity(setup: &mut Setup<'_>, pid: Option<i32>) -> Result<Ready> {
    if let Some(personality) = &setup.linux.personality {
        personality::apply(personality)?;
    }
    if let Some(policy) = &setup.memory_policy {
        policy.apply()?;
    }
    setup.schedule.apply()?;
    if let Some(program) = &mut setup.program {
        program.complete_environment(setup.identity.uid().as_raw());
    }
    // Before the filter, which may deny it. What is opened from here on is close-on-exec by itself.
    close_on_exec(setup.preserve_fds)?;
    become_user(
        &setup.identity,
        &setup.process.cwd,
        |warning| warn(&setup.channel, warning),
        || setup.install_filter(FilterMoment::Privileged),
    )?;
    let path = match &setup.program {
        Some(program) if setup.find_program_now => Some(program.find()?),
        _ => None,
    };
    setup.install_filter(FilterMoment::Ready)?;
    Ok(Ready { path, pid })
}

impl Setup<'_> {
    /// Installs the filter if this is the moment for it.
    pub(crate) fn install_filter(&self, now: FilterMoment) -> Result<()> {
        match self.seccomp {
            Some(filter) if FilterMoment::of(filter, self.identity.no_new_privileges()) == now => {
                install_filter(filter, &self.channel)
            }
            _ => Ok(()),
        }
    }

    /// What must stay open in the process.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let trees = self.mounts.iter().filter_map(|mount| match &mount.source {
            Source::Tree { tree, .. } => Some(tree.as_fd()),
            Source::Inside { .. } | Source::New { .. } | Source::Cgroup | Source::Remount => None,
        });
        let streams = match &self.stdio {
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Stdio::Inherit | Stdio::Terminal { .. } => Vec::new(),
        };
        let listener = match &self.gate {
            Gate::Listener(listener) => Some(listener.as_fd()),
            Gate::Channel => None,
        };
        [self.channel.as_fd(), self.root.as_fd()]
            .into_iter()
            .chain(trees)
            .chain(streams)
            .chain(listener)
            .chain(self.entry_files.iter().flat_map(|files| borrow_all(files)))
            .chain(self.namespaces.descriptors())
    }
}
