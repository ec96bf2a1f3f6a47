//! What the process of a container does between its beginning and its program.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::net::{SocketFlags, accept_with};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::cgroups::ENTER;
use crate::channel::{Channel, Failure, Message};
use crate::create::{borrow_all, hook_state};
use crate::error::Doing;
use crate::hooks;
use crate::identity::Identity;
use crate::mount::{self, Attached, Prepared, Propagation, Source, set_propagation};
use crate::namespaces::Namespaces;
use crate::oci::{ContainerState, Linux, Spec};
use crate::program::Program;
use crate::spawn::close_others;
use crate::sysctl::{Sysctl, private_proc, write_proc};
use crate::terminal::{Terminal, make_controlling};
use crate::{Error, Result, Stdio, devices, mask, rootfs, seccomp, stdio, sys};

/// The exit code of a process that failed before its program, other than for lack of it.
const SETUP_FAILED: i32 = 125;

/// Everything that the process needs, made by its creator.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) id: &'a str,
    pub(crate) bundle: &'a Path,
    pub(crate) spec: &'a Spec,
    pub(crate) linux: &'a Linux,
    pub(crate) root: OwnedFd,
    pub(crate) read_only: bool,
    pub(crate) mounts: Vec<Prepared>,
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) sysctls: Vec<Sysctl>,
    pub(crate) identity: Identity,
    pub(crate) program: Program,
    pub(crate) seccomp: Option<&'a seccomp::Program>,
    pub(crate) stdio: Stdio,
    pub(crate) channel: Channel,
    pub(crate) entry_files: Vec<OwnedFd>,
    pub(crate) gate: Gate,
    pub(crate) preserve_fds: u32,
    pub(crate) no_pivot: bool,
    pub(crate) new_keyring: bool,
    pub(crate) find_program_now: bool,
}

/// Where the process waits for its start.
#[derive(Debug)]
pub(crate) enum Gate {
    /// At its creator.
    Channel,
    /// At its creator, and once detached at this socket.
    Listener(OwnedFd),
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

/// Tells an error to the other end, and gives the exit code for it.
pub(crate) fn report(error: &Error, to: &Channel) -> i32 {
    let failure = Failure::from(error);
    let exit_code = if failure.exit_code == 0 {
        SETUP_FAILED
    } else {
        i32::from(failure.exit_code)
    };
    // Without a listener nobody wants to know.
    let _ = to.send(&Message::Failed(failure));
    exit_code
}

/// Sets everything up.
fn prepare(setup: &mut Setup<'_>) -> Result<Ready> {
    begin(setup)?;
    rootfs::attach_root(&setup.root)?;
    let attached = mount::attach_all(&setup.root, &setup.mounts)?;
    make_dev(setup, &attached)?;
    let streams = open_streams(setup, &attached)?;
    set_names(setup)?;
    set_sysctls(setup, &attached)?;
    let pid = run_hooks(setup)?;
    label(setup, &attached)?;
    streams.install(setup.identity.uid())?;
    enter_cgroup(setup)?;
    finish_root(setup)?;
    // Late, because it may leave no descriptor to spare for the steps before.
    setup
        .identity
        .apply_limits(|warning| warn(&setup.channel, warning))?;
    let ready = take_identity(setup, pid)?;
    setup
        .channel
        .send(&Message::Ready)
        .doing(|| "tell the runtime that the container is ready".to_owned())?;
    Ok(ready)
}

/// Cuts the ties to the creator, and enters the namespaces.
fn begin(setup: &Setup<'_>) -> Result<()> {
    die_with_creator()?;
    close_others(setup.preserve_fds, setup.descriptors())?;
    rustix::process::setsid().doing(|| "start a session".to_owned())?;
    reset_signals();
    if setup.namespaces.new_maps().is_some() || setup.namespaces.needs_middle() {
        expect(&setup.channel, &Message::Mapped)?;
    }
    if setup.namespaces.has_user() {
        become_root()?;
    }
    setup.namespaces.enter()?;
    if setup.new_keyring {
        join_keyring(setup.id)?;
    }
    rustix::process::umask(Mode::empty());
    Ok(())
}

/// Waits for that one message.
pub(crate) fn expect(channel: &Channel, message: &Message) -> Result<()> {
    let received = channel.receive().doing(|| "hear from the runtime".to_owned())?;
    if std::mem::discriminant(&received) == std::mem::discriminant(message) {
        return Ok(());
    }
    Err(Error::Vanished("the runtime ended".to_owned()))
}

/// Tells the creator what is left out. If it is gone, so is this process.
pub(crate) fn warn(channel: &Channel, warning: String) {
    let _ = channel.send(&Message::Warning(warning));
}

/// Until the container is started, the end of the creator is its end.
pub(crate) fn die_with_creator() -> Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).doing(|| "follow the runtime's end".to_owned())
}

