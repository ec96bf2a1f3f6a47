//! Which namespaces a container gets: new ones, those of a path, or those that the caller holds open.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, open};

mod children;

pub(crate) use children::ChildrenIn;

use crate::error::Doing;
use crate::idmap::check_maps;
use crate::oci::{Linux, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxTimeOffset};
use crate::sys::namespace_kind;
use crate::{Error, Result};

/// Namespaces that the caller holds open and that a container joins, whatever its spec says about their kinds.
///
/// A user namespace is joined first, so that the mount namespace, which is always new, belongs to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct JoinedNamespaces<'a> {
    /// The user namespace, as is `/proc/<pid>/ns/user`.
    pub user: Option<BorrowedFd<'a>>,
    /// The network namespace.
    pub network: Option<BorrowedFd<'a>>,
    /// The System V IPC and POSIX message queue namespace.
    pub ipc: Option<BorrowedFd<'a>>,
    /// The host name's namespace.
    pub uts: Option<BorrowedFd<'a>>,
    /// The process id namespace.
    pub pid: Option<BorrowedFd<'a>>,
}

impl JoinedNamespaces<'_> {
    fn of_kind(&self, kind: LinuxNamespaceType) -> Option<BorrowedFd<'_>> {
        match kind {
            LinuxNamespaceType::User => self.user,
            LinuxNamespaceType::Network => self.network,
            LinuxNamespaceType::Ipc => self.ipc,
            LinuxNamespaceType::Uts => self.uts,
            LinuxNamespaceType::Pid => self.pid,
            LinuxNamespaceType::Mount | LinuxNamespaceType::Cgroup | LinuxNamespaceType::Time => None,
        }
    }
}

/// Every kind, in the order in which they are joined: the user namespace gives the right to join the others.
const KINDS: [LinuxNamespaceType; 8] = [
    LinuxNamespaceType::User,
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Cgroup,
    LinuxNamespaceType::Time,
];

/// What becomes of one kind of namespace.
#[derive(Debug, Default)]
pub(crate) enum Wanted {
    /// The creator's.
    #[default]
    Host,
    /// A new one.
    New,
    /// This one.
    Join(OwnedFd),
}

/// The namespaces of one container.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    user: Wanted,
    mount: Wanted,
    network: Wanted,
    ipc: Wanted,
    uts: Wanted,
    pid: Wanted,
    cgroup: Wanted,
    time: Wanted,
    uid_map: Vec<LinuxIdMapping>,
    gid_map: Vec<LinuxIdMapping>,
    time_offsets: String,
    is_rootless: bool,
}

impl Namespaces {
    /// Reads the namespaces from the spec and opens those that are joined.
    pub(crate) fn new(linux: &Linux, joined: &JoinedNamespaces<'_>) -> Result<Namespaces> {
        let list = &linux.namespaces;
        let mut namespaces = Namespaces {
            uid_map: linux.uid_mappings.clone(),
            gid_map: linux.gid_mappings.clone(),
            is_rootless: !rustix::process::geteuid().is_root(),
            time_offsets: offsets_text(&linux.time_offsets)?,
            ..Namespaces::default()
        };
        for kind in KINDS {
            let wanted = wanted(kind, list, joined)?;
            match kind {
                LinuxNamespaceType::User => namespaces.user = wanted,
                LinuxNamespaceType::Network => namespaces.network = wanted,
                LinuxNamespaceType::Ipc => namespaces.ipc = wanted,
                LinuxNamespaceType::Uts => namespaces.uts = wanted,
                LinuxNamespaceType::Pid => namespaces.pid = wanted,
                LinuxNamespaceType::Cgroup => namespaces.cgroup = wanted,
                LinuxNamespaceType::Time => namespaces.time = wanted,
                LinuxNamespaceType::Mount => {
                    namespaces.mount = match wanted {
                        Wanted::Host => open_namespace(Path::new("/proc/self/ns/mnt"), kind)?,
                        other => other,
                    }
                }
            }
        }
        if namespaces.is_rootless {
            namespaces.check_rootless()?;
        }
        namespaces.check()?;
        Ok(namespaces)
    }

    fn check(&self) -> Result<()> {
        if self.joined_mount().is_some() && self.has_user() {
            let reason = "a container in another user namespace than its creator needs a new one";
            return Err(Error::invalid("linux.namespaces[mount]", reason));
        }
        if matches!(self.user, Wanted::New) {
            check_maps(&self.uid_map, &self.gid_map)?;
        } else if matches!(self.user, Wanted::Host) && !(self.uid_map.is_empty() && self.gid_map.is_empty()) {
            return Err(Error::invalid(
                "linux.uidMappings",
                "there is no user namespace to map ids in",
            ));
        }
        if !self.time_offsets.is_empty() && !matches!(self.time, Wanted::New) {
            return Err(Error::invalid(
                "linux.timeOffsets",
                "they need a new time namespace",
            ));
        }
        Ok(())
    }

