//! The process that holds a pod's namespaces open.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid, openat};
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::channel::{Channel, Message};
use crate::create::protect_creator;
use crate::error::Doing;
use crate::idmap::{check_maps, write_maps};
use crate::mount::empty_directory;
use crate::oci;
use crate::spawn::{close_others, kill_and_reap};
use crate::sys::{self, CloneArgs};
use crate::sysctl::{Scope, Sysctl};
use crate::{Error, Result, pivot, process, seccomp};

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
    /// Who the pause is, in its user namespace.
    pub user_ids: UserIds<'a>,
}

/// A pause's user and groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct UserIds<'a> {
    /// Its user; `None` is nobody where the user namespace has that, or else its root.
    pub uid: Option<u32>,
    /// Its group; `None` likewise.
    pub gid: Option<u32>,
    /// Its additional groups.
    pub groups: &'a [u32],
}

/// What pauses of other runtimes are, too.
const NOBODY: u32 = 65535;

/// All that a pause calls once it waits.
const CALLS: [&str; 6] = [
    "rt_sigtimedwait",
    "rt_sigreturn",
    "restart_syscall",
    "wait4",
    "exit",
    "exit_group",
];

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
    let filter = seccomp::compile(&filter())?;
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
                wait_under(&filter)
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

/// A filter that is stricter than any that could be asked for: whoever traces a pause gets nothing else out of it.
fn filter() -> oci::LinuxSeccomp {
    oci::LinuxSeccomp {
        default_action: oci::LinuxSeccompAction::Errno,
        syscalls: vec![oci::LinuxSyscall {
            names: CALLS.map(str::to_owned).to_vec(),
            action: oci::LinuxSeccompAction::Allow,
            ..oci::LinuxSyscall::default()
        }],
        ..oci::LinuxSeccomp::default()
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
        // Containers in its PID namespace see it, and their ways to what it sees are in /proc.
        (args.pid, libc::CLONE_NEWNS),
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

/// Runs in the pause. Nothing of the host is left to it in the end: no privilege, no file, no system call that it has
/// no use for, and, where containers can see it, no directory.
fn prepare(args: &PauseArgs<'_>, sysctls: &[Sysctl], channel: &Channel) -> Result<()> {
    configure(args, sysctls, channel)?;
    leave_the_host(args)?;
    become_nobody(args)?;
    channel
        .send(&Message::Ready)
        .doing(|| "tell the creator".to_owned())
}

/// Configures the new namespaces.
fn configure(args: &PauseArgs<'_>, sysctls: &[Sysctl], channel: &Channel) -> Result<()> {
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
    // A signal that is blocked is not lost, even for the first process of a PID namespace.
    SigSet::all().thread_block().doing(|| "block signals".to_owned())
}

/// Without a file of anybody's, and without a directory that could not be unmounted.
fn leave_the_host(args: &PauseArgs<'_>) -> Result<()> {
    let null = openat(CWD, "/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open /dev/null".to_owned())?;
    crate::stdio::install(&null, &null, &null)?;
    drop(null);
    if !args.pid {
        return rustix::process::chdir("/").doing(|| "enter /".to_owned());
    }
    let root = empty_directory("").doing(|| "make an empty root directory".to_owned())?;
    pivot::attach_root(&root, None)?;
    pivot::pivot(&root, false)
}

fn become_nobody(args: &PauseArgs<'_>) -> Result<()> {
    let UserIds { uid, gid, groups } = args.user_ids;
    let has = |ranges: &[oci::LinuxIdMapping], id: u32| {
        ranges
            .iter()
            .any(|range| id >= range.container_id && id - range.container_id < range.size)
    };
    let or_nobody = |asked: Option<u32>, mapped: bool| asked.unwrap_or(if mapped { NOBODY } else { 0 });
    let (has_user, has_group) = args.user.map_or((true, true), |(uids, gids)| {
        (has(uids, NOBODY), has(gids, NOBODY))
    });
    let uid = Uid::from_raw(or_nobody(uid, has_user));
    let gid = Gid::from_raw(or_nobody(gid, has_group));
    let groups: Vec<Gid> = groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    set_thread_groups(&groups).doing(|| format!("give the pause the groups {:?}", args.user_ids.groups))?;
    set_thread_res_gid(gid, gid, gid).doing(|| format!("make the pause's group {}", gid.as_raw()))?;
    set_thread_res_uid(uid, uid, uid).doing(|| format!("make the pause's user {}", uid.as_raw()))?;
    set_no_new_privs(true).doing(|| "keep the pause from gaining privileges".to_owned())?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, none).doing(|| "take the pause's capabilities".to_owned())?;
    // The change of user made the kernel forget it.
    process::die_with_creator()
}

/// Waits with nothing but what that takes. A kernel that has no filters has none to refuse.
fn wait_under(filter: &seccomp::Program) -> i32 {
    match filter.install() {
        Ok(_) | Err(Errno::ENOSYS | Errno::EINVAL) => wait_for_the_end(),
        Err(_) => 1,
    }
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
