//! `process`: the program of a container, and who it runs as.

use std::path::PathBuf;

use super::decode::{names, objects};

objects! {
    /// A program and who it runs as.
    struct Process {
        /// Its standard streams are a terminal of its own.
        "terminal" terminal: bool,
        /// How large the terminal is.
        "consoleSize" console_size: Option<ConsoleSize>,
        /// Who it runs as.
        "user" user: User,
        /// The program and its arguments.
        "args" args: Vec<String>,
        /// Windows' form of `args`: refused.
        "commandLine" command_line: String,
        /// The environment, as `NAME=value`.
        "env" env: Vec<String>,
        /// The working directory, absolute.
        "cwd" cwd: PathBuf,
        /// What it may do of what only root may.
        "capabilities" capabilities: Option<LinuxCapabilities>,
        /// Resource limits.
        "rlimits" rlimits: Vec<PosixRlimit>,
        /// It can't gain privileges by executing a program.
        "noNewPrivileges" no_new_privileges: bool,
        /// The AppArmor profile that confines it.
        "apparmorProfile" apparmor_profile: String,
        /// How soon it is killed when memory runs out: -1000 (never) to 1000.
        "oomScoreAdj" oom_score_adj: Option<i32>,
        /// The SELinux context that it runs in.
        "selinuxLabel" selinux_label: String,
        /// How soon its input and output is served.
        "ioPriority" io_priority: Option<LinuxIoPriority>,
        /// How it is scheduled.
        "scheduler" scheduler: Option<Scheduler>,
        /// Processors for a process that is added to a container.
        "execCPUAffinity" exec_cpu_affinity: Option<CpuAffinity>,
    }

    /// The size of a terminal.
    struct ConsoleSize {
        /// Rows.
        "height" height: u64,
        /// Columns.
        "width" width: u64,
    }

    /// A user with groups.
    struct User {
        /// The user id, in the container's user namespace.
        "uid" uid: u32,
        /// The group id, in the container's user namespace.
        "gid" gid: u32,
        /// The mask of modes of new files.
        "umask" umask: Option<u32>,
        /// More groups.
        "additionalGids" additional_gids: Vec<u32>,
        /// Windows' form of the user: refused.
        "username" username: String,
    }

    /// Capabilities by their names, `CAP_CHOWN`; see capabilities(7).
    struct LinuxCapabilities {
        /// The limit of what can be gained.
        "bounding" bounding: Vec<String>,
        /// What is checked.
        "effective" effective: Vec<String>,
        /// What is kept by programs that have it inheritable too.
        "inheritable" inheritable: Vec<String>,
        /// The limit of the effective ones.
        "permitted" permitted: Vec<String>,
        /// What is kept by any program.
        "ambient" ambient: Vec<String>,
    }

    /// A resource limit; see setrlimit(2).
    struct PosixRlimit {
        /// Of what.
        "type" typ: PosixRlimitType = required,
        /// The ceiling of `soft`.
        "hard" hard: u64,
        /// The limit.
        "soft" soft: u64,
    }

    /// A class and a priority in it; see ioprio_set(2).
    struct LinuxIoPriority {
        /// The class.
        "class" class: IoPriorityClass = required,
        /// 0 (first) to 7.
        "priority" priority: i64,
    }

    /// How a process is scheduled; see sched_setattr(2).
    struct Scheduler {
        /// By which rules.
        "policy" policy: LinuxSchedulerPolicy = required,
        /// -20 (first) to 19, for other and batch.
        "nice" nice: i32,
        /// 1 to 99 (first), for fifo and rr.
        "priority" priority: i32,
        /// Details.
        "flags" flags: Vec<LinuxSchedulerFlag>,
        /// Nanoseconds of work a period, for deadline.
        "runtime" runtime: u64,
        /// Nanoseconds from the begin of a period until the work must be done.
        "deadline" deadline: u64,
        /// Nanoseconds.
        "period" period: u64,
    }

    /// Lists of processors: `0-2,7`.
    struct CpuAffinity {
        /// While the runtime adds the process to the container.
        "initial" initial: String,
        /// From then on.
        "final" last: String,
    }
}

names! {
    /// What a resource limit is of.
    enum PosixRlimitType {
        /// Seconds of processor time.
        "RLIMIT_CPU" Cpu,
        /// Bytes of a file.
        "RLIMIT_FSIZE" Fsize,
        /// Bytes of data segments.
        "RLIMIT_DATA" Data,
        /// Bytes of stack.
        "RLIMIT_STACK" Stack,
        /// Bytes of a core dump.
        "RLIMIT_CORE" Core,
        /// Has no effect since Linux 2.4.30.
        "RLIMIT_RSS" Rss,
        /// Processes of the user.
        "RLIMIT_NPROC" Nproc,
        /// Open files.
        "RLIMIT_NOFILE" Nofile,
        /// Bytes of locked memory.
        "RLIMIT_MEMLOCK" Memlock,
        /// Bytes of address space.
        "RLIMIT_AS" As,
        /// Has no effect since Linux 2.4.25.
        "RLIMIT_LOCKS" Locks,
        /// Signals that wait.
        "RLIMIT_SIGPENDING" Sigpending,
        /// Bytes of POSIX message queues.
        "RLIMIT_MSGQUEUE" Msgqueue,
        /// The ceiling of the nice value.
        "RLIMIT_NICE" Nice,
        /// The ceiling of the real-time priority.
        "RLIMIT_RTPRIO" Rtprio,
        /// Microseconds of real-time processor time without a blocking system call.
        "RLIMIT_RTTIME" Rttime,
    }

    /// A class of input and output.
    enum IoPriorityClass {
        /// Before all others.
        "IOPRIO_CLASS_RT" RealTime,
        /// The usual one.
        "IOPRIO_CLASS_BE" BestEffort,
        /// When nobody else wants the disk.
        "IOPRIO_CLASS_IDLE" Idle,
    }

    /// The rules by which a process is scheduled; see sched(7).
    enum LinuxSchedulerPolicy {
        /// The usual one.
        "SCHED_OTHER" Other,
        /// First in, first out.
        "SCHED_FIFO" Fifo,
        /// Round robin.
        "SCHED_RR" Rr,
        /// Long work without interaction.
        "SCHED_BATCH" Batch,
        /// Has never been in Linux.
        "SCHED_ISO" Iso,
        /// When nobody else wants the processor.
        "SCHED_IDLE" Idle,
        /// Earliest deadline first.
        "SCHED_DEADLINE" Deadline,
    }

    /// Details of scheduling.
    enum LinuxSchedulerFlag {
        /// Children are scheduled as usual.
        "SCHED_FLAG_RESET_ON_FORK" ResetOnFork,
        /// Deadline: use time that others left.
        "SCHED_FLAG_RECLAIM" Reclaim,
        /// Deadline: a signal when the time is used up.
        "SCHED_FLAG_DL_OVERRUN" DeadlineOverrun,
        /// Leave the policy as it is.
        "SCHED_FLAG_KEEP_POLICY" KeepPolicy,
        /// Leave the parameters as they are.
        "SCHED_FLAG_KEEP_PARAMS" KeepParams,
        /// Set the lower end of utilization.
        "SCHED_FLAG_UTIL_CLAMP_MIN" UtilClampMin,
        /// Set the upper end of utilization.
        "SCHED_FLAG_UTIL_CLAMP_MAX" UtilClampMax,
    }
}