    /// The mount namespace, with others in it, that the container ends up in.
    pub(crate) fn joined_mount(&self) -> Option<BorrowedFd<'_>> {
        match &self.mount {
            Wanted::Join(fd) => Some(fd.as_fd()),
            Wanted::Host | Wanted::New => None,
        }
    }

    /// The container's sources are found by its process, not by its creator.
    pub(crate) fn opens_inside(&self) -> bool {
        self.is_rootless || self.joined_mount().is_some()
    }

    /// The creator is an ordinary user: what takes privileges can be done in the container's user namespace only.
    pub(crate) fn is_rootless(&self) -> bool {
        self.is_rootless
    }

    /// Refuses what a user without privileges can't have.
    fn check_rootless(&self) -> Result<()> {
        let user = rustix::process::geteuid().as_raw();
        if matches!(self.user, Wanted::Host) {
            let reason = format!("a container of user {user}, who is not root, needs a user namespace");
            return Err(Error::invalid("linux.namespaces", reason));
        }
        if !matches!(self.time, Wanted::Host) {
            let reason = format!("the runtime is run by user {user}, and it takes root to make or join one");
            return Err(Error::unsupported("linux.namespaces[time]", reason));
        }
        Ok(())
    }

    /// The container is in another user namespace than its creator.
    pub(crate) fn has_user(&self) -> bool {
        !matches!(self.user, Wanted::Host)
    }

    /// The uid and gid maps, if they are to be written for a new user namespace.
    pub(crate) fn new_maps(&self) -> Option<(&[LinuxIdMapping], &[LinuxIdMapping])> {
        matches!(self.user, Wanted::New).then_some((&self.uid_map, &self.gid_map))
    }

    /// The user namespace that is joined.
    pub(crate) fn joined_user(&self) -> Option<BorrowedFd<'_>> {
        match &self.user {
            Wanted::Join(fd) => Some(fd.as_fd()),
            Wanted::Host | Wanted::New => None,
        }
    }

    /// Process ids are the container's own.
    pub(crate) fn has_pid(&self) -> bool {
        !matches!(self.pid, Wanted::Host)
    }

    /// The container's host name is its own.
    pub(crate) fn has_uts(&self) -> bool {
        !matches!(self.uts, Wanted::Host)
    }

    /// The network is the container's own.
    pub(crate) fn has_network(&self) -> bool {
        !matches!(self.network, Wanted::Host)
    }

    /// System V IPC and message queues are the container's own.
    pub(crate) fn has_ipc(&self) -> bool {
        !matches!(self.ipc, Wanted::Host)
    }

    /// A process between creator and container has to prepare what can't be undone in the creator.
    pub(crate) fn needs_middle(&self) -> bool {
        matches!(self.user, Wanted::Join(_)) || !matches!(self.time, Wanted::Host)
    }

    /// The flags for the container's process.
    pub(crate) fn clone_flags(&self) -> u64 {
        let kinds = [
            (&self.user, libc::CLONE_NEWUSER),
            (&self.mount, libc::CLONE_NEWNS),
            (&self.network, libc::CLONE_NEWNET),
            (&self.ipc, libc::CLONE_NEWIPC),
            (&self.uts, libc::CLONE_NEWUTS),
            (&self.pid, libc::CLONE_NEWPID),
        ];
        let new = kinds
            .into_iter()
            .filter(|(wanted, _)| matches!(wanted, Wanted::New));
        let flags = new.fold(0, |flags, (_, flag)| flags | flag);
        u64::from(flags.unsigned_abs())
    }

    /// The PID namespace that the container's process has to be made in.
    pub(crate) fn joined_pid(&self) -> Option<BorrowedFd<'_>> {
        match &self.pid {
            Wanted::Join(fd) => Some(fd.as_fd()),
            Wanted::Host | Wanted::New => None,
        }
    }

    /// The network namespace that the container's process joins.
    pub(crate) fn joined_network(&self) -> Option<BorrowedFd<'_>> {
        match &self.network {
            Wanted::Join(fd) => Some(fd.as_fd()),
            Wanted::Host | Wanted::New => None,
        }
    }

    /// What a process between creator and container does: everything that takes effect on children only, or that
    /// only a process that never comes back can do.
    pub(crate) fn enter_middle(&self) -> Result<()> {
        match &self.time {
            Wanted::Host => {}
            Wanted::Join(fd) => join(fd, LinuxNamespaceType::Time)?,
            Wanted::New => {
                let time = CloneFlags::from_bits_retain(LinuxNamespaceType::Time.clone_flag());
                unshare(time).doing(|| "make a time namespace".to_owned())?;
                if !self.time_offsets.is_empty() {
                    std::fs::write("/proc/self/timens_offsets", &self.time_offsets)
                        .doing(|| format!("set the time offsets {:?}", self.time_offsets))?;
                }
            }
        }
        let join_user = || match &self.user {
            Wanted::Join(user) => join(user, LinuxNamespaceType::User),
            Wanted::Host | Wanted::New => Ok(()),
        };
        let join_pid = || match &self.pid {
            Wanted::Join(pid) => join(pid, LinuxNamespaceType::Pid),
            Wanted::Host | Wanted::New => Ok(()),
        };
        // Root may join any PID namespace, until it is in a user namespace that does not own it. Others have to be in
        // the one that owns it.
        if self.is_rootless {
            join_user()?;
            return join_pid();
        }
        join_pid()?;
        join_user()
    }

    /// Joins the namespaces that a process can enter itself.
    pub(crate) fn enter(&self) -> Result<()> {
        for (wanted, kind) in [
            (&self.network, LinuxNamespaceType::Network),
            (&self.ipc, LinuxNamespaceType::Ipc),
            (&self.uts, LinuxNamespaceType::Uts),
        ] {
            if let Wanted::Join(fd) = wanted {
                join(fd, kind)?;
            }
        }
        if let Wanted::Join(mount) = &self.mount {
            // What the container is made of is put together out of the others' sight.
            join(mount, LinuxNamespaceType::Mount)?;
            unshare(CloneFlags::CLONE_NEWNS).doing(|| "make a passing mount namespace".to_owned())?;
        }
        Ok(())
    }

    /// Enters the cgroup namespace. A new one shows the group that the process is in as the root.
    pub(crate) fn enter_cgroup(&self) -> Result<()> {
        match &self.cgroup {
            Wanted::Host => Ok(()),
            Wanted::New => {
                unshare(CloneFlags::CLONE_NEWCGROUP).doing(|| "make a cgroup namespace".to_owned())
            }
            Wanted::Join(fd) => join(fd, LinuxNamespaceType::Cgroup),
        }
    }

    /// The open namespaces, which the container's process must not close.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [
            &self.user,
            &self.mount,
            &self.network,
            &self.ipc,
            &self.uts,
            &self.pid,
            &self.cgroup,
            &self.time,
        ]
        .into_iter()
        .filter_map(|wanted| {
            if let Wanted::Join(fd) = wanted {
                Some(fd.as_fd())
            } else {
                None
            }
        })
    }
}

