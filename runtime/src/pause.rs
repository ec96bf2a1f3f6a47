//! The process that holds a pod's namespaces open.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::channel::{Channel, Message};
use crate::create::protect_creator;
use crate::error::Doing;
use crate::idmap::{check_maps, write_maps};
use crate::oci;
use crate::spawn::{close_others, kill_and_reap};
use crate::sys::{self, CloneArgs};
use crate::sysctl::{Scope, Sysctl};
use crate::{Error, Result, process};

/// Which namespaces a pause holds, and how they are configured.
#[derive(Clone, Debug, Default)]
pub struct PauseArgs<'a> {
    /// A new network namespace. Its `lo` is left down: that is CNI's business.
    pub network: bool,
    /// A new IPC namespace.
    pub ipc: bool,
    /// A new UTS namespace with this host name.
    pub hostname: Option<&'a str>,
    /// A new PID namespace, in which the pause is PID 1 and reaps.
    pub pid: bool,
    /// A new user namespace with these uid and gid mappings, which owns all the others.
    pub user: Option<(&'a [oci::LinuxIdMapping], &'a [oci::LinuxIdMapping])>,
    /// Namespaced sysctls, dotted name to value, set inside the new namespaces.
    pub sysctls: Option<&'a BTreeMap<String, String>>,
}

/// A running pause process. It ends with its creator, or when it is sent SIGTERM or SIGKILL.
#[derive(Debug)]
pub struct Pause {
    /// As the caller's pid namespace numbers it. It is the caller's child.
    pub pid: Pid,
    /// The same as a descriptor.
    pub pidfd: OwnedFd,
    /// The namespaces that were asked for.
    pub namespaces: HeldNamespaces,
}

/// Open namespaces; lend them to a container with [`HeldNamespaces::borrow`].
#[derive(Debug, Default)]
pub struct HeldNamespaces {
    /// The user namespace.
    pub user: Option<OwnedFd>,
    /// The network namespace.
    pub network: Option<OwnedFd>,
    /// The IPC namespace.
    pub ipc: Option<OwnedFd>,
    /// The UTS namespace.
    pub uts: Option<OwnedFd>,
    /// The PID namespace.
    pub pid: Option<OwnedFd>,
}

impl HeldNamespaces {
    /// The namespaces as a container joins them.
    pub fn borrow(&self) -> crate::JoinedNamespaces<'_> {
        crate::JoinedNamespaces {
            user: self.user.as_ref().map(AsFd::as_fd),
            network: self.network.as_ref().map(AsFd::as_fd),
            ipc: self.ipc.as_ref().map(AsFd::as_fd),
            uts: self.uts.as_ref().map(AsFd::as_fd),
            pid: self.pid.as_ref().map(AsFd::as_fd),
        }
    }
}

/// Starts a pause: a child without a program of its own, that only waits. The caller must be single-threaded.
///
/// # Errors
/// When a sysctl is not namespaced or not known, or the kernel refuses; nothing is left behind.
pub fn start_pause(args: &PauseArgs<'_>) -> Result<Pause> {
    let sysctls = sysctls(args)?;
    if let Some((uids, gids)) = args.user {
        check_maps(uids, gids)?;
    }
    protect_creator()?;
    let (creator, channel) = Channel::pair().doing(|| "make a socket pair".to_owned())?;
    let spawned = sys::spawn(
        CloneArgs {
            flags: flags(args),
            cgroup: None,
        },
        move || match prepare(args, &sysctls, &channel) {
            Ok(()) => {
                drop(channel);
                wait_for_the_end()
            }
            Err(error) => process::report(&error, &channel),
        },
    )
    .doing(|| "make the pause".to_owned())?;
    match accompany(args, &creator, spawned.pid) {
        Ok(namespaces) => Ok(Pause {
            pid: spawned.pid,
            pidfd: spawned.pidfd,
            namespaces,
        }),
        Err(error) => {
            kill_and_reap(&spawned);
            Err(error)
        }
    }
}

