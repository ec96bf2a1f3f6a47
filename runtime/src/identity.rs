//! Who a process is: user, groups, umask, capabilities, limits.

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, remove_capability_from_bounding_set,
    set_capabilities, set_keep_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::error::Doing;
use crate::oci::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Process};
use crate::{Error, Result};

/// The umask of a process whose configuration has none, as in every other runtime.
const DEFAULT_UMASK: u32 = 0o022;

/// A process's identity, ready to be taken on.
#[derive(Debug)]
pub(crate) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    umask: Mode,
    /// Without any in the spec the process has none.
    capabilities: WantedCapabilities,
    /// Names of capabilities that nobody knows.
    unknown_capabilities: Vec<String>,
    limits: Vec<(PosixRlimitType, Resource, Rlimit)>,
    no_new_privileges: bool,
    /// The bounding set was limited by the process that this one is a copy of.
    is_bounded: bool,
}

/// The five capability sets.
#[derive(Debug)]
struct WantedCapabilities {
    bounding: CapabilitySet,
    thread: CapabilitySets,
    ambient: CapabilitySet,
}

impl Identity {
    /// Reads the identity from `process`.
    pub(crate) fn new(process: &Process) -> Result<Identity> {
        let user = &process.user;
        let groups = &user.additional_gids;
        let limits = &process.rlimits;
        let mut unknown_capabilities = Vec::new();
        let capabilities = wanted(process, &mut unknown_capabilities);
        unknown_capabilities.sort_unstable();
        unknown_capabilities.dedup();
        Ok(Identity {
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: groups.iter().map(|gid| Gid::from_raw(*gid)).collect(),
            umask: Mode::from_raw_mode(user.umask.unwrap_or(DEFAULT_UMASK) & 0o777),
            capabilities,
            unknown_capabilities,
            limits: limits.iter().map(limit).collect::<Result<_>>()?,
            no_new_privileges: process.no_new_privileges,
            is_bounded: false,
        })
    }

    /// Limits the bounding set of this process for all copies of it that are in its user namespace: two dozen system calls that
    /// each make new credentials. What it may do itself stays as it is.
    pub(crate) fn limit_bounding_early(&mut self) -> Result<()> {
        self.capabilities.limit_bounding()?;
        self.is_bounded = true;
        Ok(())
    }

    /// The user id.
    pub(crate) fn uid(&self) -> Uid {
        self.uid
    }

    /// Programs can't gain privileges.
    pub(crate) fn no_new_privileges(&self) -> bool {
        self.no_new_privileges
    }

    /// Raises the hard limits that have to be, while the process may. What the kernel refuses is told to `warn`, and
    /// left as it is: limits above the creator's own need CAP_SYS_RESOURCE, which root may lack, and the program may
    /// well live with less.
    pub(crate) fn raise_limits(&mut self, mut warn: impl FnMut(String)) {
        self.limits.retain(|(name, resource, wanted)| {
            let mut limit = getrlimit(*resource);
            let enough = match (limit.maximum, wanted.maximum) {
                (Some(now), Some(wanted)) => now >= wanted,
                (Some(_), None) => false,
                (None, _) => true,
            };
            limit.maximum = wanted.maximum;
            let possible = enough || setrlimit(*resource, limit).is_ok();
            if !possible {
                let hard = wanted
                    .maximum
                    .map_or_else(|| "unlimited".to_owned(), |max| max.to_string());
                warn(format!(
                    "{name} stays as it is: the runtime may not raise its hard limit to {hard}."
                ));
            }
            possible
        });
    }

    /// Sets the resource limits, right before the program: the steps before it may need more than that.
    pub(crate) fn set_limits(&self) -> Result<()> {
        self.limits.iter().try_for_each(|(name, resource, limit)| {
            setrlimit(*resource, *limit).doing(|| format!("set {name}"))
        })
    }

