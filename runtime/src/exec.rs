//! One more process in a running container.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, open};

use crate::cgroups::systemd::Scope;
use crate::cgroups::{Cgroup, ENTER, Subgroup};
use crate::channel::{Channel, Message};
use crate::check::check_process;
use crate::create::{borrow_all, hook_state, protect_creator, set_oom_score};
use crate::error::Doing;
use crate::identity::Identity;
use crate::label::Labels;
use crate::listener::{Agent, pid_of};
use crate::memory_policy::MemoryPolicy;
use crate::namespaces::ChildrenIn;
use crate::oci::{self, ContainerState, LinuxNamespaceType, Process, Spec};
use crate::process;
use crate::program::Program;
use crate::schedule::{Affinity, Schedule};
use crate::spawn::{close_others, kill_and_reap, spawn_through};
use crate::stdio::Streams;
use crate::sys::{self, CloneArgs, Spawned};
use crate::terminal::{Terminal, root_directory};
use crate::{Result, Stdio, pivot, resctrl, seccomp, stdio};

/// Which container a process is started in.
#[derive(Clone, Copy, Debug)]
pub struct ExecTarget<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The bundle directory, absolute.
    pub bundle: &'a Path,
    /// The container's first process, alive.
    pub pidfd: BorrowedFd<'a>,
    /// The container's configuration.
    pub spec: &'a Spec,
    /// The container is in another user namespace than the caller; see [`crate::Created::in_user_namespace`].
    pub in_user_namespace: bool,
    /// The container's control group.
    pub cgroup: &'a Cgroup,
    /// The scope that it is, if it is one of a user's systemd, which has to move the process into it: the user may not
    /// where the groups that it comes from are not the user's.
    pub scope: Option<&'a Scope>,
    /// The container's system call filter, which holds for this process too; see [`crate::Created::seccomp`].
    pub seccomp: Option<&'a seccomp::Program>,
    /// A group below the container's to enter as well, so that all that the process starts can be found.
    pub subgroup: Option<&'a Subgroup>,
}

/// A process that runs in a container.
#[derive(Debug)]
pub struct Execed {
    /// As the caller's pid namespace numbers it. It is the caller's child.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The terminal's master, with [`Stdio::Terminal`].
    pub terminal: Option<OwnedFd>,
    /// What was refused by the kernel and left out, in sentences.
    pub warnings: Vec<String>,
}

/// Starts a process in a container and returns once its program runs. The caller must be single-threaded.
/// The process is in no session of the caller's, and lives on when the caller ends.
///
/// # Errors
/// [`crate::Error::CannotRun`] when the program is missing or can't be executed; others when the container is gone or the
/// kernel refuses. Nothing is left to reap.
pub fn exec(
    target: &ExecTarget<'_>,
    process: &oci::Process,
    stdio: Stdio,
    preserve_fds: u32,
) -> Result<Execed> {
    check_process(process)?;
    target.agent()?;
    protect_creator()?;
    let mut entry_files = match target.scope {
        None => target.cgroup.remaining_entry_files()?,
        Some(_) => Vec::new(),
    };
    let begin_in = match target.subgroup {
        None => target.cgroup.begin_in(),
        Some(subgroup) => {
            let begin_in = subgroup.begin_in();
            if begin_in.is_none() {
                entry_files.push(subgroup.entry_file()?);
            }
            begin_in
        }
    };
    let (creator, channel) = Channel::pair().doing(|| "make a socket pair".to_owned())?;
    let affinity = Affinity::new(process)?;
    let is_rootless = !rustix::process::geteuid().is_root();
    let addition = Addition {
        is_in_user_namespace: is_rootless,
        entry_files,
        stdio,
        preserve_fds,
        ..Addition::new(target, process, &affinity, channel)?
    };
    let spawned = {
        let _processors = affinity.begin()?;
        // What is moved into the closure is closed here when it returns in this process.
        let mut addition = addition;
        let args = CloneArgs {
            flags: 0,
            cgroup: begin_in,
        };
        if is_rootless {
            let enter = || enter_as_user(target);
            spawn_through(enter, args, move || addition.main())?
        } else {
            let _children = ChildrenIn::namespace(Some(target.pidfd))?;
            sys::spawn(args, move || addition.main()).doing(|| "make a process".to_owned())?
        }
    };
    let attached = target.scope.map_or(Ok(()), |scope| scope.attach(spawned.pid));
    let assigned = attached
        .map_err(crate::Error::from)
        .and_then(|()| assign_resctrl(target, spawned.pid));
    if let Err(error) = assigned {
        kill_and_reap(&spawned);
        return Err(error);
    }
    let mut warnings = Vec::new();
    warnings.extend(
        process
            .oom_score_adj
            .and_then(|score| set_oom_score(spawned.pid, score)),
    );
    match accompany(&creator, target, &spawned, &mut warnings) {
        Ok(terminal) => Ok(Execed {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            terminal,
            warnings,
        }),
        Err(error) => {
            kill_and_reap(&spawned);
            Err(error)
        }
    }
}