fn sysctls(args: &PauseArgs<'_>) -> Result<Vec<Sysctl>> {
    let list = args.sysctls.into_iter().flatten();
    list.map(|(name, value)| {
        let sysctl = Sysctl::new(name, value)?;
        let own = match sysctl.scope() {
            Scope::Network => args.network,
            Scope::Ipc => args.ipc,
            Scope::Uts => args.hostname.is_some(),
        };
        if own {
            return Ok(sysctl);
        }
        Err(Error::invalid(
            format!("the sysctl {name}"),
            "the pod shares that namespace with the host",
        ))
    })
    .collect()
}

fn flags(args: &PauseArgs<'_>) -> u64 {
    let wanted = [
        (args.network, libc::CLONE_NEWNET),
        (args.ipc, libc::CLONE_NEWIPC),
        (args.hostname.is_some(), libc::CLONE_NEWUTS),
        (args.pid, libc::CLONE_NEWPID),
        (args.user.is_some(), libc::CLONE_NEWUSER),
    ];
    let flags = wanted
        .into_iter()
        .filter(|(wanted, _)| *wanted)
        .fold(0, |flags, (_, flag)| flags | flag);
    u64::from(flags.unsigned_abs())
}

fn accompany(args: &PauseArgs<'_>, channel: &Channel, pid: Pid) -> Result<HeldNamespaces> {
    if let Some((uids, gids)) = args.user {
        write_maps(pid, uids, gids)?;
        // If it is gone it said why.
        let _ = channel.send(&Message::Mapped);
    }
    match channel.receive().doing(|| "hear from the pause".to_owned())? {
        Message::Ready => hold(args, pid),
        Message::Failed(failure) => Err(failure.into()),
        _ => Err(Error::Vanished("the pause was ended by a signal".to_owned())),
    }
}

fn hold(args: &PauseArgs<'_>, pid: Pid) -> Result<HeldNamespaces> {
    let open = |wanted: bool, name: &str| {
        let path = format!("/proc/{pid}/ns/{name}");
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        wanted
            .then(|| openat(CWD, &path, flags, Mode::empty()).doing(|| format!("open {path}")))
            .transpose()
    };
    Ok(HeldNamespaces {
        user: open(args.user.is_some(), "user")?,
        network: open(args.network, "net")?,
        ipc: open(args.ipc, "ipc")?,
        uts: open(args.hostname.is_some(), "uts")?,
        pid: open(args.pid, "pid")?,
    })
}

/// Runs in the pause.
fn prepare(args: &PauseArgs<'_>, sysctls: &[Sysctl], channel: &Channel) -> Result<()> {
    process::die_with_creator()?;
    close_others(0, std::iter::once(channel.as_fd()))?;
    rustix::process::setsid().doing(|| "start a session".to_owned())?;
    // The name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"pause");
    if args.user.is_some() {
        process::expect(channel, &Message::Mapped)?;
        process::become_root()?;
    }
    if let Some(hostname) = args.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .doing(|| format!("set the host name to {hostname:?}"))?;
    }
    if !sysctls.is_empty() {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = openat(CWD, "/proc", flags, Mode::empty()).doing(|| "open /proc".to_owned())?;
        sysctls.iter().try_for_each(|sysctl| sysctl.write(&proc))?;
    }
    // Without a file of anybody's, and without a directory that could not be unmounted.
    rustix::process::chdir("/").doing(|| "enter /".to_owned())?;
    // A signal that is blocked is not lost, even for the first process of a PID namespace.
    SigSet::all()
        .thread_block()
        .doing(|| "block signals".to_owned())?;
    channel
        .send(&Message::Ready)
        .doing(|| "tell the creator".to_owned())?;
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open /dev/null".to_owned())?;
    crate::stdio::install(&null, &null, &null)
}

/// Reaps what ends in the PID namespace, until it is told to end.
fn wait_for_the_end() -> i32 {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.add(Signal::SIGTERM);
    loop {
        match signals.wait() {
            Ok(Signal::SIGCHLD) => {
                while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
                {
                }
            }
            Ok(_) => return 0,
            Err(_) => return 1,
        }
    }
}
