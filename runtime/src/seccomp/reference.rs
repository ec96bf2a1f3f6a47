//! Tests of the compiler against the meaning of profiles, spelled out without any cleverness.

use crate::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
    LinuxSyscall,
};
use proptest::prelude::*;

use super::arch::{Abi, X32_BIT};
use super::assembler::{
    AND, Instruction, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, RETURN,
};
use super::{default_profile, filter};

/// What the kernel shows to a filter.
#[derive(Clone, Copy, Debug)]
struct Call {
    arch: u32,
    number: u32,
    arguments: [u64; 6],
}

/// Runs a filter as the kernel does; anything that it would refuse fails the test.
fn run(program: &[Instruction], call: Call) -> u32 {
    let word = |offset: u32| -> u32 {
        let index = usize::try_from(offset).unwrap();
        match offset {
            0 => call.number,
            4 => call.arch,
            16..64 if offset.is_multiple_of(8) => (call.arguments[(index - 16) / 8] & 0xffff_ffff)
                .try_into()
                .unwrap(),
            20..64 if offset % 8 == 4 => (call.arguments[(index - 20) / 8] >> 32).try_into().unwrap(),
            _ => panic!("load of {offset}"),
        }
    };
    let (mut at, mut a) = (0, 0);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            LOAD => a = word(k),
            AND => a &= k,
            JUMP => at += usize::try_from(k).unwrap(),
            JUMP_EQUAL => at += branch(a == k),
            JUMP_GREATER => at += branch(a > k),
            JUMP_GREATER_OR_EQUAL => at += branch(a >= k),
            RETURN => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

/// What the profile says about a call.
fn decide(profile: &LinuxSeccomp, native: Abi, call: Call) -> u32 {
    let listed = &profile.architectures;
    let abis = [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm];
    let is_x32 = call.number >= X32_BIT && call.arch == Abi::X32.audit_number();
    let abi = abis.into_iter().find(|abi| {
        let selected = match (native, *abi) {
            (a, b) if a == b => true,
            (Abi::X86_64, Abi::X32) => listed.contains(&Arch::X32),
            (Abi::X86_64, Abi::X86) => listed.contains(&Arch::X86),
            (Abi::Aarch64, Abi::Arm) => listed.contains(&Arch::Arm),
            _ => false,
        };
        selected && abi.audit_number() == call.arch && is_x32 == (*abi == Abi::X32)
    });
    let Some(abi) = abi else { return 0x8000_0000 };
    let entries = &profile.syscalls;
    let default = value(profile.default_action, profile.default_errno_ret);
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

/// What 32-bit x86 has behind `socketcall` and `ipc`, as far as [`NAMES`] go.
fn behind_pointer(entries: &[LinuxSyscall], call: Call, abi: Abi, default: u32) -> Option<u32> {
    let first = call.arguments[0] & 0xffff_ffff;
    let meant = match (abi, call.number, first) {
        (Abi::X86, 102, 1) => "socket",
        (Abi::X86, 102, 5) => "accept",
        (Abi::X86, 117, _) if first & 0xffff == 2 => "semget",
        _ => return None,
    };
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
            if matches!(abi, Abi::X86 | Abi::Arm) {
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

const NAMES: [&str; 15] = [
    "read",
    "openat",
    "clone",
    "socket",
    "accept",
    "socketcall",
    "semget",
    "ipc",
    "mmap",
    "execve",
    "mseal",
    "set_tls",
    "futex_time64",
    "getpid",
    "no_such_call",
];

fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0_u64),
        Just(1),
        Just(5),
        Just(0x1_0002),
        Just(0x8000_0000),
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0005),
        Just(u64::MAX),
        any::<u64>(),
    ]
}

fn action() -> impl Strategy<Value = (Action, Option<u32>)> {
    prop_oneof![
        Just((Action::Allow, None)),
        Just((Action::KillProcess, None)),
        Just((Action::Kill, None)),
        Just((Action::Trap, None)),
        Just((Action::Log, None)),
        (0_u32..4096).prop_map(|n| (Action::Errno, Some(n))),
        Just((Action::Errno, None)),
        Just((Action::KillThread, None)),
        (0_u32..0x1_0000).prop_map(|n| (Action::Trace, Some(n))),
    ]
}

fn argument() -> impl Strategy<Value = LinuxSeccompArg> {
    let op = prop_oneof![
        Just(Op::Ne),
        Just(Op::Lt),
        Just(Op::Le),
        Just(Op::Eq),
        Just(Op::Ge),
        Just(Op::Gt),
        Just(Op::MaskedEq),
    ];
    (0_u32..6, op, interesting(), interesting()).prop_map(|(index, op, value, two)| LinuxSeccompArg {
        index,
        value,
        value_two: two,
        op,
    })
}

