//! The execution domain of a container's processes.

use crate::error::Doing;
use crate::oci::{LinuxPersonality, LinuxPersonalityDomain};
use crate::sys::set_personality;
use crate::{Error, Result};

/// `PER_LINUX` of personality(2).
const LINUX: u32 = 0;
/// `PER_LINUX32` of personality(2).
const LINUX32: u32 = 8;

/// Refuses flags, of which the specification defines none.
pub(crate) fn check(personality: &LinuxPersonality) -> Result<()> {
    match personality.flags.first() {
        Some(flag) => {
            let reason = format!("the specification has no flag {flag:?}, nor any other");
            Err(Error::unsupported("linux.personality.flags", reason))
        }
        None => Ok(()),
    }
}

/// Sets the execution domain.
pub(crate) fn apply(personality: &LinuxPersonality) -> Result<()> {
    let domain = match personality.domain {
        LinuxPersonalityDomain::Linux => LINUX,
        LinuxPersonalityDomain::Linux32 => LINUX32,
    };
    set_personality(domain).doing(|| format!("set the personality {domain}"))
}