/// The program begins with no signal blocked; Rust programs ignore SIGPIPE, others expect to be ended by it.
pub(crate) fn reset_signals() {
    use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
    // It only fails for an operation that does not exist.
    let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None);
    sys::default_sigpipe();
}

/// In a new user namespace the process is nobody until it takes an id that is mapped.
pub(crate) fn become_root() -> Result<()> {
    use rustix::fs::{Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let doing = || "become root of the user namespace".to_owned();
    // Where setgroups(2) is denied there are no groups to get rid of.
    let _ = set_thread_groups(&[]);
    set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).doing(doing)?;
    set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).doing(doing)?;
    // The change of user made the kernel forget it.
    die_with_creator()
}

pub(crate) fn join_keyring(id: &str) -> Result<()> {
    let doing = || "join a session keyring".to_owned();
    let name = std::ffi::CString::new(format!("_ses.{id}"))
        .map_err(std::io::Error::from)
        .doing(doing)?;
    match sys::join_session_keyring(&name) {
        // A kernel without keyrings has none to share; a seccomp filter around the runtime may deny them.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        other => other.doing(doing),
    }
}

/// Fills `/dev`, unless it is the host's own.
fn make_dev(setup: &Setup<'_>, attached: &Attached) -> Result<()> {
    if attached.dev_is_bound {
        return Ok(());
    }
    let extra = setup.linux.devices().as_deref().unwrap_or_default();
    let bind = setup.namespaces.has_user();
    match &attached.dev {
        Some(dev) => devices::make_devices(&setup.root, dev, extra, bind),
        None => {
            let dev = mount::make_directory(&setup.root, Path::new("/dev"))?;
            devices::make_devices(&setup.root, &dev, extra, bind)
        }
    }
}

