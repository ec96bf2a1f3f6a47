//! The meaning of profiles, spelled out without any cleverness, and the kernel's way to run a filter: what the compiler is
//! compared with, in tests and by fuzzing.

pub(crate) use super::arch::Abi;
use super::arch::X32_BIT;
use super::assembler::{
    AND, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, RETURN,
};
pub(crate) use super::filter::build;
use crate::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
    LinuxSyscall,
};

/// All conventions.
pub(crate) const ABIS: [Abi; 5] = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm];

/// Some system call's name for each number, or one that does not exist.
pub(crate) fn name(index: usize) -> &'static str {
    super::syscalls::names()
        .nth(index % 512)
        .unwrap_or("no_such_call")
}

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// `AUDIT_ARCH_*`.
    pub(crate) arch: u32,
    pub(crate) number: u32,
    pub(crate) arguments: [u64; 6],
}

/// Runs a filter as the kernel does. `None` for anything that the kernel would refuse.
pub(crate) fn run(program: &[Instruction], call: Call) -> Option<u32> {
    let (mut at, mut a) = (0_usize, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = *program.get(at)?;
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => a = word(call, k)?,
            AND => a &= k,
            JUMP => at += usize::try_from(k).ok()?,
            JUMP_EQUAL => at += branch(a == k),
            JUMP_GREATER => at += branch(a > k),
            JUMP_GREATER_OR_EQUAL => at += branch(a >= k),
            RETURN => return Some(k),
            _ => return None,
        }
    }
}

