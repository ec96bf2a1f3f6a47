//! Seccomp profiles out of bytes, and calls that lie close to what their rules are about.

use crate::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use crate::seccomp::SeccompError;
use crate::seccomp::reference::{ABIS, Abi, Call, build, decide, is_well_formed, name, run};

/// The reference evaluation is slow on purpose.
const MOST_RULES: usize = 32;

/// Compiles a profile for one of the machines, and compares the filter with the reference evaluation.
///
/// # Panics
/// When they disagree, or the kernel would refuse the filter.
pub fn seccomp_compiler(data: &[u8]) {
    let mut bytes = Bytes(data);
    let machine = bytes.pick(&[Abi::X86_64, Abi::Aarch64]);
    let mut calls = Vec::new();
    for _ in 0..bytes.byte() % 16 {
        calls.push(bytes.call());
    }
    let profile = bytes.profile();
    let program = match build(&profile, machine) {
        Ok(program) => program,
        Err(SeccompError::TooLong(length)) => {
            assert!(length > 4096);
            return;
        }
        Err(other) => {
            assert!(profile.default_action == Action::Notify, "{other}: {profile:?}");
            return;
        }
    };
    assert!(is_well_formed(&program), "{profile:?}");
    for rule in &profile.syscalls {
        calls.extend(near(rule, machine));
    }
    for call in calls {
        let (actual, expected) = (run(&program, call), decide(&profile, machine, call));
        assert!(
            actual == Some(expected),
            "{call:x?}: {actual:x?}, not {expected:x}: {profile:?}"
        );
    }
}

/// Calls that a rule is about, and the next ones, on every convention of a machine.
fn near(rule: &LinuxSyscall, machine: Abi) -> Vec<Call> {
    let mut exact = [0; 6];
    let mut above = [u64::MAX; 6];
    for arg in &rule.args {
        let index = usize::try_from(arg.index % 6).unwrap_or(0);
        exact[index] = if arg.op == LinuxSeccompOperator::MaskedEq {
            arg.value_two
        } else {
            arg.value
        };
        above[index] = arg.value.wrapping_add(1);
    }
    let mut calls = Vec::new();
    let abis = match machine {
        Abi::X86_64 => &[Abi::X86_64, Abi::X32, Abi::X86][..],
        _ => &[Abi::Aarch64, Abi::Arm],
    };
    for abi in abis {
        let number = rule.names.first().and_then(|name| abi.syscall(name));
        for (number, arguments) in number
            .into_iter()
            .flat_map(|n| [(n, exact), (n, above), (n + 1, exact)])
        {
            let arch = abi.audit_number();
            calls.push(Call {
                arch,
                number,
                arguments,
            });
        }
    }
    calls
}

/// What is left of the input; zeros when nothing is.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let length = N.min(self.0.len());
        let (head, rest) = self.0.split_at(length);
        taken[..length].copy_from_slice(head);
        self.0 = rest;
        taken
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// Values at the borders of halves and signs, small ones, or any.
    fn value(&mut self) -> u64 {
        match self.byte() {
            0 => 0x8000_0000,
            1 => 0xffff_ffff,
            2 => 0x1_0000_0000,
            3 => u64::MAX,
            4 => u64::from_le_bytes(self.take()),
            5 => u64::from(u32::from_le_bytes(self.take())),
            small => u64::from(small - 6),
        }
    }

    fn name(&mut self) -> &'static str {
        name(u16::from_le_bytes(self.take()).into())
    }

    fn call(&mut self) -> Call {
        let abi = self.pick(&ABIS);
        let number = match self.byte() {
            0 => u32::from_le_bytes(self.take()),
            1 => u32::from(u16::from_le_bytes(self.take())) | 0x4000_0000,
            2 => u32::from(u16::from_le_bytes(self.take())),
            _ => abi.syscall(self.name()).unwrap_or(0),
        };
        let arch = if self.byte() == 0 {
            u32::from_le_bytes(self.take())
        } else {
            abi.audit_number()
        };
        let arguments = std::array::from_fn(|_| self.value());
        Call {
            arch,
            number,
            arguments,
        }
    }

    fn action(&mut self) -> (Action, Option<u32>) {
        let action = self.pick(Action::ALL);
        let data = match action {
            Action::Errno => Some(u32::from(u16::from_le_bytes(self.take()) & 0xfff)),
            Action::Trace => Some(u32::from(u16::from_le_bytes(self.take()))),
            _ => None,
        };
        (action, data.filter(|data| *data != 1))
    }

    fn profile(&mut self) -> LinuxSeccomp {
        let (default_action, default_errno_ret) = self.action();
        let architectures = (0..self.byte() % 8).map(|_| self.pick(Arch::ALL)).collect();
        let mut syscalls = Vec::new();
        while !self.0.is_empty() && syscalls.len() < MOST_RULES {
            let (action, errno_ret) = self.action();
            let shape = self.byte();
            syscalls.push(LinuxSyscall {
                names: (0..=shape & 3).map(|_| self.name().to_owned()).collect(),
                action,
                errno_ret,
                args: (0..shape >> 5).map(|_| self.condition()).collect(),
            });
        }
        LinuxSeccomp {
            default_action,
            default_errno_ret,
            architectures,
            syscalls,
            ..LinuxSeccomp::default()
        }
    }

    fn condition(&mut self) -> LinuxSeccompArg {
        LinuxSeccompArg {
            index: u32::from(self.byte() % 6),
            value: self.value(),
            value_two: self.value(),
            op: self.pick(LinuxSeccompOperator::ALL),
        }
    }
}