    /// Becomes the user with its groups, umask and capabilities. `before_drop` runs as the user, while the process
    /// still has all its privileges. What can't be granted is left out and told to `warn`, as the specification wants
    /// it for capabilities.
    pub(crate) fn take_on(
        &self,
        before_drop: impl FnOnce() -> Result<()>,
        mut warn: impl FnMut(String),
    ) -> Result<()> {
        if !self.unknown_capabilities.is_empty() {
            let names = self.unknown_capabilities.join(", ");
            warn(format!(
                "process.capabilities: {names} is not known and left out."
            ));
        }
        if !self.is_bounded {
            self.capabilities.limit_bounding()?;
        }
        set_keep_capabilities(true).doing(|| "keep capabilities".to_owned())?;
        self.change_user()?;
        rustix::process::umask(self.umask);
        if self.no_new_privileges {
            set_no_new_privs(true).doing(|| "set no_new_privs".to_owned())?;
        }
        if self.uid.as_raw() != 0 {
            // A change from root to another user emptied the effective set; the permitted one was kept.
            restore_effective()?;
        }
        before_drop()?;
        self.capabilities.apply(&mut warn)
    }

    fn change_user(&self) -> Result<()> {
        let groups = set_thread_groups(&self.groups).or_else(|errno| match errno {
            // A user namespace may deny setgroups(2); without groups to set nothing is lost.
            Errno::PERM if self.groups.is_empty() => Ok(()),
            other => Err(other),
        });
        let ids: Vec<u32> = self.groups.iter().map(|group| group.as_raw()).collect();
        groups.map_err(|errno| refused(errno, "process.user.additionalGids", &ids, "supplementalGroups"))?;
        let group = set_thread_res_gid(self.gid, self.gid, self.gid);
        group.map_err(|errno| refused(errno, "process.user.gid", &[self.gid.as_raw()], "runAsGroup"))?;
        let user = set_thread_res_uid(self.uid, self.uid, self.uid);
        user.map_err(|errno| refused(errno, "process.user.uid", &[self.uid.as_raw()], "runAsUser"))
    }
}

/// Why a process can't have an id of the field, which in a pod is also that of `field_of_pod`. One that its user namespace
/// does not have is invalid to the kernel.
fn refused(errno: Errno, field: &str, ids: &[u32], field_of_pod: &str) -> Error {
    if errno != Errno::INVAL {
        return Error::System {
            doing: format!("take on {field} {ids:?}"),
            source: errno.into(),
        };
    }
    Error::invalid(
        field,
        format!(
            "{ids:?} is beyond the ids of the container's user namespace: take others ({field_of_pod} of a pod), or a namespace \
             with more ids (/etc/subuid and /etc/subgid, or a pod without hostUsers: false)"
        ),
    )
}

fn restore_effective() -> Result<()> {
    let doing = || "restore the effective capabilities".to_owned();
    let mut sets = rustix::thread::capabilities(None).doing(doing)?;
    sets.effective = sets.permitted;
    set_capabilities(None, sets).doing(doing)
}

impl WantedCapabilities {
    fn limit_bounding(&self) -> Result<()> {
        for number in 0..u64::BITS {
            let capability = CapabilitySet::from_bits_retain(1 << number);
            if self.bounding.contains(capability) {
                continue;
            }
            match remove_capability_from_bounding_set(capability) {
                Ok(()) => {}
                // The kernel knows no capability of that number nor of a higher one.
                Err(Errno::INVAL) => break,
                Err(errno) => {
                    return Err(errno).doing(|| format!("drop capability {number} from the bounding set"));
                }
            }
        }
        Ok(())
    }

