//! Architectures, as the kernel tells them apart in `seccomp_data.arch`.

use crate::oci::Arch;

use super::SeccompError;
use super::multiplexed::{Multiplexed, multiplexed};
use super::syscalls::{Column, number, x32_number};

/// One calling convention that a filter handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Abi {
    X86_64,
    /// Shares x86_64's audit number; its calls have a bit set.
    X32,
    X86,
    Aarch64,
    Arm,
}

/// Marks the calls of x32.
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Abi {
    /// What this program runs on.
    pub(super) fn native() -> Result<Self, SeccompError> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => Err(SeccompError::Architecture(other)),
        }
    }

    /// The conventions to handle for a profile: the machine's own, and those of its relatives that are listed. Others
    /// can't run on this machine, and need no code.
    pub(super) fn selected(native: Self, listed: &[Arch]) -> Vec<Self> {
        let relatives: &[(Arch, Self)] = match native {
            Self::X86_64 => &[(Arch::X86, Self::X86), (Arch::X32, Self::X32)],
            Self::Aarch64 => &[(Arch::Arm, Self::Arm)],
            Self::X32 | Self::X86 | Self::Arm => &[],
        };
        let chosen = relatives
            .iter()
            .filter(|(arch, _)| listed.contains(arch))
            .map(|(_, abi)| *abi);
        std::iter::once(native).chain(chosen).collect()
    }

    /// `AUDIT_ARCH_*`.
    pub(crate) const fn audit_number(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The number of a system call, as `seccomp_data.nr` has it.
    pub(crate) fn syscall(self, name: &str) -> Option<u32> {
        match self {
            Self::X86_64 => number(name, Column::X86_64),
            Self::X32 => x32_number(name).map(|n| n | X32_BIT),
            Self::X86 => number(name, Column::X86),
            Self::Aarch64 => number(name, Column::Aarch64),
            Self::Arm => number(name, Column::Arm),
        }
    }

    /// How a system call is reached besides its number.
    pub(super) fn multiplexed(self, name: &str) -> Option<Multiplexed> {
        match self {
            Self::X86 => multiplexed(name),
            Self::X86_64 | Self::X32 | Self::Aarch64 | Self::Arm => None,
        }
    }

    /// The first number of its own.
    pub(super) const fn base(self) -> u32 {
        if matches!(self, Self::X32) { X32_BIT } else { 0 }
    }

    /// Whether arguments are 32 bits wide; only that many bits of them and of a rule's values count then, so that `-1`
    /// means the same in a 32-bit process. That of x32 has whole registers, but programs and the kernel use half.
    pub(super) const fn narrow(self) -> bool {
        matches!(self, Self::X86 | Self::X32 | Self::Arm)
    }
}
