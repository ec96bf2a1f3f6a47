//! `linux.seccomp`: which system calls a container may make.

use std::path::PathBuf;

use super::decode::{names, objects};

objects! {
    /// A system call filter.
    struct LinuxSeccomp {
        /// What happens to calls that no rule matches.
        "defaultAction" default_action: LinuxSeccompAction = required,
        /// The error number of the default action, where that has one.
        "defaultErrnoRet" default_errno_ret: Option<u32>,
        /// The architectures whose calls may be made, beside the native one.
        "architectures" architectures: Vec<Arch>,
        /// How the filter is installed; an empty list differs from none.
        "flags" flags: Option<Vec<LinuxSeccompFilterFlag>>,
        /// The socket of who is notified of calls.
        "listenerPath" listener_path: PathBuf,
        /// What it is told about the container.
        "listenerMetadata" listener_metadata: String,
        /// The rules.
        "syscalls" syscalls: Vec<LinuxSyscall>,
    }

    /// A rule.
    struct LinuxSyscall {
        /// The system calls that it is for.
        "names" names: Vec<String> = required,
        /// What happens to them.
        "action" action: LinuxSeccompAction = required,
        /// The error number of the action, where that has one.
        "errnoRet" errno_ret: Option<u32>,
        /// The rule is only for calls with such arguments.
        "args" args: Vec<LinuxSeccompArg>,
    }

    /// A condition on an argument.
    struct LinuxSeccompArg {
        /// Which argument, from 0 to 5.
        "index" index: u32,
        /// What it is compared to, or the mask.
        "value" value: u64,
        /// What the masked argument is compared to.
        "valueTwo" value_two: u64,
        /// The comparison.
        "op" op: LinuxSeccompOperator = required,
    }
}

names! {
    /// What happens to a system call; see seccomp(2).
    enum LinuxSeccompAction {
        /// The thread is killed.
        "SCMP_ACT_KILL" Kill,
        /// The thread is killed.
        "SCMP_ACT_KILL_THREAD" KillThread,
        /// The process is killed.
        "SCMP_ACT_KILL_PROCESS" KillProcess,
        /// The thread gets SIGSYS.
        "SCMP_ACT_TRAP" Trap,
        /// The call fails.
        "SCMP_ACT_ERRNO" Errno,
        /// A listener decides.
        "SCMP_ACT_NOTIFY" Notify,
        /// A tracer decides.
        "SCMP_ACT_TRACE" Trace,
        /// The call is made and logged.
        "SCMP_ACT_LOG" Log,
        /// The call is made.
        "SCMP_ACT_ALLOW" Allow,
    }

    /// An architecture, as libseccomp names it.
    enum Arch {
        /// The one that the runtime was built for.
        "SCMP_ARCH_NATIVE" Native,
        /// i386.
        "SCMP_ARCH_X86" X86,
        /// x86_64.
        "SCMP_ARCH_X86_64" X86_64,
        /// x86_64 with 32-bit pointers.
        "SCMP_ARCH_X32" X32,
        /// 32-bit ARM (EABI).
        "SCMP_ARCH_ARM" Arm,
        /// 64-bit ARM.
        "SCMP_ARCH_AARCH64" Aarch64,
        /// MIPS, big-endian.
        "SCMP_ARCH_MIPS" Mips,
        /// 64-bit MIPS, big-endian.
        "SCMP_ARCH_MIPS64" Mips64,
        /// 64-bit MIPS with 32-bit pointers, big-endian.
        "SCMP_ARCH_MIPS64N32" Mips64n32,
        /// MIPS, little-endian.
        "SCMP_ARCH_MIPSEL" Mipsel,
        /// 64-bit MIPS, little-endian.
        "SCMP_ARCH_MIPSEL64" Mipsel64,
        /// 64-bit MIPS with 32-bit pointers, little-endian.
        "SCMP_ARCH_MIPSEL64N32" Mipsel64n32,
        /// PowerPC.
        "SCMP_ARCH_PPC" Ppc,
        /// 64-bit PowerPC, big-endian.
        "SCMP_ARCH_PPC64" Ppc64,
        /// 64-bit PowerPC, little-endian.
        "SCMP_ARCH_PPC64LE" Ppc64le,
        /// 31-bit S/390.
        "SCMP_ARCH_S390" S390,
        /// 64-bit S/390.
        "SCMP_ARCH_S390X" S390x,
        /// PA-RISC.
        "SCMP_ARCH_PARISC" Parisc,
        /// 64-bit PA-RISC.
        "SCMP_ARCH_PARISC64" Parisc64,
        /// 64-bit RISC-V.
        "SCMP_ARCH_RISCV64" Riscv64,
        /// 64-bit LoongArch.
        "SCMP_ARCH_LOONGARCH64" Loongarch64,
        /// Motorola 68000.
        "SCMP_ARCH_M68K" M68k,
        /// SuperH, little-endian.
        "SCMP_ARCH_SH" Sh,
        /// SuperH, big-endian.
        "SCMP_ARCH_SHEB" Sheb,
    }

    /// How a filter is installed; see seccomp(2).
    enum LinuxSeccompFilterFlag {
        /// On all threads.
        "SECCOMP_FILTER_FLAG_TSYNC" Tsync,
        /// Log every action but allow.
        "SECCOMP_FILTER_FLAG_LOG" Log,
        /// Without the mitigation of speculative store bypass.
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" SpecAllow,
        /// While a listener has been told of a call, only fatal signals interrupt it.
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" WaitKillableRecv,
    }

    /// A comparison of an argument.
    enum LinuxSeccompOperator {
        /// Not equal.
        "SCMP_CMP_NE" Ne,
        /// Less than.
        "SCMP_CMP_LT" Lt,
        /// Less than or equal.
        "SCMP_CMP_LE" Le,
        /// Equal.
        "SCMP_CMP_EQ" Eq,
        /// Greater than or equal.
        "SCMP_CMP_GE" Ge,
        /// Greater than.
        "SCMP_CMP_GT" Gt,
        /// Equal where the mask has a one.
        "SCMP_CMP_MASKED_EQ" MaskedEq,
    }
}
