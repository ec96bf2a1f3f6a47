//! `linux.seccomp`: system call filters, compiled to classic BPF in pure Rust.
//!
//! ```text
//! profile ──compile──▶ Program ──install──▶ the calling process (in the container's child, right before its exec)
//! ```
//!
//! Semantics, where the OCI specification leaves room:
//! - Rules for the same system call are tried in their order; the first one whose conditions all hold decides. What no
//!   rule decides gets the default action.
//! - Several conditions of one rule on the same argument are alternatives, as in every other runtime.
//! - Names that an architecture does not have are skipped. `socketcall` and `ipc` of 32-bit x86 are calls of their
//!   own: their real arguments are behind a pointer, where no filter can look.
//! - With `SCMP_ACT_ERRNO` as the default, calls that are newer than everything that the profile names fail with ENOSYS
//!   rather than with the default errno, so that C libraries fall back to what they used before.
//! - A process of an architecture that is not listed is killed.

mod arch;
mod assembler;
mod default_profile;
mod error;
mod filter;
#[cfg(test)]
mod reference;
mod rules;
mod syscalls;

use std::os::fd::OwnedFd;

use crate::oci::{LinuxSeccomp, LinuxSeccompFilterFlag};
use nix::errno::Errno;

pub use assembler::Instruction;
pub use default_profile::default_profile;
pub use error::SeccompError;

use arch::Abi;

// Flags of seccomp(2).
const TSYNC: u32 = 1;
const LOG: u32 = 2;
const SPEC_ALLOW: u32 = 4;
const NEW_LISTENER: u32 = 8;
const TSYNC_ESRCH: u32 = 16;
const WAIT_KILLABLE_RECV: u32 = 32;

/// A compiled filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    instructions: Vec<Instruction>,
    flags: u32,
}

/// Compiles a profile for the machine that this runs on.
///
/// # Errors
/// When the profile contradicts itself or the specification, or is too long for the kernel.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, SeccompError> {
    let instructions = filter::build(profile, Abi::native()?)?;
    Ok(Program {
        instructions,
        flags: flags(profile)?,
    })
}

impl Program {
    /// Whether [`install`](Self::install) returns a listener, to be handed to the profile's `listenerPath`.
    pub fn needs_listener(&self) -> bool {
        self.flags & NEW_LISTENER != 0
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

fn flags(profile: &LinuxSeccomp) -> Result<u32, SeccompError> {
    use LinuxSeccompFilterFlag as Flag;
    let mut flags = 0;
    for flag in &profile.flags {
        flags |= match flag {
            Flag::Log => LOG,
            Flag::Tsync => TSYNC,
            Flag::SpecAllow => SPEC_ALLOW,
            Flag::WaitKillableRecv => WAIT_KILLABLE_RECV,
        };
    }
    match (
        rules::notifies(profile),
        flags & WAIT_KILLABLE_RECV != 0,
        flags & TSYNC != 0,
    ) {
        (false, true, _) => Err(SeccompError::KillableWithoutListener),
        (false, false, _) => Ok(flags),
        (true, _, false) => Ok(flags | NEW_LISTENER),
        // Both results would have to come back in the same number.
        (true, _, true) => Ok(flags | NEW_LISTENER | TSYNC_ESRCH),
    }
}