fn memory_policy(target: &ExecTarget<'_>) -> Result<Option<MemoryPolicy>> {
    let linux = target.spec.linux.as_ref();
    let policy = linux.and_then(|linux| linux.memory_policy.as_ref());
    policy.map(MemoryPolicy::new).transpose()
}

/// Enters what a user has to be in to be let into anything else of the container.
fn enter_as_user(target: &ExecTarget<'_>) -> Result<()> {
    setns(target.pidfd, CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID)
        .doing(|| format!("join the user namespace of container {}", target.id))
}

pub(crate) fn assign_resctrl(target: &ExecTarget<'_>, pid: Pid) -> Result<()> {
    match target
        .spec
        .linux
        .as_ref()
        .and_then(|linux| linux.intel_rdt.as_ref())
    {
        Some(rdt) => resctrl::assign_added(rdt, target.id, pid.as_raw()),
        None => Ok(()),
    }
}

/// Listens until the program runs. Returns the terminal's master.
fn accompany(
    creator: &Channel,
    target: &ExecTarget<'_>,
    spawned: &Spawned,
    warnings: &mut Vec<String>,
) -> Result<Option<OwnedFd>> {
    let mut terminal = None;
    // The process waits for this, so that what was written to its files in /proc came before its program.
    if let Err(errno) = creator.send(&Message::Mapped)
        && errno != rustix::io::Errno::PIPE
    {
        return Err(errno).doing(|| "talk to the new process".to_owned());
    }
    loop {
        match creator
            .receive()
            .doing(|| "hear from the new process".to_owned())?
        {
            Message::Terminal(master) => terminal = Some(master),
            Message::Listener(listener) => target.hand_over(&listener, spawned.pid)?,
            Message::Warning(warning) => warnings.push(warning),
            Message::Failed(failure) => return Err(failure.into()),
            // Either the exec closed its end, or a signal ended the process first: reaping tells.
            _ => return Ok(terminal),
        }
    }
}

impl ExecTarget<'_> {
    pub(crate) fn agent(&self) -> Result<Option<Agent<'_>>> {
        let profile = self.spec.linux.as_ref().and_then(|linux| linux.seccomp.as_ref());
        match (profile, self.seccomp) {
            (Some(profile), Some(filter)) => Agent::of(profile, filter, self.bundle),
            _ => Ok(None),
        }
    }

    /// Passes the listener of an added process on.
    fn hand_over(&self, listener: &OwnedFd, pid: Pid) -> Result<()> {
        let Some(agent) = self.agent()? else { return Ok(()) };
        let first =
            pid_of(self.pidfd).doing(|| format!("find the first process of container {}", self.id))?;
        let state = hook_state(
            self.spec,
            self.id,
            self.bundle,
            Some(first),
            ContainerState::Running,
        );
        agent.hand_over(listener, pid.as_raw(), &state)
    }
}