    fn apply(&self, warn: &mut impl FnMut(String)) -> Result<()> {
        let doing = || "set the capabilities".to_owned();
        match set_capabilities(None, self.thread) {
            // The runtime has not got all of them itself.
            Err(Errno::PERM) => {
                let own = rustix::thread::capabilities(None).doing(doing)?.permitted;
                let permitted = self.thread.permitted & own;
                let given = CapabilitySets {
                    effective: self.thread.effective & permitted,
                    permitted,
                    inheritable: self.thread.inheritable & own,
                };
                let left_out = (self.thread.permitted | self.thread.inheritable) - own;
                warn(format!(
                    "process.capabilities: {} can't be granted, since the runtime has not got them itself.",
                    names_of(left_out)
                ));
                set_capabilities(None, given).doing(doing)?;
            }
            other => other.doing(doing)?,
        }
        let mut refused = CapabilitySet::empty();
        for capability in self.ambient.iter() {
            match configure_capability_in_ambient_set(capability, true) {
                Ok(()) => {}
                Err(Errno::PERM | Errno::INVAL) => refused |= capability,
                Err(errno) => {
                    return Err(errno).doing(|| format!("raise the ambient capability {capability:?}"));
                }
            }
        }
        if !refused.is_empty() {
            warn(format!(
                "process.capabilities.ambient: {} can't be raised; an ambient capability has to be permitted and \
                 inheritable too.",
                names_of(refused)
            ));
        }
        Ok(())
    }
}

/// The names of the capabilities in a set, for a message.
fn names_of(set: CapabilitySet) -> String {
    let mut names: Vec<String> = caps::all()
        .into_iter()
        .filter(|capability| set.bits() & capability.bitmask() != 0)
        .map(|capability| capability.to_string())
        .collect();
    names.sort_unstable();
    names.join(", ")
}

fn wanted(process: &Process, unknown: &mut Vec<String>) -> WantedCapabilities {
    let none = LinuxCapabilities::default();
    let sets = process.capabilities.as_ref().unwrap_or(&none);
    let mut bits = |set: &[String]| bits(set, unknown);
    WantedCapabilities {
        bounding: bits(&sets.bounding),
        thread: CapabilitySets {
            effective: bits(&sets.effective),
            permitted: bits(&sets.permitted),
            inheritable: bits(&sets.inheritable),
        },
        ambient: bits(&sets.ambient),
    }
}

fn bits(set: &[String], unknown: &mut Vec<String>) -> CapabilitySet {
    let mut bits = 0;
    for name in set {
        match name.parse::<caps::Capability>() {
            Ok(known) => bits |= known.bitmask(),
            Err(_) => unknown.push(name.clone()),
        }
    }
    CapabilitySet::from_bits_retain(bits)
}

fn limit(limit: &PosixRlimit) -> Result<(PosixRlimitType, Resource, Rlimit)> {
    let resource = match limit.typ {
        PosixRlimitType::Cpu => Resource::Cpu,
        PosixRlimitType::Fsize => Resource::Fsize,
        PosixRlimitType::Data => Resource::Data,
        PosixRlimitType::Stack => Resource::Stack,
        PosixRlimitType::Core => Resource::Core,
        PosixRlimitType::Rss => Resource::Rss,
        PosixRlimitType::Nproc => Resource::Nproc,
        PosixRlimitType::Nofile => Resource::Nofile,
        PosixRlimitType::Memlock => Resource::Memlock,
        PosixRlimitType::As => Resource::As,
        PosixRlimitType::Locks => Resource::Locks,
        PosixRlimitType::Sigpending => Resource::Sigpending,
        PosixRlimitType::Msgqueue => Resource::Msgqueue,
        PosixRlimitType::Nice => Resource::Nice,
        PosixRlimitType::Rtprio => Resource::Rtprio,
        PosixRlimitType::Rttime => Resource::Rttime,
    };
    if limit.soft > limit.hard {
        let reason = format!(
            "the soft limit {} is above the hard limit {}",
            limit.soft, limit.hard
        );
        return Err(Error::invalid(format!("process.rlimits[{}]", limit.typ), reason));
    }
    let bound = |value: u64| (value != u64::MAX).then_some(value);
    Ok((
        limit.typ,
        resource,
        Rlimit {
            current: bound(limit.soft),
            maximum: bound(limit.hard),
        },
    ))
}

/// The names of all capabilities that are known.
pub fn capability_names() -> Vec<String> {
    let mut all: Vec<caps::Capability> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(caps::Capability::index);
    all.iter().map(ToString::to_string).collect()
}