fn entry() -> impl Strategy<Value = LinuxSyscall> {
    let names = prop::collection::vec(prop::sample::select(NAMES.to_vec()), 1..4);
    (names, action(), prop::collection::vec(argument(), 0..4)).prop_map(|(names, (action, errno), args)| {
        LinuxSyscall {
            names: names.into_iter().map(str::to_owned).collect(),
            action,
            errno_ret: errno,
            args,
        }
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let arches = vec![Arch::X86, Arch::X32, Arch::Arm, Arch::Mips];
    let arches = prop::collection::vec(prop::sample::select(arches), 0..4);
    (action(), arches, prop::collection::vec(entry(), 0..40)).prop_map(
        |((action, errno), arches, entries)| LinuxSeccomp {
            default_action: action,
            default_errno_ret: errno,
            architectures: arches,
            syscalls: entries,
            ..LinuxSeccomp::default()
        },
    )
}

fn calls() -> impl Strategy<Value = Call> {
    let arch = prop::sample::select(vec![0xc000_003e_u32, 0x4000_0003, 0xc000_00b7, 0x4000_0028, 8]);
    let known = (prop::sample::select(NAMES.to_vec()), 0_usize..5)
        .prop_filter_map("unknown", |(name, abi)| {
            [Abi::X86_64, Abi::X32, Abi::X86, Abi::Aarch64, Abi::Arm][abi].syscall(name)
        });
    let number = prop_oneof![8 => known, 2 => 0_u32..1000, 1 => X32_BIT..X32_BIT + 1000, 1 => any::<u32>()];
    (arch, number, prop::array::uniform6(interesting())).prop_map(|(arch, number, arguments)| Call {
        arch,
        number,
        arguments,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn filters_do_what_profiles_say(
        profile in profile(),
        arm in any::<bool>(),
        calls in prop::collection::vec(calls(), 40),
    ) {
        let native = if arm { Abi::Aarch64 } else { Abi::X86_64 };
        let program = filter::build(&profile, native).unwrap();
        for call in calls {
            prop_assert_eq!(run(&program, call), decide(&profile, native, call), "{:x?}", call);
        }
    }
}

/// Every call of every architecture, with the arguments that the default profile looks at.
#[test]
fn the_default_profile_call_by_call() {
    for bounding in [
        vec![],
        vec!["CAP_SYS_ADMIN"],
        vec!["CAP_SYS_TIME", "CAP_SYS_BOOT"],
    ] {
        let profile = default_profile(&bounding.into_iter().map(str::to_owned).collect());
        let native = Abi::native().unwrap();
        let program = filter::build(&profile, native).unwrap();
        for arch in [0xc000_003e_u32, 0x4000_0003, 0xc000_00b7] {
            for number in (0..480).chain(X32_BIT..X32_BIT + 550).chain([u32::MAX]) {
                // socket, personality, clone: what the profile looks at, on each architecture.
                let looked_at = [41, 135, 56, 359, 136, 120, 198, 92, 220].contains(&(number & !X32_BIT));
                for first in if looked_at {
                    &[0_u64, 40, 0x8, 0x1000_0000][..]
                } else {
                    &[0]
                } {
                    let call = Call {
                        arch,
                        number,
                        arguments: [*first, 0, 0, 0, 0, 0],
                    };
                    assert_eq!(run(&program, call), decide(&profile, native, call), "{call:x?}");
                }
            }
        }
    }
}

/// Far jumps: so many rules that conditional jumps can't reach over them, and then too many.
#[test]
fn long_programs() {
    let rule = |value: u64, action| {
        let arg = LinuxSeccompArg {
            index: 1,
            value,
            value_two: 0,
            op: Op::Eq,
        };
        LinuxSyscall {
            names: vec!["read".to_owned(), "openat".to_owned()],
            action,
            errno_ret: None,
            args: vec![arg],
        }
    };
    let profile = |count| LinuxSeccomp {
        default_action: Action::Errno,
        syscalls: (0..count).map(|n| rule(n, Action::Allow)).collect(),
        ..LinuxSeccomp::default()
    };
    let native = Abi::native().unwrap();
    let long = profile(300);
    let program = filter::build(&long, native).unwrap();
    assert!(program.len() > 1500);
    for value in [0, 1, 150, 299, 300, 1 << 32] {
        for name in ["read", "openat", "close"] {
            let number = native.syscall(name).unwrap();
            let call = Call {
                arch: native.audit_number(),
                number,
                arguments: [0, value, 0, 0, 0, 0],
            };
            assert_eq!(run(&program, call), decide(&long, native, call), "{name} {value}");
        }
    }
    assert!(matches!(
        filter::build(&profile(1000), native),
        Err(super::SeccompError::TooLong(_))
    ));
}

/// The kernel runs the filter for each call that looks at arguments or that it refuses: its path has to be short.
#[test]
fn common_calls_take_a_dozen_instructions() {
    let native = Abi::native().unwrap();
    let program = filter::build(&default_profile(&[].into()), native).unwrap();
    assert!(program.len() < 1000, "{}", program.len());
    let mut steps = 0;
    let (mut at, number) = (0, native.syscall("clone").unwrap());
    let mut a = 0;
    while program[at].code != RETURN {
        let i = program[at];
        steps += 1;
        at += 1;
        match i.code {
            LOAD => {
                a = [number, native.audit_number()]
                    .get(i.k as usize / 4)
                    .copied()
                    .unwrap_or(0)
            }
            JUMP => at += i.k as usize,
            JUMP_EQUAL => at += usize::from(if a == i.k { i.jt } else { i.jf }),
            JUMP_GREATER_OR_EQUAL => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
            AND => a &= i.k,
            other => panic!("instruction {other:#x}"),
        }
    }
    assert!(steps <= 16, "{steps}");
}

/// Contradictions in a profile.
#[test]
fn refusals() {
    let native = Abi::native().unwrap();
    let refused = |json: &str| {
        let profile: LinuxSeccomp = serde_json::from_str(json).unwrap();
        filter::build(&profile, native)
            .map(drop)
            .and_then(|()| super::flags::of(&profile, super::rules::handover(&profile)?.is_some()).map(drop))
            .unwrap_err()
            .to_string()
    };
    let cases = [
        (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "default action"),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":5}"#,
            "SCMP_ACT_ALLOW",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#,
            "5000",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            "write",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO",
                "args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}]}"#,
            "argument 6",
        ),
        (
            r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
            "WAIT_KILLABLE_RECV",
        ),
    ];
    for (json, expected) in cases {
        let message = refused(json);
        assert!(message.contains(expected), "{message}");
    }
}