fn wanted(
    kind: LinuxNamespaceType,
    list: &[LinuxNamespace],
    joined: &JoinedNamespaces<'_>,
) -> Result<Wanted> {
    let mut entries = list.iter().filter(|namespace| namespace.typ == kind);
    let entry = entries.next();
    if entries.next().is_some() {
        return Err(Error::invalid(
            "linux.namespaces",
            format!("{kind} is there twice"),
        ));
    }
    if let Some(held) = joined.of_kind(kind) {
        let fd = held
            .try_clone_to_owned()
            .doing(|| format!("hold the {kind} namespace"))?;
        return Ok(Wanted::Join(fd));
    }
    match entry {
        None => Ok(Wanted::Host),
        Some(namespace) if namespace.path.as_os_str().is_empty() => Ok(Wanted::New),
        Some(namespace) => open_namespace(&namespace.path, kind),
    }
}

fn open_namespace(path: &Path, kind: LinuxNamespaceType) -> Result<Wanted> {
    let doing = || format!("open the {kind} namespace {}", path.display());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).doing(doing)?;
    // Only such files are asked for their kind: another driver's file may understand the same number otherwise. A
    // name tells nothing, as that of a namespace which ip-netns(8) or an engine mounted somewhere is the place's.
    let is_namespace = rustix::fs::fstatfs(&fd).doing(doing)?.f_type == libc::NSFS_MAGIC;
    let of_kind = is_namespace && namespace_kind(&fd).doing(doing)? == kind.clone_flag();
    if !of_kind {
        let field = format!("linux.namespaces[{kind}].path");
        let reason = format!("{} is not a {kind} namespace", path.display());
        return Err(Error::invalid(field, reason));
    }
    // Joining the user namespace that one is in already is refused by the kernel; it is nothing to do.
    if kind == LinuxNamespaceType::User {
        let own = rustix::fs::stat("/proc/self/ns/user").doing(doing)?;
        let other = rustix::fs::fstat(&fd).doing(doing)?;
        if (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino) {
            return Ok(Wanted::Host);
        }
    }
    Ok(Wanted::Join(fd))
}

fn join(fd: &OwnedFd, kind: LinuxNamespaceType) -> Result<()> {
    let flag = CloneFlags::from_bits_retain(kind.clone_flag());
    setns(fd, flag).doing(|| format!("join the {kind} namespace"))
}

/// The text of `/proc/self/timens_offsets`, see time_namespaces(7).
fn offsets_text(offsets: &BTreeMap<String, LinuxTimeOffset>) -> Result<String> {
    let mut text = String::new();
    for (clock, offset) in offsets {
        let field = || format!("linux.timeOffsets[{clock:?}]");
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return Err(Error::invalid(
                field(),
                "the clocks are \"monotonic\" and \"boottime\"",
            ));
        }
        if offset.nanosecs >= 1_000_000_000 {
            return Err(Error::invalid(field(), "nanosecs must be less than a second"));
        }
        let _ = writeln!(text, "{clock} {} {}", offset.secs, offset.nanosecs);
    }
    Ok(text)
}
