//! A process that starts further processes in a container, for who starts one every second.
//!
//! Most of what one more process in a container costs is the way into the container's control groups: on v1 each of eight
//! hierarchies has the kernel make a set of groups that it throws away with the next step. A launcher has gone that way once, and
//! what it forks is there already, as it is already in the container's PID namespace. Nothing is read or compiled again.
//!
//! It holds all that a creator of containers may do, so the container must not get at it: it stays in its creator's own PID,
//! mount and all other namespaces, where no process of the container can see, signal or trace it, and what it forks is as far
//! from the container as what its creator would fork. It has no descriptors but the container's pidfd and the socket to its
//! creator, and never hears from the container. With cgroup v2 it stays in its creator's group, too.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::cgroups::{ENTER, Subgroup};
use crate::channel::{Channel, GroupBy, Launch, MAX_ARGUMENTS, Message};
use crate::check::check_process;
use crate::create::{protect_creator, set_oom_score};
use crate::error::Doing;
use crate::exec::{Addition, ExecTarget, assign_resctrl};
use crate::oci::Process;
use crate::process;
use crate::program::Program;
use crate::schedule::Affinity;
use crate::spawn::{close_others, kill_and_reap};
use crate::sys::{self, CloneArgs, Spawned};
use crate::{Error, Result, Stdio};

/// A process that starts others in a container. Dropping it kills it, and leaves it to its creator to be reaped.
#[derive(Debug)]
pub struct Launcher {
    process: Spawned,
    channel: Channel,
}

impl Launcher {
    /// Whether there can be one for this container: its processes are added by root, have no say in where they begin to run,
    /// and no listener decides on their system calls.
    pub fn is_possible(target: &ExecTarget<'_>, process: &Process) -> bool {
        rustix::process::geteuid().is_root()
            && target.scope.is_none()
            && process.exec_cpu_affinity.is_none()
            && !process.terminal
            && matches!(target.agent(), Ok(None))
    }

    /// Whether it can pass these arguments on: there are limits to what a message holds.
    pub fn takes(arguments: &[String]) -> bool {
        let length: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
        length <= MAX_ARGUMENTS && !arguments.iter().any(|argument| argument.contains('\0'))
    }

    /// Starts it, for processes that are like `process` but for their arguments. The caller must be single-threaded. It ends with
    /// its creator.
    ///
    /// # Errors
    /// When the process makes no sense, the container is gone, or the kernel refuses. Nothing is left to reap.
    pub fn start(target: &ExecTarget<'_>, process: &Process) -> Result<Launcher> {
        let (process, channel) = start_server(target, process, &mut serve)?;
        Ok(Launcher { process, channel })
    }

    /// Starts a process with these arguments, and returns its pid once its program runs. It is a child of the caller's.
    ///
    /// # Errors
    /// [`Error::CannotRun`] when the program is missing or can't be executed, [`Error::Vanished`] when there is no launcher any
    /// more, and others when the kernel refuses. Nothing is left to reap but the launcher.
    pub fn launch(
        &self,
        arguments: &[String],
        streams: [OwnedFd; 3],
        subgroup: Option<&Subgroup>,
    ) -> Result<Pid> {
        let mut text = String::with_capacity(MAX_ARGUMENTS);
        for argument in arguments {
            text.push_str(argument);
            text.push('\0');
        }
        let mut files = Vec::with_capacity(4);
        files.extend(streams);
        let group = match subgroup {
            None => GroupBy::None,
            Some(subgroup) => match subgroup.directory()? {
                Some(directory) => {
                    let directory = directory.try_clone_to_owned();
                    files.push(directory.doing(|| "hold a process's own group".to_owned())?);
                    GroupBy::Directory
                }
                None => {
                    files.push(subgroup.entry_file()?);
                    GroupBy::File
                }
            },
        };
        let launch = Message::Launch(Launch {
            arguments: text,
            files,
            group,
        });
        self.channel.send(&launch).map_err(|_| gone())?;
        drop(launch);
        self.accompany()
    }