/// A process to be added.
pub(crate) struct Addition<'a> {
    pub(crate) target: &'a ExecTarget<'a>,
    /// The process between it and the creator has entered that.
    pub(crate) is_in_user_namespace: bool,
    pub(crate) process: &'a Process,
    pub(crate) affinity: &'a Affinity,
    pub(crate) schedule: Schedule,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) identity: Identity,
    pub(crate) program: Program,
    pub(crate) entry_files: Vec<OwnedFd>,
    pub(crate) stdio: Stdio,
    pub(crate) preserve_fds: u32,
    pub(crate) channel: Channel,
    /// A launcher or a repeater has made it, which closed all other descriptors, ignores no signal, is in the container's groups,
    /// and has its OOM score. Nobody reads warnings then, which would fill the channel.
    pub(crate) is_launched: bool,
    /// It is in the container's session keyring.
    pub(crate) has_keyring: bool,
    /// Its streams are the user's and none of them is the host's null device.
    pub(crate) has_own_streams: bool,
    /// What is executed: here, because nobody is left to drop it, so that the next one takes its place.
    pub(crate) path: Option<CString>,
}

impl<'a> Addition<'a> {
    /// One that has this process's streams, and nothing done for it yet.
    pub(crate) fn new(
        target: &'a ExecTarget<'a>,
        process: &'a Process,
        affinity: &'a Affinity,
        channel: Channel,
    ) -> Result<Addition<'a>> {
        Ok(Addition {
            target,
            is_in_user_namespace: false,
            process,
            affinity,
            schedule: Schedule::new(process)?,
            memory_policy: memory_policy(target)?,
            identity: Identity::new(process)?,
            program: Program::new(process)?,
            entry_files: Vec::new(),
            stdio: Stdio::Inherit,
            preserve_fds: 0,
            channel,
            is_launched: false,
            has_keyring: false,
            has_own_streams: false,
            path: None,
        })
    }

    /// Runs in the new process. Returns an exit code if the program could not be executed.
    pub(crate) fn main(&mut self) -> i32 {
        let error = match self.prepare() {
            Ok(path) => self.program.execute(self.path.insert(path)),
            Err(error) => error,
        };
        process::report(&error, &self.channel)
    }

    fn prepare(&mut self) -> Result<CString> {
        process::die_with_creator()?;
        if !self.is_launched {
            close_others(self.preserve_fds, self.descriptors())?;
        }
        rustix::process::setsid().doing(|| "start a session".to_owned())?;
        if self.is_launched {
            process::unblock_signals();
        } else {
            process::reset_signals();
        }
        let labels = Labels::open(self.process)?;
        self.join(&labels)?;
        labels.apply()?;
        self.open_streams()?;
        let warn = Self::warner(&self.channel, self.is_launched);
        self.identity.raise_limits(warn);
        // Before the filter, which may deny it. What is opened from here on is close-on-exec by itself.
        process::close_on_exec(self.preserve_fds)?;
        self.take_identity()?;
        if !self.is_launched {
            process::expect(&self.channel, &Message::Mapped)?;
        }
        process::outlive_creator()?;
        let path = self.program.find()?;
        self.identity.set_limits()?;
        if let Some(filter) = self.target.seccomp.filter(|_| self.identity.no_new_privileges()) {
            process::install_filter(filter, &self.channel)?;
        }
        Ok(path)
    }

    /// The root of a container without a mount namespace of its own, where the root is another one.
    fn detached_root(&self) -> Result<Option<OwnedFd>> {
        let mut listed = self.target.spec.linux.iter().flat_map(|linux| &linux.namespaces);
        let has_new = listed.any(|n| n.typ == LinuxNamespaceType::Mount && n.path.as_os_str().is_empty());
        if has_new {
            return Ok(None);
        }
        self.root().map(Some)
    }

    /// The container's root, seen from outside.
    pub(crate) fn root(&self) -> Result<OwnedFd> {
        let doing = || format!("open the root directory of container {}", self.target.id);
        let path = format!("/proc/{}/root", pid_of(self.target.pidfd).doing(doing)?);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty()).doing(doing)
    }

    /// Joins the container's namespaces. Those that it shares with the host may be of a user namespace that this process
    /// has no say in; then it is in them already, and joins what the configuration lists.
    fn join_namespaces(&self) -> Result<()> {
        let doing = || format!("join the namespaces of container {}", self.target.id);
        let listed = self.target.spec.linux.iter().flat_map(|linux| &linux.namespaces);
        let listed = listed.fold(CloneFlags::CLONE_NEWNS, |flags, namespace| {
            flags | CloneFlags::from_bits_retain(namespace.typ.clone_flag())
        });
        let here = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWPID;
        if self.is_in_user_namespace {
            return setns(self.target.pidfd, listed - here).doing(doing);
        }
        let user = if self.target.in_user_namespace {
            CloneFlags::CLONE_NEWUSER
        } else {
            CloneFlags::empty()
        };
        let all = CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS
            | CloneFlags::CLONE_NEWCGROUP
            | (listed & CloneFlags::from_bits_retain(LinuxNamespaceType::Time.clone_flag()));
        match setns(self.target.pidfd, all | user) {
            Err(Errno::EPERM) => setns(self.target.pidfd, (listed - here) | user).doing(doing),
            other => other.doing(doing),
        }
    }

    /// Enters the container: its cgroup, then all its namespaces at once.
    fn join(&self, labels: &Labels) -> Result<()> {
        for file in &self.entry_files {
            rustix::io::write(file, ENTER).doing(|| "enter the container's cgroup".to_owned())?;
        }
        if !self.is_launched {
            self.affinity.finish()?;
        }
        let root = self.detached_root()?;
        self.join_namespaces()?;
        if self.target.in_user_namespace {
            process::become_root()?;
        }
        root.map_or(Ok(()), pivot::enter)?;
        if self.has_keyring {
            return Ok(());
        }
        labels.apply_to_keys()?;
        process::join_keyring(self.target.id)
    }

    fn open_streams(&self) -> Result<()> {
        let streams = match &self.stdio {
            Stdio::Inherit => Streams::Inherited,
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => Streams::Files([stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]),
            Stdio::Terminal {
                width,
                height,
                carriage_returns,
            } => {
                let size = (*width, *height);
                let terminal = Terminal::open(None, root_directory()?, size, *carriage_returns)?;
                terminal.give_to(self.identity.uid())?;
                let message = Message::Terminal(terminal.master);
                self.channel
                    .send(&message)
                    .doing(|| "hand over the terminal".to_owned())?;
                Streams::Terminal(terminal.slave)
            }
        };
        match streams {
            Streams::Files([stdin, stdout, stderr]) if self.has_own_streams => {
                stdio::install(stdin, stdout, stderr)
            }
            streams => streams.install(root_directory()?, self.identity.uid()),
        }
    }

    fn take_identity(&mut self) -> Result<()> {
        if let Some(personality) = self
            .target
            .spec
            .linux
            .as_ref()
            .and_then(|linux| linux.personality.as_ref())
        {
            crate::personality::apply(personality)?;
        }
        if let Some(policy) = &self.memory_policy {
            policy.apply()?;
        }
        self.schedule.apply()?;
        self.program.complete_environment(self.identity.uid().as_raw());
        let filter = self.target.seccomp.filter(|_| !self.identity.no_new_privileges());
        process::become_user(
            &self.identity,
            &self.process.cwd,
            Self::warner(&self.channel, self.is_launched),
            || filter.map_or(Ok(()), |filter| process::install_filter(filter, &self.channel)),
        )
    }

    fn warner(channel: &Channel, is_launched: bool) -> impl FnMut(String) {
        move |warning| {
            if !is_launched {
                process::warn(channel, warning);
            }
        }
    }

    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let streams = match &self.stdio {
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => vec![stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            Stdio::Inherit | Stdio::Terminal { .. } => Vec::new(),
        };
        [self.channel.as_fd(), self.target.pidfd]
            .into_iter()
            .chain(streams)
            .chain(borrow_all(&self.entry_files))
    }
}
