//! Properties of the compiler: filters do what profiles say.

use proptest::prelude::*;

use super::arch::{Abi, X32_BIT};
use super::assembler::{AND, JUMP, JUMP_EQUAL, JUMP_GREATER_OR_EQUAL, LOAD, RETURN};
use super::reference::{Call, decide, is_well_formed, run};
use super::{default_profile, filter};
use crate::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Op,
    LinuxSyscall,
};

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
    let action = prop_oneof![8 => action(), 1 => Just((Action::Notify, None))];
    (names, action, prop::collection::vec(argument(), 0..4)).prop_map(|(names, (action, errno), args)| {
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
        prop_assert!(is_well_formed(&program));
        for call in calls {
            prop_assert_eq!(run(&program, call), Some(decide(&profile, native, call)), "{:x?}", call);
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
                    &[0_u64, 2, 16, 29, 38, 40, 45, 46, 0x8, 0x1000_0000][..]
                } else {
                    &[0]
                } {
                    let call = Call {
                        arch,
                        number,
                        arguments: [*first, 0, 0, 0, 0, 0],
                    };
                    assert_eq!(
                        run(&program, call),
                        Some(decide(&profile, native, call)),
                        "{call:x?}"
                    );
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
            assert_eq!(
                run(&program, call),
                Some(decide(&long, native, call)),
                "{name} {value}"
            );
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