fn open_streams<'a>(setup: &'a Setup<'_>, attached: &Attached) -> Result<Streams<'a>> {
    let (width, height) = match &setup.stdio {
        Stdio::Inherit => return Ok(Streams::Inherited),
        Stdio::Fds {
            stdin,
            stdout,
            stderr,
        } => {
            return Ok(Streams::Files([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]));
        }
        Stdio::Terminal { width, height } => (*width, *height),
    };
    let terminal = Terminal::open(attached.pts.as_ref(), &setup.root, width, height)?;
    terminal.give_to(setup.identity.uid())?;
    if !attached.dev_is_bound {
        terminal.attach_as_console(devices::make_console(&setup.root)?)?;
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
            setup.spec.hostname(),
            rustix::system::sethostname as fn(&[u8]) -> _,
        ),
        (
            "domainname",
            setup.spec.domainname(),
            rustix::system::setdomainname,
        ),
    ];
    for (field, name, set) in names {
        let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else {
            continue;
        };
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
    let Some(hooks) = setup.spec.hooks() else {
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
    hooks::run("createContainer", hooks.create_container().as_deref(), &state)?;
    Ok(pid)
}

/// Has the kernel confine the program with an AppArmor profile.
fn label(setup: &Setup<'_>, attached: &Attached) -> Result<()> {
    let profile = setup
        .spec
        .process()
        .as_ref()
        .and_then(|process| process.apparmor_profile().as_deref());
    let Some(profile) = profile.filter(|profile| !profile.is_empty()) else {
        return Ok(());
    };
    let mut own = None;
    apparmor(procfs(attached, &mut own)?, profile)
}

/// Sets the AppArmor profile for the next exec, through a procfs of this process's own PID namespace.
pub(crate) fn apparmor(proc: &OwnedFd, profile: &str) -> Result<()> {
    let path = PathBuf::from(format!("{}/attr/apparmor/exec", std::process::id()));
    write_proc(proc, &path, format!("exec {profile}").as_bytes())
        .doing(|| format!("confine the process with the AppArmor profile {profile:?}"))
}

/// The standard streams, ready to be put in place.
pub(crate) enum Streams<'a> {
    /// They are in place.
    Inherited,
    /// Input, output and errors.
    Files([BorrowedFd<'a>; 3]),
    /// A terminal for all three, which becomes the controlling one.
    Terminal(OwnedFd),
}

impl Streams<'_> {
    /// Puts the streams in place and lets the user open them again.
    pub(crate) fn install(&self, user: rustix::fs::Uid) -> Result<()> {
        match self {
            Streams::Inherited => {}
            Streams::Files([stdin, stdout, stderr]) => stdio::install(stdin, stdout, stderr)?,
            Streams::Terminal(terminal) => {
                make_controlling(terminal)?;
                stdio::install(terminal, terminal, terminal)?;
            }
        }
        stdio::give_streams_to(user);
        Ok(())
    }
}

/// From here on everything is charged to the container.
fn enter_cgroup(setup: &Setup<'_>) -> Result<()> {
    for file in &setup.entry_files {
        rustix::io::write(file, ENTER).doing(|| "enter the container's cgroup".to_owned())?;
    }
    setup.namespaces.enter_cgroup()?;
    mount::attach_cgroups(&setup.root, &setup.mounts)
}

fn finish_root(setup: &Setup<'_>) -> Result<()> {
    mask::mask(
        &setup.root,
        setup.linux.masked_paths().as_deref().unwrap_or_default(),
    )?;
    mask::make_read_only(
        &setup.root,
        setup.linux.readonly_paths().as_deref().unwrap_or_default(),
    )?;
    if setup.read_only {
        rootfs::make_read_only(&setup.root)?;
    }
    rootfs::pivot(&setup.root, setup.no_pivot)?;
    if let Some(name) = setup
        .linux
        .rootfs_propagation()
        .as_deref()
        .filter(|name| !name.is_empty())
    {
        let propagation = Propagation::from_name(name)
            .ok_or_else(|| Error::invalid("linux.rootfsPropagation", format!("{name:?} is not known")))?;
        set_propagation(&setup.root, propagation).doing(|| format!("make the root file system {name}"))?;
    }
    Ok(())
}

fn take_identity(setup: &mut Setup<'_>, pid: Option<i32>) -> Result<Ready> {
    let process = setup
        .spec
        .process()
        .as_ref()
        .ok_or_else(|| Error::invalid("process", "it is missing"))?;
    if let Some(personality) = setup.linux.personality() {
        crate::personality::apply(personality)?;
    }
    setup.program.complete_environment(setup.identity.uid().as_raw());
    let filter = setup.seccomp.filter(|_| !setup.identity.no_new_privileges());
    become_user(&setup.identity, process.cwd(), filter)?;
    let path = if setup.find_program_now {
        Some(setup.program.find()?)
    } else {
        None
    };
    Ok(Ready { path, pid })
}

/// Becomes the user, in its working directory. A filter that is installed here needs privileges, and holds from then
/// on for this process too.
pub(crate) fn become_user(identity: &Identity, cwd: &Path, filter: Option<&seccomp::Program>) -> Result<()> {
    let entered = enter_directory(cwd, true);
    identity.take_on(|| {
        die_with_creator()?;
        filter.map_or(Ok(()), install_filter)
    })?;
    match entered {
        // Root may be locked out where the user is not, as on a network file system.
        Err(Error::System { .. }) => enter_directory(cwd, false),
        other => other,
    }
}

/// Makes `cwd` the working directory, which must be inside the container's root: a magic link such as
/// `/proc/self/fd/7` could lead out of it.
pub(crate) fn enter_directory(cwd: &Path, make: bool) -> Result<()> {
    let doing = || format!("enter the working directory {}", cwd.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let root = crate::terminal::root_directory()?;
    let directory = match mount::retry(|| openat2(&root, cwd, flags, Mode::empty(), inside)) {
        Err(rustix::io::Errno::NOENT) if make => mount::make_directory(&root, cwd)?,
        other => other.doing(doing)?,
    };
    rustix::process::fchdir(&directory).doing(doing)?;
    let now = rustix::process::getcwd(Vec::new()).doing(doing)?;
    if now.as_bytes().first() != Some(&b'/') {
        return Err(Error::invalid(
            "process.cwd",
            format!("{} is outside of the container's root", cwd.display()),
        ));
    }
    Ok(())
}

pub(crate) fn install_filter(filter: &seccomp::Program) -> Result<()> {
    filter
        .install()
        .map(drop)
        .doing(|| "install the seccomp filter".to_owned())
}

/// A process that only waits for its start.
struct Ready {
    path: Option<PathBuf>,
    pid: Option<i32>,
}

impl Ready {
    /// Waits until the container is started. Returns the connection to the starter if that is not the creator.
    fn wait(&self, setup: &Setup<'_>) -> Result<Option<Channel>> {
        let creator = &setup.channel;
        let listener = match creator.receive().doing(|| "wait for the start".to_owned())? {
            Message::Ready => {
                outlive_creator()?;
                return Ok(None);
            }
            Message::Detach => match &setup.gate {
                Gate::Listener(listener) => listener,
                Gate::Channel => {
                    return Err(Error::Vanished("it was detached without a listener".to_owned()));
                }
            },
            _ => return Err(Error::Vanished("the runtime ended".to_owned())),
        };
        outlive_creator()?;
        creator
            .send(&Message::Detach)
            .doing(|| "tell the runtime to go".to_owned())?;
        loop {
            let socket =
                accept_with(listener, SocketFlags::CLOEXEC).doing(|| "wait for the start".to_owned())?;
            let starter = Channel::from_socket(socket);
            if matches!(starter.receive(), Ok(Message::Ready)) {
                return Ok(Some(starter));
            }
        }
    }

    /// Runs the program; returns only if that failed.
    fn run(&self, setup: &Setup<'_>) -> Error {
        match self.last_steps(setup) {
            Ok(path) => setup.program.execute(&path),
            Err(error) => error,
        }
    }

    fn last_steps(&self, setup: &Setup<'_>) -> Result<PathBuf> {
        if let Some(hooks) = setup.spec.hooks() {
            let state = hook_state(
                setup.spec,
                setup.id,
                setup.bundle,
                self.pid,
                ContainerState::Created,
            );
            hooks::run("startContainer", hooks.start_container().as_deref(), &state)?;
        }
        let path = match &self.path {
            Some(path) => path.clone(),
            None => setup.program.find()?,
        };
        close_on_exec(setup.preserve_fds)?;
        if let Some(filter) = setup.seccomp.filter(|_| setup.identity.no_new_privileges()) {
            install_filter(filter)?;
        }
        Ok(path)
    }
}

/// Keeps everything but the streams and the `preserved` descriptors after them from the program.
pub(crate) fn close_on_exec(preserved: u32) -> Result<()> {
    let first = i32::try_from(preserved).unwrap_or(i32::MAX - 3).saturating_add(3);
    sys::close_range(first, i32::MAX, true).doing(|| "keep descriptors from the program".to_owned())
}

/// The container was acknowledged: it no longer depends on its creator.
pub(crate) fn outlive_creator() -> Result<()> {
    set_parent_process_death_signal(None).doing(|| "outlive the runtime".to_owned())
}

impl Setup<'_> {
    /// What must stay open in the process.
    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let trees = self.mounts.iter().filter_map(|mount| match &mount.source {
            Source::Tree { tree, .. } => Some(tree.as_fd()),
            Source::New { .. } | Source::Cgroup => None,
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
            .chain(borrow_all(&self.entry_files))
            .chain(self.namespaces.descriptors())
    }
}