    /// Listens until the program runs, or does not.
    fn accompany(&self) -> Result<Pid> {
        let mut failure = None;
        loop {
            match self.channel.receive().map_err(|_| gone())? {
                Message::Failed(failed) => failure = Some(failed),
                Message::Pid(0) => return Err(failure.map_or_else(gone, Error::from)),
                Message::Pid(pid) => {
                    let pid = Pid::from_raw(pid);
                    let Some(failure) = failure else { return Ok(pid) };
                    // It has said its last word and ends by itself.
                    let _ = nix::sys::wait::waitpid(pid, None);
                    return Err(failure.into());
                }
                Message::Warning(_) => {}
                _ => return Err(gone()),
            }
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // It may have ended already. Waiting for its end is not for here: its group may be frozen.
        let _ = rustix::process::pidfd_send_signal(&self.process.pidfd, rustix::process::Signal::KILL);
    }
}

fn gone() -> Error {
    Error::Vanished("the launcher of the container's commands is gone".to_owned())
}

/// Makes a copy of this process that has gone as far into the container as [`enter`] goes, and goes on with `serve`, for processes
/// that are like `process`. Returns it with the channel to it.
pub(crate) fn start_server(
    target: &ExecTarget<'_>,
    process: &Process,
    serve: &mut dyn FnMut(Addition<'_>) -> i32,
) -> Result<(Spawned, Channel)> {
    check_process(process)?;
    protect_creator()?;
    let (ours, theirs) = Channel::pair().doing(|| "make a socket pair".to_owned())?;
    let affinity = Affinity::new(process)?;
    let addition = Addition {
        entry_files: target.cgroup.v1_entry_files()?,
        is_launched: true,
        ..Addition::new(target, process, &affinity, theirs)?
    };
    // In each of the container's v1 groups, and so where its kill switch is: a stopped shim can't end it.
    let args = CloneArgs {
        flags: 0,
        cgroup: target.cgroup.begin_in(),
    };
    let spawned = sys::spawn(args, move || serve(addition))
        .doing(|| format!("make what starts the commands of container {}", target.id))?;
    match introduce(&spawned, &ours, target, process) {
        Ok(()) => Ok((spawned, ours)),
        Err(error) => {
            kill_and_reap(&spawned);
            Err(error)
        }
    }
}

/// What it passes on to those that it starts.
fn introduce(spawned: &Spawned, channel: &Channel, target: &ExecTarget<'_>, process: &Process) -> Result<()> {
    let doing = || format!("talk to what starts the commands of container {}", target.id);
    assign_resctrl(target, spawned.pid)?;
    if let Some(score) = process.oom_score_adj {
        // What is refused is told by whoever adds a process without a launcher.
        let _ = set_oom_score(spawned.pid, score);
    }
    match channel.receive().doing(doing)? {
        Message::Ready => Ok(()),
        Message::Failed(failure) => Err(failure.into()),
        _ => Err(gone()),
    }
}

/// The life of a launcher. Returns its exit code.
fn serve(mut addition: Addition<'_>) -> i32 {
    if let Err(error) = enter(&mut addition, &[]) {
        return process::report(&error, &addition.channel);
    }
    let mut said = addition.channel.send(&Message::Ready);
    while said.is_ok() {
        let Ok(Message::Launch(launch)) = addition.channel.receive() else {
            return 0;
        };
        let answer = match start(&mut addition, launch) {
            Ok(pid) => Message::Pid(pid.as_raw()),
            Err(error) => {
                process::report(&error, &addition.channel);
                Message::Pid(0)
            }
        };
        said = addition.channel.send(&answer);
    }
    0
}

/// Goes into the container's groups, but none of its namespaces. Besides what it needs itself, it has the descriptors `kept`.
pub(crate) fn enter(addition: &mut Addition<'_>, kept: &[BorrowedFd<'_>]) -> Result<()> {
    process::die_with_creator()?;
    let own = [addition.channel.as_fd(), addition.target.pidfd];
    let groups = addition.entry_files.iter().map(AsFd::as_fd);
    close_others(0, own.into_iter().chain(kept.iter().copied()).chain(groups))?;
    for file in std::mem::take(&mut addition.entry_files) {
        rustix::io::write(&file, ENTER).doing(|| "enter the container's cgroup".to_owned())?;
    }
    addition.affinity.finish()?;
    if !addition.target.in_user_namespace {
        // Whoever enters another user namespace has all of it again, and a keyring is that namespace's.
        addition.identity.limit_bounding_early()?;
        if addition.process.selinux_label.is_empty() {
            process::join_keyring(addition.target.id)?;
            addition.has_keyring = true;
        }
    }
    // Here once: what this process ignores, its children do. All stay blocked in it.
    sys::default_signals();
    setns(addition.target.pidfd, CloneFlags::CLONE_NEWPID)
        .doing(|| "let processes begin in the container's PID namespace".to_owned())
}

fn start(addition: &mut Addition<'_>, launch: Launch) -> Result<Pid> {
    let arguments = launch
        .arguments
        .split_terminator('\0')
        .map(str::to_owned)
        .collect();
    addition.program = Program::new(&Process {
        args: arguments,
        env: addition.process.env.clone(),
        ..Process::default()
    })?;
    let mut files = launch.files.into_iter();
    let (Some(stdin), Some(stdout), Some(stderr)) = (files.next(), files.next(), files.next()) else {
        return Err(gone());
    };
    addition.stdio = Stdio::Fds {
        stdin,
        stdout,
        stderr,
    };
    let own = files.next();
    let own_group: Option<BorrowedFd<'_>> = own.as_ref().map(AsFd::as_fd);
    let begin_in = own_group.filter(|_| launch.group == GroupBy::Directory);
    if launch.group == GroupBy::File {
        addition.entry_files = own_group
            .map(|file| file.try_clone_to_owned())
            .transpose()
            .doing(|| "hold a process's own group".to_owned())?
            .into_iter()
            .collect();
    }
    // This process goes on when the program runs, or the process has said what is wrong and ended.
    let flags = libc::CLONE_PARENT.unsigned_abs() | libc::CLONE_VFORK.unsigned_abs();
    let args = CloneArgs {
        flags: u64::from(flags),
        cgroup: begin_in,
    };
    let spawned = sys::spawn(args, || addition.main()).doing(|| "make a process".to_owned());
    addition.stdio = Stdio::Inherit;
    addition.entry_files = Vec::new();
    spawned.map(|spawned| spawned.pid)
}