/// A word of the kernel's `struct seccomp_data`, little-endian.
fn word(call: Call, offset: u32) -> Option<u32> {
    let data: Vec<u8> = [call.number, call.arch, 0, 0]
        .into_iter()
        .flat_map(u32::to_le_bytes)
        .chain(call.arguments.into_iter().flat_map(u64::to_le_bytes))
        .collect();
    let offset = usize::try_from(offset)
        .ok()
        .filter(|offset| offset.is_multiple_of(4))?;
    let bytes = data.get(offset..offset + 4)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// What the kernel checks of a filter before it installs it.
pub(crate) fn is_well_formed(program: &[Instruction]) -> bool {
    let jumps_inside = |(at, i): (usize, &Instruction)| {
        let farthest = match i.code {
            JUMP => usize::try_from(i.k).unwrap_or(usize::MAX),
            JUMP_EQUAL | JUMP_GREATER | JUMP_GREATER_OR_EQUAL => usize::from(i.jt.max(i.jf)),
            _ => 0,
        };
        (program.len() - at - 1) > farthest || i.code == RETURN
    };
    (1..=4096).contains(&program.len())
        && program.last().is_some_and(|last| last.code == RETURN)
        && program.iter().enumerate().all(jumps_inside)
}

/// What the profile says about a call.
pub(crate) fn decide(profile: &LinuxSeccomp, native: Abi, call: Call) -> u32 {
    let listed = &profile.architectures;
    let is_x32 = call.number >= X32_BIT && call.arch == Abi::X32.audit_number();
    let abi = ABIS.into_iter().find(|abi| {
        let selected = match (native, *abi) {
            (a, b) if a == b => true,
            (Abi::X86_64, Abi::X32) => listed.contains(&Arch::X32),
            (Abi::X86_64, Abi::X86) => listed.contains(&Arch::X86),
            (Abi::Aarch64, Abi::Arm) => listed.contains(&Arch::Arm),
            _ => false,
        };
        selected && abi.audit_number() == call.arch && is_x32 == (*abi == Abi::X32)
    });
    let entries = &profile.syscalls;
    let default = value(profile.default_action, profile.default_errno_ret);
    let Some(abi) = abi else {
        // A call that a tracer has the kernel skip, which is no x32 call.
        let skipped = native == Abi::X86_64 && call.arch == native.audit_number() && call.number == u32::MAX;
        return if skipped { default } else { 0x8000_0000 };
    };
    let own = |name: &str| abi.syscall(name) == Some(call.number);
    if let Some(decided) = decide_among(entries, own, |entry| matches(entry, call, abi), default) {
        return decided;
    }
    if let Some(decided) = behind_pointer(entries, call, abi, default) {
        return decided;
    }
    let lets_pass = [Action::Allow, Action::Log, Action::Trace];
    let named = entries
        .iter()
        .flat_map(|e| e.names.iter().filter_map(|name| abi.syscall(name)));
    let newest = named.map(|n| n & !X32_BIT).filter(|n| *n < 0xf0000).max();
    let newer = newest.is_some_and(|newest| (call.number & !abi.base()) > newest);
    let has_rule = entries.iter().any(|entry| {
        value(entry.action, entry.errno_ret) != default && entry.names.iter().any(|name| own(name))
    });
    if newer && !has_rule && !lets_pass.contains(&profile.default_action) {
        return 0x0005_0000 | 38;
    }
    default
}

/// The first rule without conditions, or else the first whose conditions hold, among those about a call.
fn decide_among(
    entries: &[LinuxSyscall],
    about: impl Fn(&str) -> bool,
    holds: impl Fn(&LinuxSyscall) -> bool,
    default: u32,
) -> Option<u32> {
    let speaks = |entry: &&LinuxSyscall| {
        value(entry.action, entry.errno_ret) != default && entry.names.iter().any(|name| about(name))
    };
    let plain = |entry: &&LinuxSyscall| entry.args.is_empty();
    entries
        .iter()
        .filter(speaks)
        .find(plain)
        .or_else(|| entries.iter().filter(speaks).find(|entry| holds(entry)))
        .map(|entry| value(entry.action, entry.errno_ret))
}

/// The calls of `socketcall` and of `ipc`, by their number there.
const SOCKETCALL: [&str; 21] = [
    "",
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];
const IPC: [&str; 25] = [
    "",
    "semop",
    "semget",
    "semctl",
    "semtimedop",
    "",
    "",
    "",
    "",
    "",
    "",
    "msgsnd",
    "msgrcv",
    "msgget",
    "msgctl",
    "",
    "",
    "",
    "",
    "",
    "",
    "shmat",
    "shmdt",
    "shmget",
    "shmctl",
];

/// What 32-bit x86 has behind `socketcall` and `ipc`.
fn behind_pointer(entries: &[LinuxSyscall], call: Call, abi: Abi, default: u32) -> Option<u32> {
    let first = usize::try_from(call.arguments[0] & 0xffff_ffff).ok()?;
    let meant = match (abi, call.number) {
        (Abi::X86, 102) => SOCKETCALL.get(first),
        (Abi::X86, 117) => IPC.get(first & 0xffff),
        _ => None,
    };
    let meant = *meant?;
    let about = |entry: &&LinuxSyscall| entry.names.iter().any(|name| name == meant);
    let actions = || {
        let about = entries.iter().filter(about);
        about.map(|e| (e.args.is_empty(), value(e.action, e.errno_ret)))
    };
    let rank = |action: u32| {
        // From the strictest on, as seccomp(2) lists them.
        let order = [
            0x8000_0000_u32,
            0,
            0x3_0000,
            0x5_0000,
            0x7fc0_0000,
            0x7ff0_0000,
            0x7ffc_0000,
            0x7fff_0000,
        ];
        order.iter().position(|known| *known == action & 0xffff_0000)
    };
    if let Some((_, action)) = actions().find(|(plain, action)| *plain && *action != default) {
        return Some(action);
    }
    let mut strictest = None;
    for action in actions()
        .map(|(_, action)| action)
        .filter(|action| *action != default)
        .chain([default])
    {
        if strictest.is_none_or(|so_far| rank(action) < rank(so_far)) {
            strictest = Some(action);
        }
    }
    strictest.filter(|action| *action != default)
}

/// Whether the conditions of an entry hold.
fn matches(entry: &LinuxSyscall, call: Call, abi: Abi) -> bool {
    let args = entry.args.clone();
    let holds = |arg: &LinuxSeccompArg| {
        let narrow = |n: u64| {
            if matches!(abi, Abi::X86 | Abi::X32 | Abi::Arm) {
                n & 0xffff_ffff
            } else {
                n
            }
        };
        let (actual, value) = (narrow(call.arguments[arg.index as usize]), narrow(arg.value));
        match arg.op {
            Op::Ne => actual != value,
            Op::Lt => actual < value,
            Op::Le => actual <= value,
            Op::Eq => actual == value,
            Op::Ge => actual >= value,
            Op::Gt => actual > value,
            Op::MaskedEq => actual & value == narrow(arg.value_two),
        }
    };
    let alternatives = (0..6).any(|index| args.iter().filter(|a| a.index == index).count() > 1);
    if alternatives {
        args.iter().any(holds)
    } else {
        args.iter().all(holds)
    }
}

fn value(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::Kill | Action::KillThread => 0,
        Action::KillProcess => 0x8000_0000,
        Action::Trap => 0x0003_0000,
        Action::Errno => 0x0005_0000 | errno.unwrap_or(1),
        Action::Notify => 0x7fc0_0000,
        Action::Trace => 0x7ff0_0000 | errno.unwrap_or(1),
        Action::Log => 0x7ffc_0000,
        Action::Allow => 0x7fff_0000,
    }
}
