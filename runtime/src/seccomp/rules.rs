//! The profile with everything looked up and checked: actions as the kernel's return values, names as numbers.

use std::collections::{BTreeMap, HashSet};

use crate::oci::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use nix::errno::Errno;

use super::SeccompError;
use super::arch::Abi;

// Return values of a filter, linux/seccomp.h.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;

/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;
/// Since Linux 5.1 new calls have the same number everywhere, and come after all older ones.
const FIRST_COMMON: u32 = 424;
/// ARM's private calls lie far above the others and say nothing about a profile's age.
const ARM_PRIVATE: u32 = 0xf0000;

/// One comparison with an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub(super) argument: u32,
    pub(super) operator: LinuxSeccompOperator,
    pub(super) value: u64,
    /// For MASKED_EQ, where `value` is the mask: what the masked argument must be.
    pub(super) value_two: u64,
}

/// What happens when all conditions hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) action: u32,
}

/// The rules of one system call, in order, ending with one without conditions if the default is never reached.
pub(super) type Chain = Vec<Rule>;

/// The rules of one ABI.
#[derive(Debug)]
pub(super) struct Rules {
    pub(super) by_number: BTreeMap<u32, Chain>,
    /// For numbers without rules.
    pub(super) default: u32,
    /// For numbers from this one on (and without rules): calls that the profile's author can't have known.
    pub(super) unknown_from: Option<u32>,
}

/// What the runtime gives back for calls that are newer than a profile, so that C libraries fall back to older ones
/// where a plain refusal (EPERM) would make them fail.
pub(super) const NO_SUCH_CALL: u32 = ERRNO | Errno::ENOSYS as u32;

pub(super) fn default_action(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    if profile.default_action == LinuxSeccompAction::Notify {
        return Err(SeccompError::Notify("the default action"));
    }
    action(profile.default_action, profile.default_errno_ret, "defaultAction")
}

pub(super) fn resolve(profile: &LinuxSeccomp, abi: Abi) -> Result<Rules, SeccompError> {
    let default = default_action(profile)?;
    let mut by_number: BTreeMap<u32, Chain> = BTreeMap::new();
    for entry in &profile.syscalls {
        let rules = entry_rules(entry)?;
        for name in &entry.names {
            // A name that this architecture, or this build, does not have can't be called by it either.
            let Some(number) = abi.syscall(name) else { continue };
            let chain = by_number.entry(number).or_default();
            // What comes after a rule without conditions is never reached.
            if !chain.last().is_some_and(|last| last.conditions.is_empty()) {
                chain.extend(rules.iter().cloned());
            }
        }
    }
    let refuses = default & 0xffff_0000 == ERRNO && default != NO_SUCH_CALL;
    let unknown_from = refuses.then(|| {
        let known = by_number
            .keys()
            .map(|n| n - abi.base())
            .filter(|n| *n < ARM_PRIVATE)
            .max()
            .unwrap_or(0);
        abi.base() + FIRST_COMMON.max(known + 1)
    });
    Ok(Rules {
        by_number,
        default,
        unknown_from,
    })
}

/// Whether any rule asks a listener.
pub(super) fn notifies(profile: &LinuxSeccomp) -> bool {
    profile
        .syscalls
        .iter()
        .any(|entry| entry.action == LinuxSeccompAction::Notify)
}

fn entry_rules(entry: &LinuxSyscall) -> Result<Vec<Rule>, SeccompError> {
    let first = entry.names.first().map_or("", String::as_str);
    if entry.action == LinuxSeccompAction::Notify && entry.names.iter().any(|name| name == "write") {
        return Err(SeccompError::Notify("write"));
    }
    let action = action(entry.action, entry.errno_ret, &format!("the rule for {first:?}"))?;
    let conditions = entry.args.iter().map(|arg| condition(arg, first));
    let conditions = conditions.collect::<Result<Vec<_>, _>>()?;
    let mut seen = HashSet::new();
    // All conditions have to hold. Where several are about the same argument, though, profiles mean alternatives: that
    // is how all runtimes have read them since the first one.
    if conditions.iter().all(|c| seen.insert(c.argument)) {
        return Ok(vec![Rule { conditions, action }]);
    }
    Ok(conditions
        .into_iter()
        .map(|c| Rule {
            conditions: vec![c],
            action,
        })
        .collect())
}

fn condition(arg: &LinuxSeccompArg, syscall: &str) -> Result<Condition, SeccompError> {
    let argument = Some(arg.index).filter(|n| *n < 6);
    Ok(Condition {
        argument: argument.ok_or_else(|| SeccompError::Argument {
            syscall: syscall.to_owned(),
            index: arg.index,
        })?,
        operator: arg.op,
        value: arg.value,
        value_two: arg.value_two,
    })
}

fn action(action: LinuxSeccompAction, errno: Option<u32>, place: &str) -> Result<u32, SeccompError> {
    use LinuxSeccompAction as A;
    let (value, name) = match action {
        A::Errno | A::Trace => {
            let errno = errno.unwrap_or(Errno::EPERM as u32);
            if errno > MAX_ERRNO {
                return Err(SeccompError::Errno {
                    errno,
                    place: place.to_owned(),
                });
            }
            return Ok(errno | if action == A::Errno { ERRNO } else { TRACE });
        }
        A::Kill => (KILL_THREAD, "SCMP_ACT_KILL"),
        A::KillThread => (KILL_THREAD, "SCMP_ACT_KILL_THREAD"),
        A::KillProcess => (KILL_PROCESS, "SCMP_ACT_KILL_PROCESS"),
        A::Trap => (TRAP, "SCMP_ACT_TRAP"),
        A::Notify => (USER_NOTIF, "SCMP_ACT_NOTIFY"),
        A::Log => (LOG, "SCMP_ACT_LOG"),
        A::Allow => (ALLOW, "SCMP_ACT_ALLOW"),
    };
    match errno {
        // Profiles that were written out by programs have a zero everywhere.
        None | Some(0) => Ok(value),
        Some(_) => Err(SeccompError::ErrnoWithoutUse {
            place: place.to_owned(),
            action: name,
        }),
    }
}
