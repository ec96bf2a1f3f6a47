//! The profile of containers that bring none (`RuntimeDefault`).

use std::collections::BTreeSet;

use crate::oci::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use nix::errno::Errno;

/// `CLONE_NEW*` of the namespaces that only administrators make: mount, cgroup, UTS, IPC, user, PID and network.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;
/// Socket families that a container may use, as a mask and what is left of the family's number under it. Not among
/// them: AF_VSOCK (40), which reaches the hypervisor past every network policy, AF_ALG (38), through which programs
/// have written to files that they could only read, and those without users but with holes on record, such as
/// AF_DECnet (12), AF_IRDA (23) and AF_CAIF (37).
const SOCKET_FAMILIES: [(u64, u64); 18] = [
    (!7, 0),
    (!3, 8),
    (!0, 13),
    (!1, 14),
    (!1, 16),
    (!0, 18),
    (!0, 21),
    (!0, 22),
    (!0, 24),
    (!1, 26),
    (!3, 28),
    (!1, 32),
    (!0, 35),
    (!0, 36),
    (!0, 39),
    (!0, 41),
    (!1, 42),
    (!1, 44),
];
/// Execution domains that change nothing about safety: Linux, 32-bit Linux, both with UNAME26, and a mere query.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x20000, 0x20008, 0xffff_ffff];

/// What every container may call: the same calls as in the default profiles of containerd and Docker. Left out are
/// those that administer the machine, keys, other processes' memory placement, and interfaces with a record of holes,
/// such as io_uring, userfaultfd and keyctl.
#[rustfmt::skip]
const ALWAYS: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset",
    "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr", "flistxattr",
    "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs", "fstatfs64",
    "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32",
    "getgroups", "getgroups32", "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid",
    "getpriority", "getrandom", "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit",
    "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid", "getuid32",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_pgetevents_time64", "io_setup",
    "io_submit", "ioctl", "ioprio_get", "ioprio_set", "ipc", "kill", "landlock_add_rule",
    "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32", "lgetxattr", "link", "linkat",
    "listen", "listmount", "listxattr", "listxattrat", "llistxattr", "_llseek", "lremovexattr", "lseek", "lsetxattr",
    "lstat", "lstat64", "madvise", "map_shadow_stack", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "mmap", "mmap2",
    "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive", "mq_timedreceive_time64",
    "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv",
    "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "_newselect", "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2",
    "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll", "ppoll_time64", "prctl", "pread64", "preadv",
    "preadv2", "prlimit64", "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6",
    "pselect6_time64", "ptrace", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink",
    "readlinkat", "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages",
    "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_get_priority_max",
    "sched_get_priority_min", "sched_getaffinity", "sched_getattr", "sched_getparam", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "set_robust_list", "set_thread_area", "set_tid_address", "setfsgid", "setfsgid32", "setfsuid",
    "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32", "setitimer", "setpgid", "setpriority",
    "setregid", "setregid32", "setresgid", "setresgid32", "setresuid", "setresuid32", "setreuid",
    "setreuid32", "setrlimit", "setsid", "setsockopt", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64", "timer_settime",
    "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64", "timerfd_settime",
    "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit", "umask", "uname", "unlink",
    "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes", "vfork", "vmsplice", "wait4",
    "waitid", "waitpid", "write", "writev",
];

/// Calls of the architectures' own.
#[rustfmt::skip]
const ARCHITECTURE: &[&str] = if cfg!(target_arch = "aarch64") {
    &["arm_fadvise64_64", "arm_sync_file_range", "breakpoint", "cacheflush", "set_tls", "sync_file_range2"]
} else {
    &["arch_prctl", "modify_ldt"]
};

/// What comes with a capability.
#[rustfmt::skip]
const WITH_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_ADMIN", &[
        "bpf", "clone", "clone3", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick",
        "lookup_dcookie", "lsm_get_self_attr", "lsm_list_modules", "lsm_set_self_attr", "mount", "mount_setattr", "move_mount", "open_tree", "perf_event_open", "quotactl",
        "quotactl_fd", "setdomainname", "sethostname", "setns", "syslog", "umount", "umount2", "unshare",
    ]),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    ("CAP_SYS_PTRACE", &[
        "kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace",
    ]),
    ("CAP_SYS_RAWIO", &["ioperm", "iopl"]),
    ("CAP_SYS_TIME", &["clock_settime", "clock_settime64", "settimeofday", "stime"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

/// The default profile for a process with these capabilities in its bounding set. Everything else fails with EPERM.
pub fn default_profile(bounding: &BTreeSet<String>) -> LinuxSeccomp {
    let mut rules = vec![allow(ALWAYS), allow(ARCHITECTURE)];
    for (mask, family) in SOCKET_FAMILIES {
        rules.push(allow_if("socket", mask, family));
    }
    for domain in PERSONALITIES {
        rules.push(allow_if("personality", !0, domain));
    }
    for (_, names) in WITH_CAPABILITY
        .iter()
        .filter(|(capability, _)| bounding.contains(*capability))
    {
        rules.push(allow(names));
    }
    if !bounding.contains("CAP_SYS_ADMIN") {
        rules.push(allow_if("clone", NAMESPACE_FLAGS, 0));
        // Its flags are behind a pointer, where no filter can look: C libraries then use clone.
        rules.push(unknown("clone3"));
    }
    LinuxSeccomp {
        default_action: LinuxSeccompAction::Errno,
        default_errno_ret: Some(Errno::EPERM as u32),
        architectures: architectures(),
        syscalls: rules,
        ..LinuxSeccomp::default()
    }
}

fn architectures() -> Vec<Arch> {
    if cfg!(target_arch = "aarch64") {
        vec![Arch::Aarch64, Arch::Arm]
    } else {
        vec![Arch::X86_64, Arch::X86, Arch::X32]
    }
}

fn allow(names: &[&str]) -> LinuxSyscall {
    LinuxSyscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: LinuxSeccompAction::Allow,
        ..LinuxSyscall::default()
    }
}

/// Allowed if `value` is left of the first argument under the mask.
fn allow_if(name: &str, mask: u64, value: u64) -> LinuxSyscall {
    let condition = LinuxSeccompArg {
        index: 0,
        value: mask,
        value_two: value,
        op: LinuxSeccompOperator::MaskedEq,
    };
    LinuxSyscall {
        args: vec![condition],
        ..allow(&[name])
    }
}

fn unknown(name: &str) -> LinuxSyscall {
    LinuxSyscall {
        action: LinuxSeccompAction::Errno,
        errno_ret: Some(Errno::ENOSYS as u32),
        ..allow(&[name])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_families_are_those_that_containers_use() {
        let allowed = |family: u64| {
            SOCKET_FAMILIES
                .iter()
                .any(|(mask, value)| family & mask == *value)
        };
        let denied: Vec<u64> = (0..60).filter(|family| !allowed(*family)).collect();
        let expected: Vec<u64> = [12, 19, 20, 23, 25, 34, 37, 38, 40]
            .into_iter()
            .chain(46..60)
            .collect();
        assert_eq!(denied, expected);
        assert!(!allowed(1 << 32), "the whole register is looked at");
    }
}
