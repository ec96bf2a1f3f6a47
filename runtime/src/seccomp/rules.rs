//! The profile with everything looked up and checked: actions as the kernel's return values, names as numbers.

use std::collections::{BTreeMap, HashSet};

use crate::oci::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use nix::errno::Errno;

use super::arch::Abi;
use super::multiplexed::Multiplexed;
use super::{Handover, SeccompError};

// Return values of a filter, linux/seccomp.h.
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
const KILL_THREAD: u32 = 0;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const USER_NOTIF: u32 = 0x7fc0_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The bits that are the action; the others are its data.
const ACTION: u32 = 0xffff_0000;

/// The kernel's `MAX_ERRNO`.
const MAX_ERRNO: u32 = 4095;
/// What a tracer can be told.
const MAX_TRACE: u32 = 0xffff;
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

/// The rules of one system call: one without conditions, or any number with them, which are tried in their order before
/// the default.
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
/// where a refusal (EPERM, or worse) would make them fail.
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
    let mut multiplexed: BTreeMap<Multiplexed, Chain> = BTreeMap::new();
    let mut newest = None;
    for entry in profile.syscalls.iter() {
        let rules = entry_rules(entry)?;
        for name in &entry.names {
            let number = abi.syscall(name);
            newest = newest.max(number.map(|n| n - abi.base()).filter(|n| *n < ARM_PRIVATE));
            // A rule for what happens anyway does not even come before others.
            if rules.iter().all(|rule| rule.action == default) {
                continue;
            }
            // A name that this architecture, or this build, does not have can't be called by it either.
            if let Some(number) = number {
                add(by_number.entry(number).or_default(), &rules);
            }
            if let Some(call) = abi.multiplexed(name) {
                add(multiplexed.entry(call).or_default(), &rules);
            }
        }
    }
    for (call, chain) in &multiplexed {
        if let Some(number) = abi.syscall(call.through) {
            let rule = behind_pointer(*call, chain, default);
            if rule.action != default {
                add(by_number.entry(number).or_default(), &[rule]);
            }
        }
    }
    // A tracer emulates what it wants, newer calls too.
    let permits = matches!(default & ACTION, ALLOW | LOG | TRACE);
    let unknown_from = newest.filter(|_| !permits).map(|newest| abi.base() + newest + 1);
    Ok(Rules {
        by_number,
        default,
        unknown_from,
    })
}

/// Adds rules to those of a call. One without conditions decides alone, wherever in the profile it is.
fn add(chain: &mut Chain, rules: &[Rule]) {
    if chain.last().is_some_and(|last| last.conditions.is_empty()) {
        return;
    }
    if rules.iter().any(|rule| rule.conditions.is_empty()) {
        chain.clear();
    }
    chain.extend(rules.iter().cloned());
}

/// The rule for a call whose arguments can't be looked at: the strictest of what may happen to it.
fn behind_pointer(call: Multiplexed, chain: &[Rule], default: u32) -> Rule {
    let unconditional = chain.iter().any(|rule| rule.conditions.is_empty());
    let otherwise = Some(default).filter(|_| !unconditional);
    // The kernel's order too, where several filters disagree: killing is negative.
    let strictest = chain
        .iter()
        .map(|rule| rule.action)
        .chain(otherwise)
        .min_by_key(|action| (action & ACTION).cast_signed());
    Rule {
        conditions: vec![Condition {
            argument: 0,
            operator: LinuxSeccompOperator::MaskedEq,
            value: call.mask.into(),
            value_two: call.call.into(),
        }],
        action: strictest.unwrap_or(default),
    }
}

/// How the filter's listener gets from the process to its creator, if any rule asks one.
pub(super) fn handover(profile: &LinuxSeccomp) -> Result<Option<Handover>, SeccompError> {
    let mut asks = profile
        .syscalls
        .iter()
        .filter(|entry| entry.action == LinuxSeccompAction::Notify)
        .peekable();
    if asks.peek().is_none() {
        return Ok(None);
    }
    let names: Vec<&str> = asks.flat_map(|entry| &entry.names).map(String::as_str).collect();
    if names.contains(&"write") {
        return Err(SeccompError::Notify("the write syscall"));
    }
    match (names.contains(&"sendmsg"), names.contains(&"sendmmsg")) {
        (false, _) => Ok(Some(Handover::SendMsg)),
        (true, false) => Ok(Some(Handover::SendMMsg)),
        (true, true) => Err(SeccompError::Notify("both sendmsg and sendmmsg")),
    }
}

fn entry_rules(entry: &LinuxSyscall) -> Result<Vec<Rule>, SeccompError> {
    let first = entry.names.first().map_or("", String::as_str);
    if entry.names.iter().any(String::is_empty) {
        return Err(SeccompError::EmptyName);
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
    let with_data = |action: u32, most: u32| {
        let errno = errno.unwrap_or(Errno::EPERM as u32);
        if errno <= most {
            return Ok(action | errno);
        }
        Err(SeccompError::Errno {
            errno,
            most,
            place: place.to_owned(),
        })
    };
    let (value, name) = match action {
        A::Errno => return with_data(ERRNO, MAX_ERRNO),
        A::Trace => return with_data(TRACE, MAX_TRACE),
        A::Kill => (KILL_THREAD, "SCMP_ACT_KILL"),
        A::KillThread => (KILL_THREAD, "SCMP_ACT_KILL_THREAD"),
        A::KillProcess => (KILL_PROCESS, "SCMP_ACT_KILL_PROCESS"),
        A::Trap => (TRAP, "SCMP_ACT_TRAP"),
        A::Notify => (USER_NOTIF, "SCMP_ACT_NOTIFY"),
        A::Log => (LOG, "SCMP_ACT_LOG"),
        A::Allow => (ALLOW, "SCMP_ACT_ALLOW"),
    };
    match errno {
        None => Ok(value),
        Some(_) => Err(SeccompError::ErrnoWithoutUse {
            place: place.to_owned(),
            action: name,
        }),
    }
}
