//! `linux.seccomp`: system call filters, compiled to classic BPF in pure Rust.
//!
//! ```text
//! profile ──compile──▶ Program ──install──▶ the calling process (in the container's child, right before its exec)
//! ```
//!
//! Semantics, where the OCI specification leaves room, are those of runc with libseccomp:
//! - A rule without conditions decides about its system call, wherever it is in the profile. Without one, rules are tried
//!   in their order and the first one whose conditions all hold decides; if none does, the default action.
//! - A rule whose action is the default action says nothing, and does not come before others.
//! - Several conditions of one rule on the same argument are alternatives.
//! - Names that an architecture does not have are skipped, and so are architectures that can't run on this machine.
//! - On 32-bit x86 a rule for `socket` holds for `socketcall(SYS_SOCKET)` too, and so on for all that is behind
//!   `socketcall` and `ipc`. The arguments there can't be looked at: the strictest of what may happen to the call does.
//! - Unless the default action lets calls pass (ALLOW, LOG, TRACE), those that are newer than everything that the profile
//!   names fail with ENOSYS, so that C libraries fall back to what they used before.
//! - A process of an architecture that is not listed is killed.
//! - Without `flags` there is SECCOMP_FILTER_FLAG_SPEC_ALLOW; an empty list means none.

mod arch;
mod assembler;
mod default_profile;
mod error;
mod filter;
mod flags;
mod multiplexed;
#[cfg(test)]
mod properties;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod reference;
mod rules;
mod syscalls;

use std::os::fd::OwnedFd;

use crate::oci::LinuxSeccomp;
use nix::errno::Errno;

pub use assembler::Instruction;
pub use default_profile::default_profile;
pub use error::SeccompError;
pub use flags::supported_flags;

use arch::Abi;

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
    handover: Option<Handover>,
}

/// The one system call by which a process under its filter hands the listener over. The filter must let it pass: nobody
/// answers before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Handover {
    /// sendmsg(2).
    SendMsg,
    /// sendmmsg(2), for profiles that ask about sendmsg(2).
    SendMMsg,
}

/// Compiles a profile for the machine that this runs on.
///
/// # Errors
/// When the profile contradicts itself or the specification, or is too long for the kernel.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, SeccompError> {
    let handover = rules::handover(profile)?;
    let instructions = filter::build(profile, Abi::native()?)?;
    Ok(Program {
        instructions,
        flags: flags::of(profile, handover.is_some())?,
        handover,
    })
}

impl Program {
    /// Whether [`install`](Self::install) returns a listener, to be handed to the profile's `listenerPath`.
    pub fn needs_listener(&self) -> bool {
        self.handover.is_some()
    }

    /// How the listener is handed over.
    pub(crate) fn handover(&self) -> Option<Handover> {
        self.handover
    }

    /// The filter's instructions.
    pub fn instructions(&self) -> &[Instruction] {
        &self.instructions
    }

    /// Installs the filter for the calling thread, for good. The thread needs `no_new_privs`, or CAP_SYS_ADMIN in its
    /// user namespace. Allocates nothing, so that a forked child can call it. What runs after it is filtered.
    ///
    /// Returns the listener when [`needs_listener`](Self::needs_listener) says so. It is close-on-exec.
    ///
    /// # Errors
    /// When the kernel refuses: EACCES for lacking privileges, EINVAL for a flag that it does not have, EBUSY for a
    /// second listener.
    pub fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        crate::sys::seccomp::install(&self.instructions, self.flags, self.needs_listener())
    }
}
