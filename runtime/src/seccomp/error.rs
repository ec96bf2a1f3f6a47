//! Why a profile can't become a filter.

use nix::errno::Errno;
use thiserror::Error;

/// Any failure of this module; each message names the field of `linux.seccomp`.
#[derive(Debug, Error)]
pub enum SeccompError {
    /// No tables for the machine that this runs on.
    #[error("linux.seccomp cannot be applied: berth has no system call table for the architecture {0}.")]
    Architecture(&'static str),

    /// A number that the kernel could not return, or not tell a tracer.
    #[error("linux.seccomp: errnoRet {errno} of {place} is too large; its action takes 0 to {most}.")]
    Errno {
        /// The value that was asked for.
        errno: u32,
        /// The largest that its action takes.
        most: u32,
        /// Which rule.
        place: String,
    },

    /// An errno beside an action that returns none.
    #[error("linux.seccomp: {place} has an errnoRet, but its action {action} does not return one.")]
    ErrnoWithoutUse {
        /// Which rule.
        place: String,
        /// The action's name in the spec.
        action: &'static str,
    },

    /// A rule for a call without a name.
    #[error("linux.seccomp: a rule has an empty name among its syscalls; remove it.")]
    EmptyName,

    /// A condition on a seventh argument.
    #[error(
        "linux.seccomp: a rule for {syscall:?} looks at argument {index}; system calls have arguments 0 to 5."
    )]
    Argument {
        /// The rule's first system call.
        syscall: String,
        /// The index in the spec.
        index: u32,
    },

    /// Notification of what the runtime itself needs to set the notification up.
    #[error(
        "linux.seccomp: SCMP_ACT_NOTIFY cannot be used for {0}: nobody could answer before the listener was handed over."
    )]
    Notify(&'static str),

    /// A flag that only makes sense with a listener.
    #[error(
        "linux.seccomp: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY; remove the flag or add one."
    )]
    KillableWithoutListener,

    /// More instructions than the kernel takes.
    #[error(
        "linux.seccomp: the profile compiles to {0} instructions, and the kernel takes at most 4096; simplify its argument rules."
    )]
    TooLong(usize),

    /// The kernel refused the finished filter.
    #[error("The seccomp filter could not be installed: {0}.")]
    Install(Errno),
}
